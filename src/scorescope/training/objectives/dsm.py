"""Denoising score matching (Eq. 1): the mean of ‖f_θ(z_t, t) − target‖² per dimension, with t uniform in [0, 1).

In the v parameterization on the linear path this is Eq. 1 weighted by λ(t) = t²/(1 − t)².
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from scorescope.training.examples import Batch
from scorescope.training.interpolant import Interpolant
from scorescope.training.objectives import Objective, Setting, Terms


@dataclass(frozen=True)
class DSM(Objective):
    """Plain denoising score matching; the recipe's schedule and prediction say all."""

    def loss(self, setting: Setting) -> nn.Module:
        """The loss, as a module."""
        return DSMLoss(setting.interpolant)


class DSMLoss(nn.Module):
    """`loss(net, batch)`: mean over batch and dimensions of (f_θ(z_t, t) − target)²."""

    def __init__(self, interpolant: Interpolant) -> None:
        super().__init__()
        self.interpolant = interpolant

    def forward(self, net: nn.Module, batch: Batch) -> Terms:
        """{"loss": scalar}."""
        z = self.interpolant.state(batch.x, batch.eps, batch.t)
        found = self.interpolant.ask(net, z, batch.t, batch.label)
        return {"loss": (found - self.interpolant.target(batch.x, batch.eps, batch.t)).square().mean()}


OBJECTIVE = DSM
