"""Partial: the part of a posterior that some of the rows contribute. Parts merge associatively and commutatively.

Per state: a peak (the largest logit −‖z − αx‖²/(2σ²)), and sums of e^(logit − peak) weighted by 1, x, (logit − peak) and the weight
itself. The same merge serves blocks of rows on one device, a bank on disk, and a bank shared among ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from scorescope.empirical.posterior import Posterior
from scorescope.empirical.states import States

LAST = torch.iinfo(torch.int64).max


@dataclass
class Partial:
    """Sums over some rows, centred as the engine does, for B states; float64, indices int64."""

    peak: Tensor  # (B,) largest logit; −inf where no row was seen
    top: Tensor  # (B,) the row that has it, the first of equals
    mass: Tensor  # (B,) Σ e^(l − peak)
    moment: Tensor  # (B, d) Σ e^(l − peak) x
    tilt: Tensor  # (B,) Σ e^(l − peak) (l − peak)
    mass2: Tensor  # (B,) Σ e^(2(l − peak))
    doubt: Tensor  # (B,) bound on the error of `mass`, row by row: Σ |error of a weight|
    error: Tensor  # (B,) bound on ‖Σ (error of a weight)(x − mean)‖, with the mean of these rows
    ratio: Tensor  # (B,) ‖z − αx‖/(σ√d) of the row where it is nearest to 1

    @staticmethod
    def nothing(batch: int, d: int, device: torch.device | str) -> Partial:
        """The neutral element of `merge`."""
        zero = torch.zeros(batch, dtype=torch.float64, device=device)
        moment = torch.zeros(batch, d, dtype=torch.float64, device=device)
        top = torch.full((batch,), LAST, dtype=torch.int64, device=device)
        mass, tilt, mass2, doubt, error = (zero.clone() for _ in range(5))
        return Partial(zero - torch.inf, top, mass, moment, tilt, mass2, doubt, error, zero + torch.inf)

    def __getitem__(self, index: Tensor) -> Partial:
        """Those of some of the states."""
        return Partial(*(getattr(self, field.name)[index] for field in fields(self)))

    def put(self, index: Tensor, part: Partial) -> None:
        """Write another's states at `index` of this one."""
        for field in fields(self):
            getattr(self, field.name)[index] = getattr(part, field.name)

    def merge(self, other: Partial) -> Partial:
        """The partial of both sets of rows together."""
        peak = torch.maximum(self.peak, other.peak)
        mine, mine_down = self.factor(peak)
        its, its_down = other.factor(peak)
        best = torch.where(self.peak > other.peak, self.top, other.top)
        top = torch.where(self.peak == other.peak, torch.minimum(self.top, other.top), best)
        mass = mine * self.mass + its * other.mass
        moment = mine[:, None] * self.moment + its[:, None] * other.moment
        mean = moment / mass.clamp(min=1e-300)[:, None]
        nearer = (self.ratio - 1).abs() <= (other.ratio - 1).abs()
        tilt = mine * (self.tilt + self.mass * mine_down) + its * (other.tilt + other.mass * its_down)
        mass2, doubt = mine**2 * self.mass2 + its**2 * other.mass2, mine * self.doubt + its * other.doubt
        error = mine * self.error_about(mean) + its * other.error_about(mean)
        return Partial(peak, top, mass, moment, tilt, mass2, doubt, error, torch.where(nearer, self.ratio, other.ratio))

    def factor(self, peak: Tensor) -> tuple[Tensor, Tensor]:
        """e^(own peak − peak) and its logarithm, zeros where nothing was seen."""
        seen = self.mass > 0
        down = torch.where(seen, self.peak - peak, 0.0)
        return torch.where(seen, down.exp(), 0.0), down

    def error_about(self, mean: Tensor) -> Tensor:
        """`error` about another mean: every error of a weight moves the answer by its own difference more."""
        apart = torch.zeros_like(self.doubt)
        for some in self.doubt.nonzero().flatten().split(256):
            apart[some] = (self.moment[some] / self.mass[some, None].clamp(min=1e-300) - mean[some]).norm(dim=1)
        return self.error + self.doubt * apart

    def posterior(self, states: States, rows: int, shape: tuple[int, ...]) -> Posterior:
        """The posterior of B states (B, d) among `rows` rows, all of which are in this partial or known not to matter."""
        sigma, at_data = states.sigma, states.at_data
        mean = (self.moment / self.mass[:, None]).add_(states.centre)
        density = self.peak + self.mass.log() - math.log(rows) - 0.5 * states.d * (2 * math.pi * sigma**2).log()
        density = torch.where(at_data, torch.where(self.peak == 0, torch.inf, -torch.inf), density)
        entropy = (self.mass.log() - self.tilt / self.mass).clamp(min=0)
        # Means lie among the rows, or no farther than one reach beside them. The sums are rounded too, and the centre is added again.
        rounded = 2.0**-48 * (torch.linalg.vector_norm(mean, dim=1) + states.centre.norm()) + 2.0**-50 * states.reach
        bound = (self.error / self.mass).clamp(max=3 * states.reach) + rounded
        ess = self.mass**2 / self.mass2
        return Posterior(mean.reshape(-1, *shape), density, entropy, ess, self.top, 1 / self.mass, self.ratio, bound)
