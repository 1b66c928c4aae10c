"""One pass of the rows by a few states: float32 nominates, float64 decides. See `EmpiricalScore` for why the answer is exact.

Notation: logit_j = (α⟨z, x_j⟩ − α²‖x_j‖²/2)/σ² of centred states and rows; `precision` is 1/σ².
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from scorescope.bank import Bank
from scorescope.empirical.partial import Partial
from scorescope.empirical.posterior import Posterior
from scorescope.empirical.shelf import Shelf
from scorescope.schedule import Schedule

U32, U64 = 2.0**-24, 2.0**-53
RATIOS = 4  # rows nominated for r* and settled in float64


class Pass:
    """Posteriors of states z (B, d) float64 at times t (B,) among the rows of one class, or of all."""

    def __init__(self, bank: Bank, schedule: Schedule, shelf: Shelf, tolerance: float, z: Tensor, t: Tensor, label: int | None) -> None:
        self.bank, self.schedule, self.shelf, self.tolerance, self.z, self.t, self.label = bank, schedule, shelf, tolerance, z, t, label
        self.d, self.n = bank.d, len(bank.indices(label)) * (2 if bank.flips else 1)
        self.alpha, self.sigma, *_ = schedule(t)
        self.at_data = self.sigma == 0
        # At σ = 0 the nearest row takes all: distances are compared as they are.
        self.precision = torch.where(self.at_data, 1.0, self.sigma**-2)
        self.centred = z - self.alpha[:, None] * shelf.mean.double()
        self.norm = self.centred.norm(dim=1)
        self.scale = max(bank.radius, torch.finfo(torch.float32).tiny)

    def run(self) -> Posterior:
        """The posteriors."""
        dense, query, index, ratios = self._nominate()
        result = Posterior.empty(len(self.z), self.bank.shape, self.z.device)
        self._settle(query, index, result)
        if bool(dense.any()):
            states = dense.nonzero().flatten()
            part = Pass(self.bank, self.schedule, self.shelf, self.tolerance, self.z[states], self.t[states], self.label)
            part._sum().scatter_to(result, states)
        result.r_star.copy_(self._ratio(ratios))
        return result

    # ---- logits ---------------------------------------------------------------------------------------------------------------

    def _blocks(self, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor, bool]]:
        """(logits (B, n) float64, centred rows (n, d), squared norms, indices, mirrored) of every block, products in `dtype`."""
        states = self.centred.to(dtype)
        sides = [(states, False)] + ([(self.shelf.mirror(states), True)] if self.bank.flips else [])
        slope = (self.alpha * self.precision)[:, None]
        curve = (0.5 * self.alpha**2 * self.precision)[:, None]
        for rows in self.shelf.rows(self.label):
            x = rows.centred(dtype)
            for side, mirrored in sides:
                logit = slope * (side @ x.T).double() - curve * rows.square
                yield logit, x, rows.square, rows.index + len(self.bank.rows) * mirrored, mirrored

    def _rounding(self, u: float) -> Tensor:
        """(B,) bound on the error of a logit whose states, rows and products are rounded with unit u; for any order of summation."""
        terms = (self.d + 8) * u
        product = self.norm * self.shelf.reach + self.alpha * self.shelf.reach**2 * (U64 / u)
        return self.alpha * self.precision * product * terms / (1 - terms)

    def _nominate(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """float32 over all rows: which states need every row (B,), the (state, row) pairs of the others, rows for r* (B, RATIOS)."""
        batch, device = len(self.z), self.z.device
        dropped = self.tolerance * self.scale / (4 * max(self.shelf.reach, self.scale))
        margin = torch.where(self.at_data, 0.0, math.log(self.n / dropped)) + 2 * self._rounding(U32)
        few = max(16, min(4096, self.n // 64))
        peak = torch.full((batch,), -torch.inf, dtype=torch.float64, device=device)
        dense = self.alpha == 0
        query = index = torch.zeros(0, dtype=torch.int64, device=device)
        value = torch.zeros(0, dtype=torch.float64, device=device)
        near = torch.full((batch, 0), torch.inf, dtype=torch.float64, device=device)
        near_index = torch.zeros((batch, 0), dtype=torch.int64, device=device)
        for logit, _, _, rows, _ in self._blocks(torch.float32):
            peak = torch.maximum(peak, logit.max(1).values)
            floor = peak - margin
            found, place = ((logit >= floor[:, None]) & ~dense[:, None]).nonzero(as_tuple=True)
            query, index, value = torch.cat([query, found]), torch.cat([index, rows[place]]), torch.cat([value, logit[found, place]])
            alive = value >= floor[query]
            query, index, value = query[alive], index[alive], value[alive]
            dense |= (torch.bincount(query, minlength=batch) > few) & ~self.at_data
            alive = ~dense[query]
            query, index, value = query[alive], index[alive], value[alive]
            near, near_index = self._nearest_to_one(logit, rows, near, near_index)
        return dense, query, index, near_index

    def _nearest_to_one(self, logit: Tensor, rows: Tensor, near: Tensor, near_index: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the rows whose distance ratio is nearest to 1 so far: ‖z − αx‖² = ‖z‖² − 2 logit/precision."""
        square = (self.norm**2)[:, None] - 2 * logit / self.precision[:, None]
        away = (square.clamp(min=0).sqrt() - self.sigma[:, None] * math.sqrt(self.d)).abs()
        best, place = away.topk(min(RATIOS, away.shape[1]), dim=1, largest=False)
        near, near_index = torch.cat([near, best], 1), torch.cat([near_index, rows[place]], 1)
        best, place = near.topk(min(RATIOS, near.shape[1]), dim=1, largest=False)
        return best, near_index.gather(1, place)

    def _ratio(self, nominated: Tensor) -> Tensor:
        """r* (Eq. 4) of the nominated rows (B, k), from direct differences in float64."""
        x = self.shelf.fetch(nominated.flatten()).reshape(*nominated.shape, self.d)
        distance = (self.z[:, None] - self.alpha[:, None, None] * x).norm(dim=2)
        scale = self.sigma[:, None] * math.sqrt(self.d)
        # At σ = 0 a state on a row counts as on its shell, any other as infinitely far.
        ratio = torch.where(self.at_data[:, None], torch.where(distance == 0, 1.0, torch.inf), distance / scale)
        return ratio.gather(1, (ratio - 1).abs().argmin(1, keepdim=True)).squeeze(1)

    # ---- few rows: direct differences -------------------------------------------------------------------------------------------

    def _settle(self, query: Tensor, index: Tensor, result: Posterior) -> None:
        """Posteriors of the states that have few candidates (query, index pairs), from direct differences in float64."""
        order = torch.argsort(query, stable=True)
        query, index = query[order], index[order]
        states, counts = query.unique_consecutive(return_counts=True)
        ends = counts.cumsum(0)
        first = start = 0
        while first < len(states):
            last = max(first + 1, int(torch.searchsorted(ends, start + 8192, right=True)))
            stop = int(ends[last - 1])
            self._settle_some(states[first:last], query[start:stop], index[start:stop], result)
            first, start = last, stop

    def _settle_some(self, states: Tensor, query: Tensor, index: Tensor, result: Posterior) -> None:
        slot = torch.searchsorted(states, query)
        rows, place = index.unique(return_inverse=True)
        x = self.shelf.fetch(rows)[place]
        z, alpha, sigma, at_data = self.z[states], self.alpha[states], self.sigma[states], self.at_data[states]
        zero = torch.zeros(len(states), dtype=torch.float64, device=x.device)
        square = (z[slot] - alpha[slot, None] * x).square().sum(1)
        best, nearest = self._nearest(slot, square, index, x, len(states))
        gap, doubt = self._gaps(x, nearest[slot], z[slot], alpha[slot], self.precision[query])
        weight = torch.where(at_data[slot], (gap == 0).double(), (-gap).exp())
        mass = zero.index_add(0, slot, weight)
        share = weight / mass[slot]
        mean = torch.zeros(len(states), self.d, dtype=torch.float64, device=x.device).index_add(0, slot, share[:, None] * x)
        closest = (z - alpha[:, None] * nearest).square().sum(1)
        density = self._density(-0.5 * self.precision[states] * closest, mass, sigma)
        density = torch.where(at_data, torch.where(closest == 0, torch.inf, -torch.inf), density)
        entropy = zero.index_add(0, slot, -torch.special.xlogy(share, share))
        ess = 1 / zero.index_add(0, slot, share.square())
        # Each share is off by at most its own factor: the rounding of its gap, and of the mass that it is divided by.
        average = zero.index_add(0, slot, share * torch.expm1(doubt)).clamp(max=0.5)
        factor = doubt.exp() / (1 - average[slot]) - 1
        rounding = zero.index_add(0, slot, share * factor * (x - mean[slot]).norm(dim=1))
        dropped = torch.where(at_data, 0.0, self.tolerance * self.scale / 2)
        bound = dropped + torch.where(at_data, 0.0, rounding) + 16 * U64 * (self.shelf.reach + mean.norm(dim=1))
        shaped = mean.reshape(-1, *self.bank.shape)
        Posterior(shaped, density, entropy, ess, best, 1 / mass, torch.full_like(mass, torch.nan), bound).scatter_to(result, states)

    def _nearest(self, slot: Tensor, square: Tensor, index: Tensor, x: Tensor, states: int) -> tuple[Tensor, Tensor]:
        """For each state the nearest candidate: its index, the first of equals, and the row itself."""
        closest = torch.full((states,), torch.inf, dtype=torch.float64, device=x.device).scatter_reduce(0, slot, square, "amin")
        far = torch.iinfo(torch.int64).max
        best = torch.full((states,), far, device=x.device)
        best = best.scatter_reduce(0, slot, torch.where(square == closest[slot], index, far), "amin")
        chosen = (index == best[slot]).nonzero().flatten()
        return best, x[chosen[torch.argsort(slot[chosen])]]

    def _gaps(self, x: Tensor, nearest: Tensor, z: Tensor, alpha: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Logit of the nearest row minus that of row x, and a bound on its rounding.

        ‖z − αx‖² − ‖z − αx_k‖² = α⟨x_k − x, 2z − α(x + x_k)⟩, in which near-ties cancel before they are squared.
        """
        apart, middle = nearest - x, 2 * z - alpha[:, None] * (x + nearest)
        scale = 0.5 * alpha * precision
        width = apart.norm(dim=1)
        entering = 4 * (2 * z.norm(dim=1) + alpha * (x.norm(dim=1) + nearest.norm(dim=1)))
        doubt = scale * width * U64 * ((self.d + 8) * middle.norm(dim=1) + entering)
        return scale * (apart * middle).sum(1), doubt.clamp(max=50)

    def _density(self, peak: Tensor, mass: Tensor, sigma: Tensor) -> Tensor:
        """Log p̂_t from the largest −‖z − αx‖²/(2σ²) and the mass relative to it."""
        return peak + mass.log() - math.log(self.n) - 0.5 * self.d * (2 * math.pi * sigma**2).log()

    # ---- many rows: everything in float64 ---------------------------------------------------------------------------------------

    def _sum(self) -> Posterior:
        """Posteriors from all rows, in float64."""
        total = Partial.nothing(len(self.z), self.d, self.z.device)
        for logit, x, square, index, mirrored in self._blocks(torch.float64):
            block = Partial.of_rows(logit, x, square, index)
            if mirrored:
                block.moment = self.shelf.mirror(block.moment)
            total = total.merge(block)
        mean = total.moment / total.mass[:, None]
        spread = (total.square / total.mass - mean.square().sum(1)).clamp(min=0).sqrt()
        # Two rounded logits differ from the exact ones by at most e each, so no weight is off by more than a factor exp(2e).
        bound = torch.expm1(2 * self._rounding(U64)) * (spread + 1e-7 * self.shelf.reach) + (self.n + 8) * U64 * self.shelf.reach
        density = self._density(total.peak - 0.5 * self.precision * self.norm**2, total.mass, self.sigma)
        entropy = (total.mass.log() - total.tilt / total.mass).clamp(min=0)
        shaped = (mean + self.shelf.mean.double()).reshape(-1, *self.bank.shape)
        ess, unknown = total.mass**2 / total.mass2, torch.full_like(total.mass, torch.nan)
        return Posterior(shaped, density, entropy, ess, total.top, 1 / total.mass, unknown, bound)
