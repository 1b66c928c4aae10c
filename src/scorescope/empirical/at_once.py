"""All rows at once, where their logits fit into a processor's caches: small banks, or few states.

    mean = (x_top + Σ_{j≠top} w_j x_j) / (1 + Σ_{j≠top} w_j),    w_j = exp(logit_j − logit_top)

The row with the largest logit stays out of the sums and is added as it is, so that every error is in proportion to the weight of the
others; of most states on low-noise shells these weigh nothing, and no sum is made. States whose two nearest rows the logits can't tell
apart are left to closer looks, and so are those whose bound is too wide.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorescope.empirical.moments import Moments
from scorescope.empirical.partial import Partial
from scorescope.empirical.planes import Rows
from scorescope.empirical.products import Logits, Tile
from scorescope.empirical.settle import ratios
from scorescope.empirical.shelf import Shelf
from scorescope.empirical.sums import DEEP, LOT, Nearest
from scorescope.search.products import U32, U64

LEAST = -80.0  # nats under the largest logit that count; float32 has no weights far below
CLEAR = 25.0  # a wider doubt tells nothing
MANY = 128.0  # rows as heavy as the nearest, among which it does not matter which that is


class AtOnce:
    """Sums of all rows for all states of a family, by logits that are fine; what sums may leave of the weights is a `share` of them.

    Attributes:
        doubt: (B,) by how many nats the logits of two rows may be off, beside each other.
        tied: (B,) whether they do not tell which row is the nearest, and few rows are as near.
        slip: (B,) by how many nats the partial's peak may be off.
    """

    def __init__(self, logits: Logits, grid: Rows | None, share: float, rows: int) -> None:
        self.logits, self.grid, self.share, self.rows = logits, grid, share, rows
        self.shelf: Shelf = logits.products.shelf
        self.doubt = 2 * logits.error(U64).clamp(max=CLEAR)  # of one logit beside another
        self.tied = torch.zeros_like(logits.family.states.steep)
        self.slip = torch.zeros_like(self.doubt)

    def run(self) -> Partial:
        """The partial of one's own rows, with their r*."""
        states, shelf = self.logits.family.states, self.shelf
        count = len(shelf.indices(self.logits.products.label)) * len(shelf.sides)
        if not count:
            return Partial.nothing(len(states), states.d, states.z.device)
        above = shelf.buffers.take("above", (len(states), count), torch.float64)
        tiles, squares, stop = list[tuple[Tile, slice]](), list[Tensor](), 0
        for tile in self.logits.products:
            start, stop = stop, stop + len(tile.index)
            above[:, start:stop] = self.logits.of(tile, slice(None), torch.float64)
            tiles.append((tile, slice(start, stop)))
            squares.append(tile.block.square)
        index = torch.cat([tile.index for tile, _ in tiles])
        near = Nearest(len(states), index.device)
        near.see(above, slice(None), index)
        peak, place = above.max(1)
        below = above.sub_(peak[:, None])
        weight = shelf.buffers.take("weights", tuple(below.shape), torch.float32)
        self.tied = torch.ge(below, -self.doubt[:, None], out=weight).sum(1) > 1  # ones and zeros
        low = shelf.buffers.filled("below", below.clamp_(min=LEAST), torch.float32)
        torch.exp(low, out=weight).scatter_(1, place[:, None], 0.0)
        part = self._summed(weight, torch.cat(squares), tiles, index[place])
        self.tied &= part.mass < MANY
        part.tilt, part.mass2 = torch.linalg.vecdot(weight, low).double(), 1 + torch.linalg.vecdot(weight, weight).double()
        ratios(states, shelf, *near.pairs(torch.arange(len(states), device=index.device)), part.ratio)
        return part

    def _summed(self, weight: Tensor, square: Tensor, tiles: list[tuple[Tile, slice]], top: Tensor) -> Partial:
        """The partial from weights (B, n) of rows with squared norms (n,) relative to the nearest rows `top` (B,), which have none."""
        shelf, n = self.shelf, weight.shape[1]
        others, nearest = weight.sum(1, dtype=torch.float64), shelf.fetch(top)
        mass, far = 1 + others, max(shelf.reach, 1e-150) ** 2  # by which squares stay within float32
        squares = torch.zeros_like(others)
        for some, x2 in zip(weight.split(LOT, 1), (square / far).float().split(LOT), strict=True):
            squares += (some @ x2).double() * far
        # What weighs no more than the share that may be lost is no sum's worth.
        asked = others > self.share * mass
        which = asked.nonzero().flatten()
        moments = Moments(len(which), shelf, self.grid, self.share, self.rows)
        if len(which):
            some = weight if len(which) == len(weight) else weight[which]
            for tile, part in tiles:
                moments.add_many(some[:, part], tile, torch.arange(len(which), device=which.device))
        loss, moment = (~asked) * others, nearest - shelf.centre
        loss[which] = moments.loss
        beside = torch.zeros_like(moment)
        beside[which] = moments.total()
        moment += beside
        own = torch.linalg.vector_norm(moment, dim=1) / mass
        # Σ w‖x − mean‖² of the others, as far as sums know it.
        beyond, left = self.grid.left[:2] if self.grid else (0.0, 0.0)
        spread = squares - 2 * torch.linalg.vecdot(beside, moment) / mass + others * own**2
        spread = spread.clamp(min=0) + 4 * (min(n, LOT) + 8) * U32 * (squares + others * own**2)
        spread += 2 * own * (others * (left + 8 * U32 * beyond) + loss * (shelf.reach + own).clamp(min=beyond))
        # Weights are off by a factor e^δ, |δ| ≤ doubt: Σ w(e^δ − 1)(x − mean)/Σ w e^δ.
        off = torch.expm1(self.doubt) * self.doubt.exp() + 2.0**-22 + DEEP * U32
        summing = (moments.rounding + (self.rows + 8) * U64) * (others * squares).sqrt() + others * (left + 8 * U32 * beyond)
        lost = (loss + self.rows * math.exp(-DEEP)) * (shelf.reach + own).clamp(min=beyond)
        error = off * (others * spread).sqrt() + summing + lost + 64 * U64 * mass * (shelf.reach + own)
        peak, self.slip = self._peak(nearest)
        slip, zero = self.slip.clamp(max=50), torch.zeros_like(others)
        doubt = others * off + loss + self.rows * math.exp(-DEEP) + mass * torch.expm1(slip) * slip.exp()
        return Partial(peak, top, mass, moment, zero, zero, doubt, error, zero + torch.inf)

    def _peak(self, nearest: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) the nearest rows' logits −‖z − αx‖²/(2σ²) by direct differences, and by how many nats they may be rounded.

        They say how much the rows of one process weigh beside those of another.
        """
        states = self.logits.family.states
        away = torch.addcmul(states.z, states.alpha[:, None], nearest, value=-1).square_().sum(1).sqrt_()
        entering = 2 * U64 * (states.z.norm(dim=1) + 2 * states.alpha * nearest.norm(dim=1))
        return -0.5 * states.true_precision * away**2, states.true_precision * away * ((states.d + 12) * U64 * away + entering)
