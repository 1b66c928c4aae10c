"""Dispersive loss (Wang & He 2025, "Diffuse and Disperse"): hidden states of a batch repel each other; no encoder, no projector.

    loss = DSM + dispersive_weight · log mean_{i,j} exp(−‖h_i − h_j‖²/(D τ))

over all pairs of a batch, i = j included, with the hidden state h ∈ R^D of one block, flattened: the InfoNCE form with squared distances,
without positives. Under several ranks, or accumulation, the pairs are those of one part of the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scorescope.errors import InputError
from scorescope.training.examples import Batch
from scorescope.training.hidden import stage_of, tapped
from scorescope.training.objectives import Objective, Setting, Terms
from scorescope.training.objectives.dsm import DSMLoss


@dataclass(frozen=True)
class Dispersive(Objective):
    """DSM with dispersed hidden states.

    Attributes:
        dispersive_weight: Of the term beside the DSM loss.
        temperature: τ.
        dispersive_depth: Block whose output is dispersed, counted from 1; 0 takes a quarter of the network's depth.
    """

    dispersive_weight: float = 0.5
    temperature: float = 0.5
    dispersive_depth: int = 0

    def validate(self) -> None:
        """Refuse values that no loss could be made with."""
        if not math.isfinite(self.dispersive_weight):
            raise InputError(f"--dispersive-weight {self.dispersive_weight} is not a weight", "--dispersive-weight 0.5")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"--temperature {self.temperature:g} is not a temperature", "--temperature 0.5")

    def loss(self, setting: Setting) -> nn.Module:
        """The loss, as a module."""
        depth = self.dispersive_depth or max(1, len(setting.net.stages) // 4)  # type: ignore[arg-type]
        stage_of(setting.net, depth, "--dispersive-depth")
        return DispersiveLoss(DSMLoss(setting.interpolant), self.dispersive_weight, self.temperature, depth)


def dispersion(h: Tensor, temperature: float) -> Tensor:
    """Log mean_{i,j} exp(−‖h_i − h_j‖²/(D τ)) of hidden states h (B, …); a scalar, at most 0."""
    flat = h.flatten(1).float()
    square = flat.square().sum(1)
    apart = (square[:, None] + square - 2 * flat @ flat.mT).clamp(min=0) / flat.shape[1]
    return torch.logsumexp((-apart / temperature).flatten(), 0) - 2 * math.log(len(flat))


class DispersiveLoss(nn.Module):
    """`loss(net, batch)`: the two terms and their sum."""

    def __init__(self, dsm: DSMLoss, weight: float, temperature: float, depth: int) -> None:
        super().__init__()
        self.dsm, self.weight, self.temperature, self.depth = dsm, weight, temperature, depth

    def forward(self, net: nn.Module, batch: Batch) -> Terms:
        """{"loss", "dsm", "dispersive"}."""
        with tapped(stage_of(net, self.depth, "--dispersive-depth")) as seen:
            fit = self.dsm(net, batch)["loss"]
        with torch.autocast(batch.x.device.type, enabled=False):
            spread = dispersion(seen[-1], self.temperature)
        return {"loss": fit + self.weight * spread, "dsm": fit, "dispersive": spread}


OBJECTIVE = Dispersive
