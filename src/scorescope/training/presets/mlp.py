"""Perceptrons for vectors: the paper's (appendix C.6), and a small one."""

from __future__ import annotations

from scorescope.nets.mlp import MLPSize
from scorescope.training.objectives.dsm import DSM
from scorescope.training.recipe import Recipe

PRESETS: dict[str, Recipe[MLPSize, DSM]] = {
    "mlp-desk": Recipe(MLPSize(), steps=20_000, batch=256, rate=1e-3, ema=0.999),
    "mlp-gaussian": Recipe(MLPSize(width=1000, depth=10, skips=False), steps=20_000, batch=100, rate=4e-3),
}
