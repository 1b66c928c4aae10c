"""States as the engine looks at them, and what their logits are made of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scorescope.schedule import Schedule

SHEER = 1e24  # logits, in nats, beyond which rows are told apart by direct differences alone; float32 ends at 1e38


@dataclass(frozen=True)
class States:
    """States z (B, d) float64 with their scales α and σ (B,).

    logit_j = slope⟨z − α·centre, x_j⟩ − curve‖x_j‖²/2 of centred rows x_j of norm `reach` at most, with slope = α/σ² and curve = α²/σ².
    Where σ is 0 or so small that float32 could not hold these logits the state is `steep`: constants are those of a larger σ, whose logits
    nominate all rows that matter, and direct differences of the nominated rows decide.
    """

    z: Tensor
    alpha: Tensor
    sigma: Tensor
    centre: Tensor
    reach: float

    @staticmethod
    def of(z: Tensor, t: Tensor, schedule: Schedule, centre: Tensor, reach: float) -> States:
        """States z (B, d) at times t (B,)."""
        alpha, sigma, *_ = schedule(t)
        return States(z, alpha, sigma, centre, reach)

    def __getitem__(self, part: Tensor | slice) -> States:
        """Some of the states."""
        return States(self.z[part], self.alpha[part], self.sigma[part], self.centre, self.reach)

    def __len__(self) -> int:
        return len(self.z)

    @property
    def d(self) -> int:
        """Dimensions."""
        return self.z.shape[1]

    @cached_property
    def at_data(self) -> Tensor:
        """(B,) whether σ = 0."""
        return self.sigma == 0

    @cached_property
    def precision(self) -> Tensor:
        """(B,) 1/σ², or less where the state is steep."""
        return torch.minimum(self.sigma**-2, self._sheer)

    @cached_property
    def steep(self) -> Tensor:
        """(B,) whether σ is 0, or so small that float32 can't hold the logits."""
        return self.sigma**-2 > self._sheer

    @property
    def true_precision(self) -> Tensor:
        """(B,) 1/σ²; 1 at σ = 0."""
        return torch.where(self.at_data, 1.0, self.sigma**-2)

    @cached_property
    def _sheer(self) -> Tensor:
        """(B,) the largest 1/σ² whose logits float32 holds."""
        size = self.alpha * self.reach * (self.norm + self.alpha * self.reach)
        return SHEER / torch.maximum(size, 1e-12 * self.norm**2).clamp(min=1e-6)

    @cached_property
    def slope(self) -> Tensor:
        """(B,) α/σ²."""
        return self.alpha * self.precision

    @cached_property
    def curve(self) -> Tensor:
        """(B,) α²/σ²."""
        return self.alpha**2 * self.precision

    @cached_property
    def centred(self) -> Tensor:
        """(B, d) z − α·centre."""
        return torch.addcmul(self.z, self.alpha[:, None], self.centre, value=-1)

    @cached_property
    def norm(self) -> Tensor:
        """(B,) norms of the centred states."""
        return torch.linalg.vector_norm(self.centred, dim=1)

    @cached_property
    def shell(self) -> Tensor:
        """(B,) the logit of a row at distance σ√d, on whose shell the state then lies; 0, which says nothing, where it is steep."""
        return torch.where(self.steep, 0.0, 0.5 * (self.precision * self.norm**2 - self.d))
