"""Problems whose answers are known in closed form."""

from __future__ import annotations

import math

import torch
from torch import Tensor

import scorescope as ss


class GaussianMixture(ss.Denoiser):
    """Exact posterior mean of an isotropic Gaussian mixture: components (K, d), one width."""

    def __init__(self, centres: Tensor, width: float, schedule: ss.Schedule | None = None) -> None:
        self.centres, self.width, self.schedule = centres.double(), width, schedule or ss.LinearSchedule()
        self.shape, self.name = tuple(centres.shape[1:]), "mixture"

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        alpha, sigma = (value[:, None] for value in self.schedule(t)[:2])
        variance = alpha**2 * self.width**2 + sigma**2
        apart = z.double()[:, None] - alpha[:, None] * self.centres
        weight = torch.softmax(-apart.square().sum(2) / (2 * variance), 1)
        inside = self.centres + (alpha * self.width**2 / variance)[:, None] * apart
        return (weight[:, :, None] * inside).sum(1).to(z.dtype)


class Gaussian(ss.Denoiser):
    """Exact posterior mean of N(0, width² I); its trajectories are known: z_t/√(α²·width² + σ²) is constant."""

    def __init__(self, d: int, width: float, schedule: ss.Schedule | None = None) -> None:
        self.width, self.schedule, self.shape, self.name = width, schedule or ss.LinearSchedule(), (d,), "gaussian"

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        alpha, sigma = (value[:, None] for value in self.schedule(t)[:2])
        return (z * alpha * self.width**2 / (alpha**2 * self.width**2 + sigma**2)).to(z.dtype)

    def state(self, noise: Tensor, t: float) -> Tensor:
        """Where the linear-axis trajectory that starts at `noise` (t = 1) is at time t."""
        return noise * math.sqrt((1 - t) ** 2 * self.width**2 + t**2)
