"""U-Nets: the paper's four (for 32×32×4 latents; multipliers and blocks as in ADM at 64 pixels), without attention, and a small one."""

from __future__ import annotations

from scorescope.nets.unet import UNetSize
from scorescope.training.objectives.dsm import DSM
from scorescope.training.recipe import Recipe

CHANNELS = {"xs": 64, "s": 128, "b": 192, "l": 320}

PRESETS: dict[str, Recipe[UNetSize, DSM]] = {
    **{f"unet-{name}": Recipe(UNetSize(channels)) for name, channels in CHANNELS.items()},
    **{f"unet-conv-{name}": Recipe(UNetSize(channels, attention=())) for name, channels in CHANNELS.items()},
    "unet-desk": Recipe(
        UNetSize(32, multipliers=(1, 2, 2), residual_blocks=1, attention=(4,), head_width=32), steps=40_000, batch=64, rate=5e-4, ema=0.9995
    ),
}
