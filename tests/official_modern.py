"""What the official code of further families answers (tests/data/README.md); weights are drawn as in `tests.official`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from tests.official import drawn

FILE = Path(__file__).parent / "data" / "official-modern.npz"
FIXED = ("pos_embed", "feat_rope.freqs_cos", "feat_rope.freqs_sin")  # tables, not weights


def fixed(name: str) -> bool:
    """Whether the code computes what goes by a name, and nobody trains it."""
    return name in FIXED


def reference(network: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights by name, without tables, and inputs `x`, `t`, `y` and the output `out` of the official network."""
    with np.load(FILE) as opened:
        found = {key.partition("/")[2]: opened[key] for key in opened.files if key.startswith(f"{network}/")}
    shapes = json.loads(str(found.pop("shapes")))
    return {name: drawn(name, tuple(shape)) for name, shape in shapes.items()}, {
        key: torch.from_numpy(value) for key, value in found.items()
    }
