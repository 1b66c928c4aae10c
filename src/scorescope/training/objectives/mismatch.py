"""Noise-mismatched shells: a second way to widen the supervision region, beside more rows (see `region`).

States are z = α x + k σ ε with k uniform in [1, noise_factor], an item's own: thicker shells about the same rows. The target stays the
empirical score of these rows at (z, t): a draw y ~ r_z, or the posterior mean. A factor of 1 is plain denoising score matching in
expectation. Choose `--prediction x` for the reason that `region` gives.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scorescope import seeds
from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.training.draws import LEAST, Targets
from scorescope.training.examples import Batch
from scorescope.training.interpolant import Interpolant
from scorescope.training.objectives import Setting, Terms


@dataclass(frozen=True)
class Mismatch:
    """Training on shells of another noise than the target's.

    Attributes:
        noise_factor: Largest factor of the noise, 1 or more.
        closed_form: Learn from the posterior mean instead of draws.
    """

    noise_factor: float = 1.5
    closed_form: bool = False

    def validate(self) -> None:
        """Refuse a factor below 1."""
        if not 1 <= self.noise_factor < float("inf"):
            raise InputError(f"--noise-factor {self.noise_factor:g} is not a factor of 1 or more", "--noise-factor 1.5")

    def rows(self, bank: Bank, seed: int) -> Bank:
        """All of them."""
        return bank

    def learned(self, bank: Bank, seed: int) -> Bank:
        """The score of all of them."""
        return bank

    def loss(self, setting: Setting) -> nn.Module:
        """The loss, as a module."""
        targets = Targets(setting.bank, setting.interpolant.path, setting.seed, self.closed_form, setting.device)
        return MismatchLoss(setting.interpolant, targets, self.noise_factor, setting.seed)


class MismatchLoss(nn.Module):
    """`loss(net, batch)`: mean over batch and dimensions of (f_θ(z, t) − target(y))²."""

    def __init__(self, interpolant: Interpolant, targets: Targets, factor: float, seed: int) -> None:
        super().__init__()
        self.interpolant, self.targets, self.factor, self.seed = interpolant, targets, factor, seed

    def factors(self, item: Tensor) -> Tensor:
        """K (B,) of the items."""
        drawn = [seeds.generator(self.seed, "mismatch", item).random() for item in item.tolist()]
        return 1 + (self.factor - 1) * torch.tensor(drawn, dtype=torch.float32, device=item.device)

    def forward(self, net: nn.Module, batch: Batch) -> Terms:
        """{"loss": scalar}."""
        t = batch.t.clamp(min=LEAST)
        noise = batch.eps * self.factors(batch.item).view(-1, *[1] * (batch.eps.ndim - 1))
        z = self.interpolant.state(batch.x, noise, t)
        with torch.no_grad():
            target = self.interpolant.target_from(z, self.targets(z, t, batch.label, batch.item), t)
        return {"loss": (self.interpolant.ask(net, z, t, batch.label) - target).square().mean()}


OBJECTIVE = Mismatch
