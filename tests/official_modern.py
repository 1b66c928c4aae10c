"""What the official code of further families answers (tests/data/README.md); weights are drawn as in `tests.official`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from tests.official import SPREAD, drawn

FILE = Path(__file__).parent / "data" / "official-modern.npz"
FIXED = ("pos_embed", "feat_rope.freqs_cos", "feat_rope.freqs_sin", "u")  # tables, not weights
SHAPES = {
    "jit": (4, 3, 8, 8),
    "lightningdit": (4, 4, 4, 4),
    "edm": (4, 3, 8, 8),
    "dico": (4, 4, 8, 8),
    "edm2": (4, 4, 8, 8),
}  # of the states


def fixed(name: str) -> bool:
    """Whether the code computes what goes by a name, and nobody trains it."""
    return name in FIXED


def weight(name: str, shape: list[int]) -> torch.Tensor:
    """The weights called `name`; one number where the shape is ()."""
    return drawn(name, tuple(shape) or (1,)).reshape(shape)


def asked(network: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States, times (σ for EDM, steps for DiCo) and labels (5 is none for EDM, 6 for others) that the official network was asked about."""
    family = network.partition("_")[0]
    x = drawn("x", SHAPES[family]) / SPREAD
    if family in ("edm", "edm2"):
        sigma = torch.tensor([0.02, 0.4, 3.0, 60.0])
        return x * (1 + sigma[:, None, None, None]), sigma, torch.tensor([0, 5, 2, 5])
    times = torch.tensor([0, 300, 600, 999]) if family == "dico" else torch.tensor([0.01, 0.3, 0.6, 0.99])
    return x, times, torch.tensor([0, 6, 2, 6])


def reference(network: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights by name, without tables, and inputs `x`, `t`, `y` and the output `out` of the official network."""
    with np.load(FILE) as opened:
        shapes, out = json.loads(str(opened[f"{network}/shapes"])), torch.from_numpy(opened[f"{network}/out"])
    weights = {name: weight(name, shape) for name, shape in shapes.items()}
    return weights, dict(zip("xty", asked(network), strict=True)) | {"out": out}
