"""Partial: the part of a posterior that some of the rows contribute. Parts merge associatively and commutatively.

Per state: a peak (the largest logit), and sums of e^(logit − peak) weighted by 1, x, ‖x‖², (logit − peak) and the weight itself. The
same merge serves blocks of rows on one device, a bank on disk, and a bank sharded over ranks (a maximum of the peaks, then a sum).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Partial:
    """Sums over some rows for B states, float64: see the module for what they are."""

    peak: Tensor  # (B,) largest logit; −inf where no row was seen
    top: Tensor  # (B,) int64, the row that has it
    mass: Tensor  # (B,) Σ e^(l − peak)
    moment: Tensor  # (B, d) Σ e^(l − peak) x
    square: Tensor  # (B,) Σ e^(l − peak) ‖x‖²
    tilt: Tensor  # (B,) Σ e^(l − peak) (l − peak)
    mass2: Tensor  # (B,) Σ e^(2(l − peak))

    @staticmethod
    def nothing(batch: int, d: int, device: torch.device | str) -> Partial:
        """The neutral element of `merge`."""
        zero = torch.zeros(batch, dtype=torch.float64, device=device)
        index = torch.zeros(batch, dtype=torch.int64, device=device)
        return Partial(zero - torch.inf, index, zero, torch.zeros(batch, d, dtype=torch.float64, device=device), zero, zero, zero)

    @staticmethod
    def of_rows(logit: Tensor, x: Tensor, square: Tensor, index: Tensor) -> Partial:
        """From logits (B, n) of rows x (n, d) with squared norms (n,) and indices (n,)."""
        peak, place = logit.max(1)
        below = logit - peak[:, None]
        weight = below.exp()
        # A weight of 0 times a logit of −inf counts as 0.
        tilt = torch.where(weight > 0, weight * below, 0.0).sum(1)
        return Partial(peak, index[place], weight.sum(1), weight @ x, weight @ square, tilt, weight.square().sum(1))

    def merge(self, other: Partial) -> Partial:
        """The partial of both sets of rows together."""
        peak = torch.maximum(self.peak, other.peak)
        first, mine, mine_down = self._rescaled(peak)
        second, its, its_down = other._rescaled(peak)
        top = torch.where(
            other.peak > self.peak, other.top, torch.where(other.peak == self.peak, torch.minimum(self._top(), other._top()), self.top)
        )
        return Partial(
            peak,
            top,
            mine * self.mass + its * other.mass,
            mine[:, None] * self.moment + its[:, None] * other.moment,
            mine * self.square + its * other.square,
            first + second + mine_down + its_down,
            mine**2 * self.mass2 + its**2 * other.mass2,
        )

    def _top(self) -> Tensor:
        return torch.where(self.mass > 0, self.top, torch.iinfo(torch.int64).max)

    def _rescaled(self, peak: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(rescaled tilt, factor, its share from the lower peak), with nothing-seen giving zeros."""
        seen = self.mass > 0
        down = torch.where(seen, self.peak - peak, 0.0)
        factor = torch.where(seen, down.exp(), 0.0)
        return factor * self.tilt, factor, factor * self.mass * down
