"""REPA (Yu et al. 2024): hidden states are aligned with the features of an encoder that has seen more than these images.

    loss = DSM + repa_weight · mean over examples and tokens of −cos(projector(h_token), feature_token)

h is the output of one block, the projector a perceptron of three layers with SiLU that is trained along, the features those of the clean
image. Where the encoder's grid is another than the network's its features are interpolated (bilinear) to the network's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorescope.errors import InputError
from scorescope.training.encoders import Features, features_for
from scorescope.training.examples import Batch
from scorescope.training.hidden import stage_of, tapped, tokens
from scorescope.training.objectives import Objective, Setting, Terms
from scorescope.training.objectives.dsm import DSMLoss


@dataclass(frozen=True)
class REPA(Objective):
    """DSM with representation alignment.

    Attributes:
        repa_weight: λ, of the alignment beside the DSM loss.
        repa_depth: Block whose output is aligned, counted from 1 (the paper: 8; the authors take 4 for B).
        repa_width: Hidden width of the projector.
        encoder: lite0 (EfficientNet-Lite0, which pip installs), hog (oriented gradients), random (a control), timm:NAME,
            transformers:NAME, or FILE.py:FUNCTION that returns a torch module from images (B, 3, H, W) in [0, 1] to features
            (B, tokens, width).
        features: Folder of features computed before (`scorescope bank features`), instead of asking the encoder at every step.
    """

    repa_weight: float = 0.5
    repa_depth: int = 8
    repa_width: int = 2048
    encoder: str = "lite0"
    features: str = ""

    def validate(self) -> None:
        """Refuse values that no loss could be made with."""
        if not math.isfinite(self.repa_weight):
            raise InputError(f"--repa-weight {self.repa_weight} is not a weight", "--repa-weight 0.5")
        if self.repa_width < 1:
            raise InputError(f"--repa-width {self.repa_width} is not a width", "--repa-width 2048")

    def loss(self, setting: Setting) -> nn.Module:
        """The loss, as a module."""
        stage = stage_of(setting.net, self.repa_depth, "--repa-depth")
        features = features_for(setting.bank, self.encoder, self.features, setting.device)
        with tapped(stage) as seen, torch.no_grad():
            setting.net(torch.zeros(1, *setting.bank.shape), torch.zeros(1))
        _, count, width = tokens(seen[-1]).shape
        aligned(torch.empty(1, features.count, 1), count)  # refuses grids that can't be laid on each other before anything is written
        return REPALoss(DSMLoss(setting.interpolant), self, features, width)


def aligned(features: Tensor, count: int) -> Tensor:
    """Features (B, L, width) of a square grid on one of `count` tokens, (B, count, width)."""
    if features.shape[1] == count:
        return features
    side, wanted = math.isqrt(features.shape[1]), math.isqrt(count)
    if side**2 != features.shape[1] or wanted**2 != count:
        raise InputError(
            f"features of {features.shape[1]} tokens can't be laid on the network's {count}: both must be square grids",
            "an encoder of a square grid",
        )
    grid = features.mT.reshape(len(features), -1, side, side)
    return F.interpolate(grid, (wanted, wanted), mode="bilinear", align_corners=False).flatten(2).mT


class REPALoss(nn.Module):
    """`loss(net, batch)`: the two terms and their sum. `projector` is trained with the network."""

    def __init__(self, dsm: DSMLoss, recipe: REPA, features: Features, width: int) -> None:
        super().__init__()
        self.dsm, self.weight, self.depth, self.features = dsm, recipe.repa_weight, recipe.repa_depth, features
        wide = recipe.repa_width
        self.projector = nn.Sequential(
            nn.Linear(width, wide), nn.SiLU(), nn.Linear(wide, wide), nn.SiLU(), nn.Linear(wide, features.width)
        )  # fmt: skip

    def forward(self, net: nn.Module, batch: Batch) -> Terms:
        """{"loss", "dsm", "repa"}."""
        with tapped(stage_of(net, self.depth, "--repa-depth")) as seen:
            fit = self.dsm(net, batch)["loss"]
        projected = self.projector(tokens(seen[-1])).float()
        with torch.no_grad():
            wanted = aligned(self.features(batch), projected.shape[1])
        apart = -F.cosine_similarity(projected, wanted.float(), dim=2).mean()
        return {"loss": fit + self.weight * apart, "dsm": fit, "repa": apart}


OBJECTIVE = REPA
