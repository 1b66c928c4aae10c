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
from scorescope.training.draws import DrawnLoss, Targets
from scorescope.training.objectives import Objective, Setting


@dataclass(frozen=True)
class Mismatch(Objective):
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

    def loss(self, setting: Setting) -> nn.Module:
        """The loss, as a module."""
        targets = Targets(setting.bank, setting.interpolant.path, setting.seed, self.closed_form, setting.device)
        return DrawnLoss(setting.interpolant, targets, lambda item: self.factors(item, setting.seed))

    def factors(self, item: Tensor, seed: int) -> Tensor:
        """K (B,) of the items."""
        drawn = [seeds.generator(seed, "mismatch", item).random() for item in item.tolist()]
        return 1 + (self.noise_factor - 1) * torch.tensor(drawn, dtype=torch.float32, device=item.device)


OBJECTIVE = Mismatch
