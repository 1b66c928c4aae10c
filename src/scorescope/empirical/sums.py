"""Many rows: all of them are summed, with logits put together in float64 and sums whose rounding is known, or all in float64.

weights    w_j = exp(logit_j − start), with a start that follows the largest logit so far, at most LAG behind
float32    a sum of 64 products is off by at most 64·2⁻²⁴·Σ w‖x‖; eight such sums are added in float32, these in float64
integers   of rows on a grid: a tile's weights as three planes of 8 bits, or four where these leave much; what is left bounds the error
few        where few of a tile's rows hold all weight but a share that is known, these are gathered, 64 at a time in float32
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from scorescope.empirical.integers import integer_products
from scorescope.empirical.partial import LAST, Partial
from scorescope.empirical.planes import BASE, Rows
from scorescope.empirical.products import Logits, Tile
from scorescope.empirical.ranks import Ranks
from scorescope.search.products import U32, U64, product

RUN, RUNS = 64, 8  # rows of a product; such products that float32 adds up before float64 takes over
LOT = 1 << 13  # rows whose squares are added up in float32
DEEP = 32.0  # nats below the start beyond which weights in float32 are not vouched for one by one
SPARSE, CUT = 0.25, 32.0  # share of a tile's rows that are few; weights cut off, times what each may be if all are
PLANES, TOGETHER = 3, 256  # of all weights, of so many states at a time
UNIT = BASE**-PLANES  # of what these leave, in that of the first
LAG = 8.0  # nats by which the largest logit may be ahead of the start


class Nearest:
    """For `count` states the row nearest to the shell on either side so far, by float64 logits relative to the shell's."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.best = torch.full((2, count), torch.inf, dtype=torch.float64, device=device)
        self.row = torch.full((2, count), -1, dtype=torch.int64, device=device)

    def see(self, above: Tensor, part: slice, index: Tensor) -> None:
        """Take in rows `index` (n,) whose logits are `above` (m, n) the shell's, for the states of `part`."""
        for side in range(2):
            # Read as whole numbers, negative ones come first, and of these the one nearest to 0.
            near, place = above.neg_().view(torch.int64).min(1)
            near = near.view(torch.float64)
            better = near.signbit() & (-near < self.best[side, part])
            self.best[side, part] = torch.where(better, -near, self.best[side, part])
            self.row[side, part] = torch.where(better, index[place], self.row[side, part])

    def pairs(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """(state, row) of every row that is the nearest on its side, of states that are called `which` (count,)."""
        found = self.row >= 0
        return which.expand(2, -1)[found], self.row[found]


class Sums:
    """One pass over all rows for the states `which` (Q,) of a family.

    Args:
        logits: Of the family, from products that are fine.
        which: Indices of states, in order.
        summed: (Q,) whether the state's posterior is asked for, beside its r*.
        double: Whether sums are in float64, too.
        grid: The rows on their grid, for sums by integers.
        share: What sums may leave of the weights.
        rows: How many there are in all processes.
    """

    def __init__(self, logits: Logits, which: Tensor, summed: Tensor, double: bool, grid: Rows | None, share: float, rows: int) -> None:
        self.logits, self.states, self.which, self.summed = logits, logits.family.states, which, summed
        self.double, self.grid, self.share, self.rows, self.shelf = double, grid, share, rows, logits.products.shelf
        device, count, d = which.device, len(which), self.states.d
        self.type = torch.float64 if double else torch.float32
        zero = torch.zeros(count, dtype=torch.float64, device=device)
        self.peak, self.start, self.top = zero - torch.inf, zero - torch.inf, torch.full_like(which, LAST)
        self.mass, self.square, self.tilt, self.mass2, self.loss, self.whole = (zero.clone() for _ in range(6))
        self.moment = torch.zeros(2 if len(self.shelf.sides) > 1 else 1, count, d, dtype=torch.float64, device=device)
        self.nearest = Nearest(count, device)

    def run(self, ranks: Ranks) -> Partial:
        """The partial of one's own rows."""
        for tile in self.logits.products:
            weights, many = self.shelf.buffers.take("weights", (len(self.which), len(tile.index)), self.type), list[Tensor]()
            moment = self.moment[int(tile.mirrored)]
            for groups, part in self.logits.parts(len(tile.index)):
                ends = torch.tensor([part.start, part.stop], device=self.which.device)
                mine = slice(*torch.searchsorted(self.which, ends).tolist())
                if mine.start < mine.stop:
                    self._see(groups, part, mine, tile, weights[mine])
                    if not self.double and bool(self.summed[mine].any()):
                        many.append(mine.start + self._add_few(weights[mine], tile, moment[mine], mine))
            if self.double:
                for rows, x in self.shelf.doubles(tile.block):
                    moment.addmm_(weights[:, rows], x)
            elif many:
                self._add_many(weights, tile, moment, torch.cat(many))
        return self._finish(ranks)

    def _see(self, groups: slice, part: slice, mine: slice, tile: Tile, weight: Tensor) -> None:
        """The weights (m, n) of one tile for the states `mine` among those of `which`, which are among the family's states `part`."""
        above = self.logits.of(tile, groups, torch.float64)
        if mine.stop - mine.start < len(above):
            above = above[self.which[mine] - part.start]
        self.nearest.see(above, mine, tile.index)
        if not bool(self.summed[mine].any()):
            weight.zero_()
            return
        top, place = above.max(1)
        better = top > self.peak[mine]
        self.peak[mine] = torch.where(better, top, self.peak[mine])
        self.top[mine] = torch.where(better, tile.index[place], self.top[mine])
        self._follow(top, mine)
        # Weights too small to count are none too small for their type: exp and what follows would be many times as slow.
        below = above.sub_(self.start[mine, None]).clamp_(min=-700.0 if self.double else -80.0)
        if not self.double:
            below = self.shelf.buffers.filled("below", below, torch.float32)
        torch.exp(below, out=weight)
        self.mass[mine] += weight.sum(1, dtype=torch.float64)
        far = max(self.shelf.reach, 1e-150) ** 2  # by which squares stay within float32
        for some, square in zip(weight.split(LOT, 1), (tile.block.square / far).to(self.type).split(LOT), strict=True):
            self.square[mine] += (some @ square).double() * far
        self.mass2[mine] += torch.linalg.vecdot(weight, weight).double()
        self.tilt[mine] += torch.linalg.vecdot(weight, below).double()

    def _follow(self, top: Tensor, mine: slice) -> None:
        """Let the start come up with the largest logits (m,) of a tile."""
        start = self.start[mine]
        ahead = (top > start + LAG).nonzero().flatten()
        if not len(ahead):
            return
        which, new, mass = ahead + mine.start, top[ahead], self.mass[ahead + mine.start]
        by = torch.where(mass > 0, new - start[ahead], 0.0)
        down = torch.exp(-by)
        self.tilt[which] = down * (self.tilt[which] - by * mass)
        self.mass[which], self.square[which], self.mass2[which] = down * mass, down * self.square[which], down**2 * self.mass2[which]
        self.loss[which] *= down
        self.whole[which] *= down
        self.moment[:, which] *= down[:, None]
        self.start[which] = new

    def _add_few(self, weight: Tensor, tile: Tile, moment: Tensor, mine: slice) -> Tensor:
        """Σ w x of those states of which few rows of a tile hold all weight but a share that can be lost; the others are returned."""
        n, allowed = weight.shape[1], self.mass[mine] * (self.share / self.rows)
        cut = (CUT * allowed)[:, None].float()
        below = torch.le(weight, cut, out=self.shelf.buffers.take("cut", tuple(weight.shape), weight.dtype))  # ones and zeros
        few = n - below.sum(1) <= SPARSE * n
        if not bool(few.any()):
            return few.logical_not().nonzero().flatten()
        lost = below.mul_(weight).sum(1).double()
        which = (few := few & (lost <= n * allowed)).nonzero().flatten()
        self.loss[mine][which] += 1.001 * lost[which]
        some, cut = (weight, cut) if len(which) == len(few) else (weight[which], cut[which])
        state, column = (some > cut).nonzero(as_tuple=True)
        if len(state):
            first = torch.searchsorted(state, state)  # of the state
            start = ((torch.arange(len(state), device=state.device) - first) % RUN == 0).nonzero().flatten()
            own, x = which[state], self.shelf.single(tile.block)
            found = embedding_bag(column, x, start, mode="sum", per_sample_weights=weight[own, column])
            moment.index_add_(0, own[start], found.double())
        return (~few).nonzero().flatten()

    def _add_many(self, weight: Tensor, tile: Tile, moment: Tensor, many: Tensor) -> None:
        """Σ w x of one tile, for the states `many`."""
        add, most = (self._add_whole, TOGETHER) if self.grid else (self._add_single, len(weight))
        for some in many.split(most) if len(many) else ():
            part = moment[some]
            add(weight[some], tile, part, some)
            moment[some] = part

    def _add_single(self, weight: Tensor, tile: Tile, moment: Tensor, which: Tensor) -> None:
        """Σ w x of one tile, for the states `which`."""
        for some, rows in zip(weight.split(RUN * RUNS, 1), self.shelf.single(tile.block).split(RUN * RUNS), strict=True):
            (first, *others), (x, *rest) = some.split(RUN, 1), rows.split(RUN)
            total = product(first, x.T)
            for w, x in zip(others, rest, strict=True):
                total += product(w, x.T)
            moment += total

    def _add_whole(self, weight: Tensor, tile: Tile, moment: Tensor, which: Tensor) -> None:
        """Σ w q·unit of one tile, for the states `which`: x = base + q·unit."""
        assert self.grid
        most = weight.amax(1, keepdim=True)
        unit = torch.where(most > 0, most, 1.0) / 127
        rest, planes = weight / unit, []
        for _ in range(PLANES):
            planes.append(rest.round().to(torch.int8))
            rest.sub_(planes[-1]).mul_(BASE)
        lost = torch.linalg.vector_norm(rest, 1, dim=1)
        more = (lost * unit[:, 0] * UNIT > self.share * weight.sum(1)).nonzero().flatten()
        last = rest[more]
        planes.append(last.round().to(torch.int8))
        lost[more] = torch.linalg.vector_norm(last.sub_(planes[-1]), 1, dim=1)
        self.loss[which] += (lost * unit[:, 0]).double() * UNIT
        found = integer_products(torch.cat(planes), self.grid.planes[0][tile.block.part].T)
        first, second, third, fourth = found.float().split([len(weight)] * PLANES + [len(more)])
        third.index_add_(0, more, fourth, alpha=1 / BASE)
        whole = first.add_(second.add_(third, alpha=1 / BASE), alpha=1 / BASE)
        moment.addcmul_(whole.double(), unit.double() * self.grid.unit)
        self.whole[which] += weight.sum(1, dtype=torch.float64)

    def _finish(self, ranks: Ranks) -> Partial:
        shelf, states, which, rows = self.shelf, self.states, self.which, self.rows
        moment = self.moment[0] + (shelf.mirror(self.moment[1]) if len(self.moment) > 1 else 0.0)
        if self.grid:
            moment += self.whole[:, None] * self.grid.base  # its own mirror image
        # What bounds the error is known of all ranks' rows together, relative to the largest logit of all, and shared by mass.
        share = torch.where(self.mass > 0, self.start - ranks.largest(self.peak), -torch.inf).exp()
        all_mass, all_square = ranks.total(share * torch.stack([self.mass, self.square])).clamp(min=1e-300)
        parts = zip(share.split(256), moment.split(256), strict=True)
        own = torch.cat([ranks.total(part[:, None] * some).norm(dim=1) for part, some in parts]) / all_mass
        size = (all_square / all_mass).sqrt()
        # Sums know little of what is left when the mean's square is taken off that of the rows.
        unsure = 4 * (rows * U64 if self.double else (min(shelf.block, LOT) + 8) * U32)
        spread = ((size**2 - own**2).clamp(min=0) + unsure * size**2).sqrt()
        tilt = self.logits.tilt[which]
        # What is left of a state tilts weights by e^δ with δ = slope⟨rest, x⟩: at first order the mean moves by slope·C·rest with the
        # covariance C, whose trace is spread². Rounding tilts them as it likes: Σ w(e^δ − 1)(x − mean)/Σ w e^δ.
        rounding = self.logits.rounding(U64)[which].clamp(max=50)
        off = torch.expm1(rounding) * rounding.exp()
        summing, deep = (rows + 8) * U64, 0.0
        if not self.double:
            off = off + 2.0**-22 + (DEEP + LAG) * U32
            summing += (RUN + RUNS + 2 + (not shelf.exact)) * U32
            deep = rows * math.exp(-DEEP)
        whole, left = self.grid.left[:2] if self.grid else (0.0, 0.0)
        lost = ranks.total(share * self.loss) / all_mass * (shelf.reach + own).clamp(min=whole) + left + 8 * U32 * whole
        tilted = tilt * spread**2 * torch.exp((4 * tilt * (shelf.reach + own)).clamp(max=100))
        bound = off * spread + tilted + summing * size + lost + (deep + rows * U64) * (shelf.reach + own)
        none = ~(self.mass > 0)
        down = torch.where(none, 1.0, torch.exp(self.start - self.peak))
        high = torch.where(none, 0.0, self.peak - self.start)
        constant = states.shell[which] - 0.5 * states.precision[which] * states.norm[which] ** 2
        mass, peak = down * self.mass, torch.where(none, -torch.inf, self.peak + constant)
        doubt = mass * (off + deep + rows * U64 + torch.expm1((2 * tilt * shelf.reach).clamp(max=50)))
        sums = mass, moment * down[:, None], down * (self.tilt - high * self.mass), down**2 * self.mass2
        return Partial(peak, self.top, *sums, doubt, mass * bound, torch.full_like(mass, torch.inf))
