"""Networks that several figures share, each trained once: those of a desk, and the paper's own (C.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from scorescope.denoiser import Denoiser
from scorescope.experiments.cost import Training
from scorescope.experiments.store import Store
from scorescope.nets.sit import SiTSize
from scorescope.nets.unet import UNetSize
from scorescope.training.objectives import Objective
from scorescope.training.objectives.dsm import DSM
from scorescope.training.presets import preset
from scorescope.training.recipe import Recipe


@dataclass(frozen=True)
class Shared:
    """A bank, and the networks that are trained on it.

    Attributes:
        bank, held_out: Names of banks; no rows are held out where the second is empty.
        shape, classes: Of the rows.
        lengths: Steps whose weights are kept; the last is the whole training.
        recipes: By name.
    """

    bank: str
    held_out: str
    shape: tuple[int, ...]
    classes: int
    lengths: tuple[int, ...]
    recipes: Mapping[str, Recipe[Any, Any]]

    def recipe(self, name: str, objective: Objective | None = None, seed: int = 0) -> Recipe[Any, Any]:
        """The training of a network, with an objective of its own if one is given."""
        return replace(self.recipes[name], objective=objective or DSM(), seed=seed)

    def make(self, store: Store, wanted: Recipe[Any, Any], step: int = 0) -> Denoiser:
        """The network of a recipe after some steps, 0 for all; trained to the end if it was not."""
        return store.trained(wanted, store.bank(self.bank), keep=self.lengths, step=step or self.lengths[-1])

    def training(self, name: str, wanted: Recipe[Any, Any] | None = None) -> Training:
        """What a network costs."""
        return Training(name, wanted or self.recipes[name], self.bank, self.shape, self.classes, self.lengths)


def _desk(net: Any) -> Recipe[Any, Any]:
    return Recipe(net, steps=4_000, batch=64, rate=1e-3)


FASHION = Shared(
    *("fashion", "fashion-held-out", (1, 28, 28), 10, (1_500, 2_500, 4_000)),
    {
        "sit-xs": _desk(SiTSize(width=32, depth=2, heads=2, patch=4)),
        "sit-s": _desk(SiTSize(width=48, depth=3, heads=3, patch=4)),
        "sit-m": _desk(SiTSize(width=72, depth=4, heads=4, patch=4)),
        "sit-l": _desk(SiTSize(width=96, depth=5, heads=6, patch=4)),
        "unet-xs": _desk(UNetSize(channels=4, multipliers=(1, 2, 4), residual_blocks=1, attention=(4,), head_width=16)),
        "unet-s": _desk(UNetSize(channels=8, multipliers=(1, 2, 4), residual_blocks=1, attention=(4,), head_width=16)),
        "conv-xs": _desk(UNetSize(channels=4, multipliers=(1, 2, 4), residual_blocks=1, attention=(), head_width=16)),
        "conv-s": _desk(UNetSize(channels=8, multipliers=(1, 2, 4), residual_blocks=1, attention=(), head_width=16)),
    },
)  # fmt: skip
_PAPER = ("sit-s", "sit-b", "sit-l", "sit-xl", *(f"unet{kind}-{size}" for kind in ("", "-conv") for size in ("xs", "s", "b", "l")))
IMAGENET = Shared(
    *("imagenet-latents", "", (4, 32, 32), 1000, (200_000, 300_000, 400_000)),
    {name: replace(preset(name), precision="bf16") for name in _PAPER},
)  # fmt: skip
SHARED = {"desk": FASHION, "paper": IMAGENET}
