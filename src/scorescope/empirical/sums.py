"""Many rows: all of them are summed, with logits put together in float64 and sums whose rounding is known, or all in float64.

weights    w_j = exp(logit_j − start), with a start that follows the largest logit so far, at most LAG behind
moments    Σ w x by float32 or by integers, of states to which few or many rows of a tile matter (`moments`)
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorescope.empirical.moments import Moments
from scorescope.empirical.partial import LAST, Partial
from scorescope.empirical.planes import Rows
from scorescope.empirical.products import Logits, Tile
from scorescope.search.products import U32, U64

LOT = 1 << 13  # rows whose squares are added up in float32
DEEP = 32.0  # nats below the start beyond which weights in float32 are not vouched for one by one
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
        self.double, self.grid, self.rows, self.shelf = double, grid, rows, logits.products.shelf
        device, count = which.device, len(which)
        self.type = torch.float64 if double else torch.float32
        zero = torch.zeros(count, dtype=torch.float64, device=device)
        self.peak, self.start, self.top = zero - torch.inf, zero - torch.inf, torch.full_like(which, LAST)
        self.mass, self.square, self.tilt, self.mass2 = (zero.clone() for _ in range(4))
        self.moments = Moments(count, self.shelf, grid, share, rows)
        self.nearest = Nearest(count, device)

    def run(self) -> Partial:
        """The partial of one's own rows."""
        for tile in self.logits.products:
            weights, many = self.shelf.buffers.take("weights", (len(self.which), len(tile.index)), self.type), list[Tensor]()
            for groups, part in self.logits.parts(len(tile.index)):
                ends = torch.tensor([part.start, part.stop], device=self.which.device)
                mine = slice(*torch.searchsorted(self.which, ends).tolist())
                if mine.start < mine.stop:
                    self._see(groups, part, mine, tile, weights[mine])
                    if not self.double and bool(self.summed[mine].any()):
                        many.append(self.moments.add_few(weights[mine], tile, self.mass[mine], mine))
            if self.double:
                self.moments.add_exactly(weights, tile)
            elif many:
                self.moments.add_many(weights, tile, torch.cat(many))
        return self._finish()

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
        self.moments.scale(which, down)
        self.start[which] = new

    def _finish(self) -> Partial:
        shelf, states, which, rows = self.shelf, self.states, self.which, self.rows
        moment = self.moments.total()
        known, none = self.mass.clamp(min=1e-300), ~(self.mass > 0)
        high = torch.where(none, 0.0, self.peak - self.start)
        own, size = torch.linalg.vector_norm(moment, dim=1) / known, (self.square / known).sqrt()
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
            # A weight is rounded by as many parts as its logit lies nats below the start; Σ w·nats² is at most DEEP·Σ w·nats.
            nats = (1.01 + 2 * shelf.block * U32) * (2 * high - self.tilt / known).clamp(min=0)
            off = off + 2.0**-22 + (DEEP * nats + LAG**2).sqrt().clamp(max=DEEP + LAG) * U32
            summing += self.moments.rounding
            deep = rows * math.exp(-DEEP)
        whole, left = self.grid.left[:2] if self.grid else (0.0, 0.0)
        lost = self.moments.loss / known * (shelf.reach + own).clamp(min=whole) + left + 8 * U32 * whole
        tilted = tilt * spread**2 * torch.exp((4 * tilt * (shelf.reach + own)).clamp(max=100))
        bound = off * spread + tilted + summing * size + lost + (deep + rows * U64) * (shelf.reach + own)
        down = torch.where(none, 1.0, torch.exp(-high))
        constant = states.shell[which] - 0.5 * states.precision[which] * states.norm[which] ** 2
        mass, peak = down * self.mass, torch.where(none, -torch.inf, self.peak + constant)
        doubt = mass * (off + deep + rows * U64 + torch.expm1((2 * tilt * shelf.reach).clamp(max=50)))
        sums = mass, moment * down[:, None], down * (self.tilt - high * self.mass), down**2 * self.mass2
        return Partial(peak, self.top, *sums, doubt, mass * bound, torch.full_like(mass, torch.inf))
