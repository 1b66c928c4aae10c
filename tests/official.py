"""What the official code of SiT, REPA and guided-diffusion answers with weights that anyone can draw again (tests/data/README.md)."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch

FILE = Path(__file__).parent / "data" / "official.npz"
SPREAD = 0.1  # of the weights: answers are of order one, and no layer is idle


def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The weights called `name`. NumPy never changes what `RandomState` draws, unlike its newer generators."""
    stream = np.random.RandomState(zlib.crc32(name.encode()))
    return torch.from_numpy((SPREAD * stream.standard_normal(shape)).astype(np.float32))


def reference(network: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights by name, and inputs and outputs `x`, `t`, `y`, `out` (and `z`, REPA's features) of the official network."""
    with np.load(FILE) as opened:
        found = {key.partition("/")[2]: opened[key] for key in opened.files if key.startswith(f"{network}/")}
    weights = {key[2:]: drawn(key[2:], tuple(shape.tolist())) for key, shape in found.items() if key.startswith("w:")}
    return weights, {key: torch.from_numpy(value) for key, value in found.items() if not key.startswith("w:")}
