"""Diffusion transformers: the demo's three, the paper's four (for 32×32×4 latents), and one for a desk."""

from __future__ import annotations

from scorescope.nets.sit import SiTSize
from scorescope.training.objectives.dsm import DSM
from scorescope.training.recipe import Recipe

PRESETS: dict[str, Recipe[SiTSize, DSM]] = {
    "demo-s": Recipe(SiTSize(width=48, depth=3, heads=3, patch=4), steps=8_000, batch=128, rate=1e-3),
    "demo-m": Recipe(SiTSize(width=72, depth=4, heads=4, patch=4), steps=8_000, batch=128, rate=1e-3),
    "demo-l": Recipe(SiTSize(width=96, depth=5, heads=6, patch=4), steps=8_000, batch=128, rate=1e-3),
    "sit-s": Recipe(SiTSize(width=384, depth=12, heads=6)),
    "sit-b": Recipe(SiTSize(width=768, depth=12, heads=12)),
    "sit-l": Recipe(SiTSize(width=1024, depth=24, heads=16)),
    "sit-xl": Recipe(SiTSize(width=1152, depth=28, heads=16)),
    "sit-desk": Recipe(SiTSize(width=192, depth=8, heads=6, patch=4), steps=40_000, batch=64, rate=5e-4, ema=0.9995),
}
