"""What a training run is: one small frozen config, and the presets as plain values."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from scorescope.errors import InputError, unknown


@dataclass(frozen=True)
class Recipe:
    """The paper's objective (appendix C.1): linear path, v-prediction, AdamW without weight decay at a constant rate, EMA.

    Attributes:
        width: Of a token.
        depth: Number of blocks.
        heads: Attention heads; they divide the width.
        patch: Side of a patch in pixels (or latent cells); it divides the side of the rows.
        steps: Optimizer steps.
        batch: Training examples a step.
        rate: AdamW's learning rate, constant.
        ema: Decay of the weights' moving average; (1 + n)/(10 + n) while that is smaller, so that short runs forget their start.
        class_dropout: Share of examples trained without their label.
        seed: Names every random stream of the run.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    patch: int = 2
    steps: int = 400_000
    batch: int = 256
    rate: float = 1e-4
    ema: float = 0.9999
    class_dropout: float = 0.1
    seed: int = 0

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def validate(self) -> None:
        """Raise `InputError` for a value that no run could be made with."""
        for name in ("width", "depth", "heads", "patch", "steps", "batch"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)} is not a positive number", f"--{name} 1 or more")
        if self.width % self.heads or self.width % 4:
            raise InputError(f"width {self.width} must be divisible by heads {self.heads} and by 4", "another --width or --heads")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise InputError(f"--rate {self.rate:g} is not a learning rate", "a positive number, e.g. --rate 1e-4")
        if not 0 <= self.ema < 1:
            raise InputError(f"--ema {self.ema:g} is no decay", "a number from 0 up to but not 1, e.g. --ema 0.9999")
        if not 0 <= self.class_dropout <= 1:
            raise InputError(f"--class-dropout {self.class_dropout:g} is not a share", "a number from 0 to 1, e.g. --class-dropout 0.1")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed} is not a seed", "a whole number from 0")


PRESETS = {
    "demo-s": Recipe(width=48, depth=3, heads=3, patch=4, steps=16_000, batch=128, rate=1e-3),
    "demo-m": Recipe(width=72, depth=4, heads=4, patch=4, steps=8_000, batch=128, rate=1e-3),
    "demo-l": Recipe(width=96, depth=5, heads=6, patch=4, steps=8_000, batch=128, rate=1e-3),
    "sit-s": Recipe(width=384, depth=12, heads=6),
    "sit-b": Recipe(width=768, depth=12, heads=12),
}


def preset(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: No such preset; the nearest name is suggested.
    """
    if name not in PRESETS:
        raise unknown("preset", name, PRESETS)
    return PRESETS[name]
