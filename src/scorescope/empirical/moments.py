"""Σ w x of many states, one tile of rows after another: weights in float32, sums in float64, and what is missing of them.

float32    a sum of 64 products is off by at most 64·2⁻²⁴·Σ w‖x‖; eight such sums are added in float32, these in float64
integers   of rows on a grid: a tile's weights as three planes of 8 bits, or four where these leave much; what is left bounds the error
few        where few of a tile's rows hold all weight but a share that is known, these are gathered, 64 at a time in float32
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from scorescope.empirical.integers import integer_products
from scorescope.empirical.planes import BASE, Rows
from scorescope.empirical.products import Tile
from scorescope.empirical.shelf import Shelf
from scorescope.search.products import U32, product

RUN, RUNS = 64, 8  # rows of a product; such products that float32 adds up before float64 takes over
BATCHED = 10  # states whose products are sooner made together than one after the other, at most
SPARSE, CUT = 0.25, 32.0  # share of a tile's rows that are few; weights cut off, times what each may be if all are
PLANES, TOGETHER = 3, 256  # of all weights, of so many states at a time
UNIT = BASE**-PLANES  # of what these leave, in that of the first


class Moments:
    """Σ w x of `count` states.

    Args:
        count: Of the states.
        shelf: Of the rows.
        grid: The rows on their grid, for sums by integers.
        share: What sums may leave of the weights.
        rows: How many there are in all processes.

    Attributes:
        loss: (Q,) bound on the weight that sums left out.
        whole: (Q,) weight that was summed by integers, relative to the grid's base.
    """

    def __init__(self, count: int, shelf: Shelf, grid: Rows | None, share: float, rows: int) -> None:
        self.shelf, self.grid, self.share, self.rows = shelf, grid, share, rows
        self.sums = torch.zeros(len(shelf.sides), count, shelf.bank.d, dtype=torch.float64, device=shelf.device)
        self.loss, self.whole = (torch.zeros(count, dtype=torch.float64, device=shelf.device) for _ in range(2))

    @property
    def rounding(self) -> float:
        """Of Σ w x, in units of Σ w‖x‖."""
        return (RUN + RUNS + 2 + (not self.shelf.exact)) * U32

    def total(self) -> Tensor:
        """(Q, d) Σ w x of all tiles."""
        total = self.sums[0] + (self.shelf.mirror(self.sums[1]) if len(self.sums) > 1 else 0.0)
        if self.grid:
            total += self.whole[:, None] * self.grid.base  # its own mirror image
        return total

    def scale(self, which: Tensor, by: Tensor) -> None:
        """Multiply the weights so far, of states `which` (m,), by (m,) numbers."""
        self.loss[which] *= by
        self.whole[which] *= by
        self.sums[:, which] *= by[:, None]

    def add_exactly(self, weight: Tensor, tile: Tile) -> None:
        """Σ w x of one tile with weights in float64 (Q, n)."""
        for rows, x in self.shelf.doubles(tile.block):
            self.sums[int(tile.mirrored)].addmm_(weight[:, rows], x)

    def add_few(self, weight: Tensor, tile: Tile, mass: Tensor, mine: slice) -> Tensor:
        """Σ w x of those of the states `mine`, of `mass` (m,), of which few rows of a tile hold all weight (m, n) but what can be lost.

        Returns:
            The others, among all states.
        """
        n, allowed, moment = weight.shape[1], mass * (self.share / self.rows), self.sums[int(tile.mirrored), mine]
        cut = (CUT * allowed)[:, None].float()
        below = torch.le(weight, cut, out=self.shelf.buffers.take("cut", tuple(weight.shape), weight.dtype))  # ones and zeros
        few = n - below.sum(1) <= SPARSE * n
        if not bool(few.any()):
            return mine.start + few.logical_not().nonzero().flatten()
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
        return mine.start + (~few).nonzero().flatten()

    def add_many(self, weight: Tensor, tile: Tile, many: Tensor) -> None:
        """Σ w x of one tile with weights (Q, n), for the states `many`."""
        moment = self.sums[int(tile.mirrored)]
        add, most = (self._add_whole, TOGETHER) if self.grid else (self._add_single, len(weight))
        for some in many.split(most) if len(many) else ():
            part = moment[some]
            add(weight[some], tile, part, some)
            moment[some] = part

    def _add_single(self, weight: Tensor, tile: Tile, moment: Tensor, which: Tensor) -> None:
        """Σ w x of one tile, for the states `which`."""
        (m, n), every = weight.shape, self.shelf.single(tile.block)
        whole = n - n % RUN if m <= BATCHED else 0
        if whole:
            runs = torch.bmm(weight[:, :whole].reshape(m, -1, RUN).transpose(0, 1), every[:whole].view(whole // RUN, RUN, -1))
            for some in runs.split(RUNS):
                moment += some.sum(0)
        if whole == n:
            return
        for some, rows in zip(weight[:, whole:].split(RUN * RUNS, 1), every[whole:].split(RUN * RUNS), strict=True):
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
