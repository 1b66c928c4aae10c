"""Networks on the 60,000 images of Fashion-MNIST that several figures share: families, sizes, lengths; each trained once."""

from __future__ import annotations

from typing import Any

from scorescope.denoiser import Denoiser
from scorescope.experiments.store import Store
from scorescope.nets.sit import SiTSize
from scorescope.nets.unet import UNetSize
from scorescope.training.objectives import Objective
from scorescope.training.objectives.dsm import DSM
from scorescope.training.recipe import Recipe

BANK, HELD_OUT = "fashion", "fashion-held-out"
LENGTHS = (1_500, 2_500, 4_000)
NETS: dict[str, Any] = {
    "sit-xs": SiTSize(width=32, depth=2, heads=2, patch=4),
    "sit-s": SiTSize(width=48, depth=3, heads=3, patch=4),
    "sit-m": SiTSize(width=72, depth=4, heads=4, patch=4),
    "sit-l": SiTSize(width=96, depth=5, heads=6, patch=4),
    "unet-xs": UNetSize(channels=4, multipliers=(1, 2, 4), residual_blocks=1, attention=(4,), head_width=16),
    "unet-s": UNetSize(channels=8, multipliers=(1, 2, 4), residual_blocks=1, attention=(4,), head_width=16),
    "conv-xs": UNetSize(channels=4, multipliers=(1, 2, 4), residual_blocks=1, attention=(), head_width=16),
    "conv-s": UNetSize(channels=8, multipliers=(1, 2, 4), residual_blocks=1, attention=(), head_width=16),
}


def recipe(name: str, objective: Objective | None = None, seed: int = 0) -> Recipe[Any, Any]:
    """The same training for every network."""
    return Recipe(NETS[name], objective or DSM(), steps=LENGTHS[-1], batch=64, rate=1e-3, seed=seed)


def make(store: Store, wanted: Recipe[Any, Any], step: int = LENGTHS[-1]) -> Denoiser:
    """The network of a recipe after some steps, trained to the end if it was not."""
    return store.trained(wanted, store.bank(BANK), keep=LENGTHS, step=step)
