"""ADM (Dhariwal & Nichol 2021), guided-diffusion's state dicts: ε-prediction at 1,000 discrete steps, no null label.

Levels, blocks, attention, classes and a doubled output are read off names and shapes. Not in them are the width of a head, the order
of `qkv`'s channels (`--use_new_attention_order`) and the noise schedule.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from scorescope.adapters.families import Checkpoint, Weights, checked, filled
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError, unknown
from scorescope.nets.unet import ORDERS, UNet, UNetConfig
from scorescope.schedule import DiscreteSchedule

MARK = "input_blocks.0.0.weight"
OPTIONS = {
    "head_width": "channels of an attention head (num_head_channels)",
    "order": "new or legacy: how the channels of qkv lie",
    "schedule": "linear or cosine: the betas it was trained with",
    "size": "side of the images, where it shall be fixed",
}
NEEDED = {"head_width": "head_width=64", "order": 'order="legacy"', "schedule": 'schedule="linear"'}
STEPS = 1000


def linear_betas() -> np.ndarray:
    """β from 1e-4 to 0.02."""
    return np.linspace(1e-4, 0.02, STEPS)


def cosine_betas() -> np.ndarray:
    """β of ᾱ(u) = cos²(π/2 · (u + 0.008)/1.008), at most 0.999."""
    bar = np.cos((np.arange(STEPS + 1) / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - bar[1:] / bar[:-1], 0.999)


BETAS = {"linear": linear_betas, "cosine": cosine_betas}


def belongs(checkpoint: Checkpoint) -> bool | None:
    """By its first convolution."""
    return checkpoint.has(MARK)


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model; without a label only where it is unconditional."""
    told = checked(options, OPTIONS, "adm")
    missing = [name for name in NEEDED if name not in told]
    if missing:
        remedy = ", ".join(NEEDED[name] for name in missing) + ", or what it was trained with"
        raise InputError(f"the state dict of a guided-diffusion U-Net does not tell {', '.join(missing)}", remedy)
    if told["schedule"] not in BETAS:
        raise unknown("schedule of family adm", str(told["schedule"]), BETAS)
    if told["order"] not in ORDERS:
        raise unknown("order of family adm", str(told["order"]), ORDERS)
    config = shape_of(checkpoint.weights, int(told["head_width"]), told["order"], told.get("size"))
    net = filled(UNet, config, checkpoint.weights)
    schedule = DiscreteSchedule(np.cumprod(1 - BETAS[told["schedule"]]()).tolist())
    shape = config.shape if "size" in told else None
    return NetworkDenoiser(net, schedule, "eps", time="steps", classes=config.classes, shape=shape, name="adm")


def shape_of(weights: Weights, head_width: int, order: str, size: int | None) -> UNetConfig:
    """What names and shapes say.

    An output block ends a level if something follows its residual block and attention; so many levels there are, and so many blocks
    come before the first of them.
    """
    try:
        channels = weights["time_embed.0.weight"].shape[1]
        inputs = weights["input_blocks.0.0.weight"].shape[1]
        doubled = len(weights["out.2.weight"]) == 2 * inputs
        ends = sorted(
            {int(name.split(".")[1]) for name in weights if name.startswith("output_blocks.") and _ends(name, weights)},
        )
        count = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("output_blocks."))
        levels = len(ends) + 1
        blocks = count // levels - 1
        firsts = [1 + level * (blocks + 1) for level in range(levels)]
        outs = [len(weights[f"input_blocks.{first}.0.in_layers.2.weight"]) for first in firsts]
        wide = len(weights[f"input_blocks.{firsts[0]}.0.emb_layers.1.weight"])
    except (KeyError, ValueError) as problem:
        raise InputError(f"the state dict lacks what every guided-diffusion U-Net has ({problem})", "the whole state dict") from problem
    if any(out % channels for out in outs):
        raise InputError(f"levels of {outs} channels are no multiples of the first's {channels}", "my_model.py:build")
    factor = 2 ** (levels - 1)
    if size is not None and int(size) % factor:
        raise InputError(f"size={size} is not divisible by {factor}, the U-Net's last factor", "the size it was trained with")
    return UNetConfig(
        in_channels=inputs,
        size=int(size or factor),
        channels=channels,
        multipliers=tuple(out // channels for out in outs),
        residual_blocks=blocks,
        attention=tuple(2**level for level, first in enumerate(firsts) if f"input_blocks.{first}.1.qkv.weight" in weights),
        middle_attention="middle_block.1.qkv.weight" in weights,
        head_width=head_width,
        classes=len(weights["label_emb.weight"]) if "label_emb.weight" in weights else 0,
        null=False,
        order=order,
        scale_shift=wide == 2 * outs[0],
        updown=any(name.startswith("output_blocks.") and name.split(".")[2] != "0" and ".in_layers." in name for name in weights),
        doubled=doubled,
        time_scale=1.0,
    )


def _ends(name: str, weights: Weights) -> bool:
    """Whether a name belongs to what changes the resolution after an output block: a second residual block, or a convolution."""
    _, _, place, kind, *_ = name.split(".")
    return place != "0" and kind in ("in_layers", "conv")
