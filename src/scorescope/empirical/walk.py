"""Pairs that few rows can matter to any more: their posteriors at every smaller timestep, in closed form.

For a training pair z = αx_i + σε, with u = α/σ, D_j = ‖x_i − x_j‖² and c_j = ⟨ε, x_i − x_j⟩,

    gap_j(u) = logit_i − logit_j = u(u D_j/2 + c_j).

D_j ≥ 0, so that gap_j(u₀) ≥ L ≥ 0 implies gap_j(u) ≥ L for every u ≥ u₀: walking from noise to data, a row once dropped stays dropped.
Where x_i is itself a row, a gap of L leaves a row no more than e^−L of the weight; and a row can only be nearer to the shell than x_i
is, ‖z − αx_j‖² = σ²(‖ε‖² + 2 gap_j), if its gap is below twice (d − ‖ε‖²)/2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.empirical.partial import LAST, Partial
from scorescope.empirical.settle import U64
from scorescope.empirical.shelf import Shelf

VALUES = 1 << 20  # float64 values of one step
SLACK = 3.0  # nats that a pair's own row may be below the best of its rows when it comes


def level(eps: Tensor, margin: float) -> Tensor:
    """(P,) the gap beyond which a row can matter neither to the posterior (log of 1/share dropped: `margin`) nor to r*."""
    d = eps.shape[1]
    inside = ((d - eps.square().sum(1)) / 2).clamp(min=0)
    # A ratio as far from 1 on the outer side: see `screen.limits`.
    closest = 1 - (1 - 2 * inside / d).clamp(min=0).sqrt()
    return torch.clamp(inside + d * (closest + closest**2 / 2), min=margin) + 1e-6


class Walk:
    """The pairs (rows of x, eps (P, d) float64) that have come so far, and the rows that can still matter to each."""

    def __init__(self, x: Tensor, eps: Tensor, levels: Tensor, shelf: Shelf) -> None:
        self.x, self.eps, self.levels, self.shelf = x, eps, levels, shelf
        self.size = eps.square().sum(1)
        none = torch.zeros(0, dtype=torch.int64, device=x.device)
        self.pair, self.row, self.far, self.lean = none, none, none.double(), none.double()
        self.here = torch.zeros(len(x), dtype=torch.bool, device=x.device)

    def own(self, pair: Tensor, row: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """D and c of (pair, row) pairs, from direct differences, and (P,) whether a pair's x is one of its rows."""
        far, lean = (torch.empty(len(pair), dtype=torch.float64, device=pair.device) for _ in range(2))
        for part in torch.arange(len(pair), device=pair.device).split(max(1, self.shelf.at_once(VALUES) // self.x.shape[1])):
            apart = self.x[pair[part]] - self.shelf.fetch(row[part])
            far[part], lean[part] = apart.square().sum(1), torch.linalg.vecdot(self.eps[pair[part]], apart)
        found = torch.zeros(len(self.x), dtype=torch.bool, device=pair.device)
        found[pair[far == 0]] = True
        return far, lean, found

    def settle(self, away: Tensor, u: Tensor, many: Tensor, pair: Tensor, row: Tensor) -> Tensor:
        """Take on those of the pairs `away` (A,), at u (A,), to which few rows can matter, all of them among (pair, row).

        `many` (A,) says to which there are more. Returns (P,) those that never come: their x is none of their rows.
        """
        ranks = self.shelf.ranks
        far, lean, found = self.own(pair, row)
        own, spread = ranks.any(found), torch.zeros(len(self.x), dtype=torch.float64, device=u.device)
        spread[away] = u
        gap = spread[pair] * (spread[pair] * far / 2 + lean)
        # The rows are those within the margin of the best, and `SLACK` more; the pair's own must not be farther below it.
        best = torch.zeros_like(spread).scatter_reduce(0, pair, -gap, "amax")
        crowded, asked = torch.zeros_like(own), torch.zeros_like(own)
        crowded[away], asked[away] = many, True
        ready = own & (ranks.largest(best) <= SLACK) & ~crowded & ~self.here
        entering = ready[pair] & (gap <= self.levels[pair])
        self.enter(ready.nonzero().flatten(), pair[entering], row[entering], far[entering], lean[entering])
        return asked & ~own & ~crowded

    def enter(self, pairs: Tensor, pair: Tensor, row: Tensor, far: Tensor, lean: Tensor) -> None:
        """Take on `pairs` with the rows that can matter to them."""
        self.here[pairs] = True
        joined = torch.cat([self.pair, pair])
        order = torch.argsort(joined, stable=True)
        self.pair, self.row = joined[order], torch.cat([self.row, row])[order]
        self.far, self.lean = torch.cat([self.far, far])[order], torch.cat([self.lean, lean])[order]

    def posterior(self, alpha: Tensor, sigma: Tensor) -> Partial:
        """Partials of the pairs' states at scales (T,) in the order of falling σ, flat (P·T); empty for pairs that are not here."""
        p, t, d = len(self.x), len(sigma), self.x.shape[1]
        ratio = torch.where(sigma > 0, alpha / sigma.clamp(min=1e-300), torch.inf)
        first = ratio[0].clamp(max=1e150)  # what can't matter here can't at any larger one
        kept = first * (first * self.far / 2 + self.lean) <= self.levels[self.pair]
        self.pair, self.row, self.far, self.lean = self.pair[kept], self.row[kept], self.far[kept], self.lean[kept]
        if not len(self.pair):
            return Partial.nothing(p * t, d, self.x.device)
        u = ratio.expand(len(self.pair), -1)
        at_data = torch.where(self.far == 0, 0.0, torch.inf)[:, None]
        gap = torch.where(u.isfinite(), u * (u * self.far[:, None] / 2 + self.lean[:, None]), at_data)
        doubt = u * ((d + 8) * U64) * (u * self.far[:, None] + (self.size[self.pair] * self.far).sqrt()[:, None])
        index = self.pair[:, None].expand(-1, t)
        lowest = torch.full((p, t), torch.inf, dtype=torch.float64, device=u.device).scatter_reduce(0, index, gap, "amin")
        below = lowest[self.pair] - gap
        weight = torch.where(below.isfinite(), below.exp(), 0.0)
        zero = torch.zeros(p, t, dtype=torch.float64, device=u.device)
        mass = zero.index_add(0, self.pair, weight)
        row = torch.where(gap == lowest[self.pair], self.row[:, None], LAST)
        top = torch.full((p, t), LAST, device=u.device).scatter_reduce(0, index, row, "amin").flatten()
        off = torch.where(u.isfinite() & (weight > 0), weight * torch.expm1(2 * doubt.clamp(max=25)), 0.0)
        moment, wrong = self._moments(weight, off, mass)
        seen = self.here[:, None] & (mass > 0)
        at_row = torch.where(lowest == 0, 0.0, -torch.inf)  # at σ = 0 the state is x itself
        peak = torch.where(sigma == 0, at_row, -0.5 * self.size[:, None] - lowest)
        sums = (torch.where(weight > 0, weight * below, 0.0), weight.square(), off)
        tilt, mass2, doubt = (zero.index_add(0, self.pair, v).flatten() for v in sums)
        apart = ((self.size[self.pair, None] + 2 * gap).clamp(min=0) / d).sqrt()
        away = (apart - 1).abs()
        nearest = torch.full((p, t), torch.inf, dtype=torch.float64, device=u.device).scatter_reduce(0, index, away, "amin")
        hit = torch.where(away == nearest[self.pair], apart, torch.inf)
        found = torch.full((p, t), torch.inf, dtype=torch.float64, device=u.device).scatter_reduce(0, index, hit, "amin")
        peak = torch.where(seen, peak, -torch.inf).flatten()
        return Partial(peak, top, mass.flatten(), moment.flatten(0, 1), tilt, mass2, doubt, wrong.flatten(), found.flatten())

    def _moments(self, weight: Tensor, off: Tensor, mass: Tensor) -> tuple[Tensor, Tensor]:
        """Σ w x and the bound on Σ (error of w)(x − mean), (P, T, ...)."""
        p, t = mass.shape
        moment = torch.zeros(p, t, self.x.shape[1], dtype=torch.float64, device=mass.device)
        wrong = torch.zeros_like(mass)
        pairs, counts = self.pair.unique_consecutive(return_counts=True)
        start = 0
        for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True):
            part = slice(start, start + count)
            start += count
            x = self.shelf.fetch(self.row[part]) - self.shelf.centre
            w = weight[part].T
            if count == 1:
                moment[pair] = x[0]
                continue
            torch.matmul(w, x, out=moment[pair])
            size = x.square().sum(1)
            mean = moment[pair] / mass[pair, :, None]
            away = (size + mean.square().sum(1)[:, None] - 2 * mean @ x.T).clamp(min=0).sqrt()
            wrong[pair] = (off[part].T * (away + 1e-7 * self.shelf.reach)).sum(1)
        return moment, wrong
