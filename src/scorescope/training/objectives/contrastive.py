"""Contrastive flow matching (ΔFM; Stoica et al. 2025, arXiv:2506.05350): away from the targets of other examples.

    loss = ‖f_θ(z_t, t) − v‖² − λ ‖f_θ(z_t, t) − ṽ‖²     per dimension, λ = contrastive_weight

ṽ is the target of another example, a row and noise drawn for this item alone. Since it is independent of z_t, the optimum is known:

    f*(z_t, t) = (E[v | z_t] − λ E[ṽ]) / (1 − λ) = E[v | z_t] + λ/(1 − λ) (E[v | z_t] − E[ṽ])

so that the network no longer learns the empirical score, and by how much it does not is a number: a control for whatever measures fit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from scorescope import seeds
from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.training.examples import Batch
from scorescope.training.interpolant import Interpolant
from scorescope.training.objectives import Objective, Setting, Terms


@dataclass(frozen=True)
class Contrastive(Objective):
    """DSM against the targets of other examples.

    Attributes:
        contrastive_weight: λ, from 0, which is plain DSM, up to but not 1.
    """

    contrastive_weight: float = 0.05

    def validate(self) -> None:
        """Refuse a weight without an optimum."""
        if not 0 <= self.contrastive_weight < 1:
            said = f"--contrastive-weight {self.contrastive_weight:g} leaves the loss without a minimum"
            raise InputError(said, "a weight from 0 up to but not 1, e.g. --contrastive-weight 0.05")

    def loss(self, setting: Setting) -> nn.Module:
        """The loss, as a module."""
        return ContrastiveLoss(setting.interpolant, setting.rows, self.contrastive_weight, setting.seed)


class ContrastiveLoss(nn.Module):
    """`loss(net, batch)`: the two terms and their sum."""

    def __init__(self, interpolant: Interpolant, rows: Bank, weight: float, seed: int) -> None:
        super().__init__()
        self.interpolant, self.rows, self.weight, self.seed = interpolant, rows, weight, seed

    def others(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """x̃ and ε̃ (B, *shape) of the batch's items."""
        drawn = [seeds.generator(self.seed, "contrast", item) for item in batch.item.tolist()]
        x = self.rows[np.array([rng.integers(len(self.rows)) for rng in drawn])]
        eps = np.stack([rng.standard_normal(self.rows.shape, dtype=np.float32) for rng in drawn])
        return x.to(batch.x), torch.from_numpy(eps).to(batch.x)

    def forward(self, net: nn.Module, batch: Batch) -> Terms:
        """{"loss", "dsm", "contrast"}."""
        found = self.interpolant.ask(net, self.interpolant.state(batch.x, batch.eps, batch.t), batch.t, batch.label)
        fit = (found - self.interpolant.target(batch.x, batch.eps, batch.t)).square().mean()
        apart = (found - self.interpolant.target(*self.others(batch), batch.t)).square().mean()
        return {"loss": fit - self.weight * apart, "dsm": fit, "contrast": apart}


OBJECTIVE = Contrastive
