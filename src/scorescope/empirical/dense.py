"""Many rows: a streaming softmax whose weights are rounded to 8-bit digits, so that the sum of the rows is exact integer arithmetic.

A logit is float64 from exact products, its weight a float32 = unit·(integer) + rounding, and the integer is digits, so that Σ weight·x is
unit·Σ digits·q by integer products. What rounding leaves of the weights is known, and so is its effect: Σ rounding·⟨x, g⟩ for a few
random directions g, which no rounding knows of, measures ‖Σ rounding·x‖. With 32 Gaussian directions the norm is less than `SAFE` times
what they show but for a probability of 2e-14.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from scorescope.empirical.digits import BASE, product
from scorescope.empirical.family import Family
from scorescope.empirical.nearest import Nearest
from scorescope.empirical.nominate import error_of, stacked
from scorescope.empirical.partial import LAST, Partial
from scorescope.empirical.products import Products, Tile
from scorescope.empirical.settle import U64
from scorescope.empirical.shelf import PROBES, SPREAD, Shelf, probes

SAFE = 4.0
VALUES = 1 << 20  # weights of one step: what the caches of a processor hold
PLANES = 4  # of a weight: 127·254³ is beyond what float32 resolves


Stack = tuple[int, slice, slice]  # plane, states, and where their digits are


class Dense:
    """Partials of some states of a family (flat indices `wanted`, ascending) from all rows.

    Args:
        family: Its digits must leave little.
        shelf: The rows.
        wanted: (Q,) flat indices p·T + k.
        summed: Whether the posterior is wanted; r* alone otherwise.
        peak: (Q,) about the largest logit.
        count: Rows that are summed.
        tolerance: Error of a mean, in units of the radius, that the rounding of weights may cause.
    """

    def __init__(self, family: Family, shelf: Shelf, wanted: Tensor, summed: bool, peak: Tensor, count: int, tolerance: float) -> None:
        self.family, self.shelf, self.wanted, self.summed = family, shelf, wanted, summed
        states, r = family.states, family.norms.shape[1]
        self.t, self.device = states.sigma.shape[1], states.z.device
        flat = states.flat(wanted)
        scale = states.slope[..., None] * family.coefficients * shelf.step
        self.columns = torch.cat([scale, -0.5 * states.curve[..., None]], 2)
        self.error = error_of(family, shelf, U64).flatten()[wanted]
        self.result = Partial.nothing(len(wanted), states.d, self.device)
        self.start, self.result.peak = peak, peak.clone()
        self.constant = (0.5 * flat.precision * flat.norm**2)[:, 0]
        self.shell = flat.shell[:, 0]
        self.nearest = Nearest(len(wanted), self.device)
        self.fine = tolerance * math.sqrt(12 / count) / (4 * SAFE)
        self.lost = torch.zeros(len(wanted), dtype=torch.float64, device=self.device)
        self.off = torch.zeros(len(wanted), PROBES, device=self.device, dtype=torch.float64)
        self.r = r
        self.room = torch.empty(0, dtype=torch.float64, device=self.device)
        self.digits, self.used = torch.empty(0, 0, dtype=torch.int8, device=self.device), 0

    def run(self, products: Products) -> tuple[Partial, Nearest]:
        """The partials, and the rows of each state that are nearest to its shell."""
        for tile in products:
            self._take(tile)
        result, shelf = self.result, self.shelf
        seen = result.mass.clamp(min=1e-300)
        mean = result.moment / seen[:, None]
        own = mean.norm(dim=1)
        # The mean square is a sum in float32: far from the centre it knows little of what is left when the mean's is taken off.
        spread = ((result.square / seen - own**2).clamp(min=0) + 2.0**-18 * result.square / seen).sqrt()
        # mean' − mean = Σ w(e^δ − 1)(x − mean)/Σ w e^δ with |δ| ≤ error.
        wrong = torch.expm1(self.error.clamp(max=50)) * self.error.clamp(max=50).exp()
        # float32 of a logit rounds it in proportion to its distance from the peak, and its exponential by a unit or two.
        # One's own rows may all lie below the peak of all processes, relative to which the first of them were rounded.
        cast = 2.0**-23 * (result.tilt.abs() / seen + (self.start - result.peak).abs())
        # Σ rounding·(x − mean), as the probes see it; they are digits, of which `shelf.step` makes values.
        seen_mean = mean @ probes(self.result.moment.shape[1], self.device).double().T / shelf.step
        rounding = SAFE * shelf.step / SPREAD * (self.off - self.lost[:, None] * seen_mean).square().mean(1).sqrt()
        moved = wrong * (spread + 1e-6 * shelf.reach) + cast * (shelf.reach + own) + 2.0**-21 * spread + shelf.rounded
        result.error = result.mass * moved + rounding
        result.doubt = result.mass * (wrong + cast + 2.0**-21) + rounding / max(shelf.reach, 1e-300)
        result.peak = result.peak - self.constant
        return result, self.nearest

    def _groups(self) -> Iterator[tuple[slice, slice]]:
        """Groups [p, p') and their wanted states [q, q'), as many as the caches hold."""
        group = torch.div(self.wanted, self.t, rounding_mode="floor")
        size = max(1, VALUES // (8192 * max(self.t, self.r + 1)))
        first = int(group[0])
        while first < int(group[-1]) + 1:
            bounds = torch.searchsorted(group, torch.tensor([first, first + size], device=self.device)).tolist()
            if bounds[1] > bounds[0]:
                yield slice(first, min(first + size, len(self.family.norms))), slice(*bounds)
            first += size

    def _take(self, tile: Tile) -> None:
        exact, square = tile.exact, tile.rows.square
        shown = self.shelf.shown(tile.rows, tile.mirrored)
        stacks: list[Stack] = []
        unit = torch.zeros(len(self.wanted), dtype=torch.float64, device=self.device)
        for groups, part in self._groups():
            logit = self._logits(self.family.products(exact, groups), square, groups, part)
            self.nearest.see(logit - (self.shell - self.result.peak)[part, None].float(), part, tile.index)
            if not self.summed:
                continue
            weight, mine = self._weights(logit, square, part, tile.index)
            fine = torch.maximum(self.fine * self.result.mass[part], mine / (127.0 * BASE ** (PLANES - 1))).clamp(min=1e-300)
            unit[part] = fine
            self._split(weight, fine, float((mine / fine).amax()), part, stacks, shown)
        self._sum(stacks, unit, tile)

    def _logits(self, exact: Tensor, square: Tensor, groups: slice, part: slice) -> Tensor:
        """(m, n) float32 logits relative to the running peak."""
        self.room = stack = stacked(self.room, exact.shape[0], self.r + 1, exact.shape[2])
        stack[:, : self.r], stack[:, self.r] = exact, square
        logit = torch.bmm(self.columns[groups], stack).flatten(0, 1)
        chosen = self.wanted[part] - groups.start * self.t
        if len(chosen) < len(logit):
            logit = logit[chosen]
        return logit.sub_(self.result.peak[part, None]).float()

    def _weights(self, logit: Tensor, square: Tensor, part: slice, index: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (m, n) float32 relative to the new running peak, in the place of the logits; and the largest of each state."""
        result = self.result
        high = logit.amax(1)
        better = (high >= 0) | (result.top[part] == LAST)
        if bool(better.any()):
            states = better.nonzero().flatten()
            row = index[(logit if len(states) == len(logit) else logit[states]).argmax(1)]
            rise = high[states].double()
            whole = states + part.start
            first = result.top[whole] == LAST
            row = torch.where((rise == 0) & ~first, torch.minimum(row, result.top[whole]), row)
            result.top[whole] = row
            self._raise(whole, torch.where(first, rise, rise.clamp(min=0)))
            logit[states] -= rise[:, None].float()
            high = torch.where(better, 0.0, high)
        weight = torch.exp(logit)
        result.mass[part] += weight.sum(1, dtype=torch.float64)
        result.tilt[part] += torch.linalg.vecdot(weight, logit).double()
        result.mass2[part] += torch.linalg.vector_norm(weight, dim=1).double() ** 2
        result.square[part] += (weight @ square.float()).double()
        return weight, high.double().exp()

    def _raise(self, states: Tensor, rise: Tensor) -> None:
        """Move the running peaks of some states up by `rise`, and what was summed with them."""
        result = self.result
        result.peak[states] += rise
        started = result.mass[states] > 0
        if not bool(started.any()):
            return
        factor = torch.where(started, torch.exp(-rise), 0.0)
        result.tilt[states] = factor * (result.tilt[states] - rise * result.mass[states])
        result.mass[states] *= factor
        result.mass2[states] *= factor**2
        result.square[states] *= factor
        result.moment[states] *= factor[:, None]
        self.lost[states] *= factor
        self.off[states] *= factor[:, None]

    def _split(self, weight: Tensor, unit: Tensor, highest: float, part: slice, stacks: list[Stack], shown: Tensor) -> None:
        """Digits of the weights, on the stacks of their planes; what they leave, seen through the probes."""
        self.result.mass[part] -= weight.sum(1, dtype=torch.float64)
        rest = weight.mul_((1 / unit).float()[:, None])
        whole = torch.empty_like(rest)
        for k in reversed(range(PLANES)):
            # No weight has digits in a plane above the largest.
            if k and highest <= 127.0 * BASE ** (k - 1):
                continue
            torch.mul(rest, float(BASE) ** -k, out=whole).round_()
            stacks.append((k, part, self._digits(whole)))
            # The mass is that of the digits, so that no rounding moves the mean by more than it moves one row against the others.
            self.result.mass[part] += unit * whole.sum(1).double() * float(BASE) ** k
            rest.sub_(whole, alpha=float(BASE) ** k)
        self.lost[part] += unit * rest.sum(1).double()
        self.off[part] += unit[:, None] * (rest @ shown).double()

    def _digits(self, whole: Tensor) -> slice:
        """Where the digits are kept until the rows are summed."""
        begin, self.used = self.used, self.used + len(whole)
        if self.used > len(self.digits) or whole.shape[1] != self.digits.shape[1]:
            wider = torch.empty(max(2 * len(self.digits), self.used), whole.shape[1], dtype=torch.int8, device=self.device)
            if begin:
                wider[:begin] = self.digits[:begin]
            self.digits = wider
        self.digits[begin : self.used] = whole
        return slice(begin, self.used)

    def _sum(self, stacks: list[Stack], unit: Tensor, tile: Tile) -> None:
        """Add the integer sums of the rows to the moments."""
        if not stacks:
            return
        total = product(self.digits[: self.used], tile.rows.q)
        self.used = 0
        for k, part, where in stacks:
            found = self.shelf.mirror(total[where]) if tile.mirrored else total[where]
            self.result.moment[part].addcmul_(found.double(), unit[part, None] * (self.shelf.step * float(BASE) ** k))
