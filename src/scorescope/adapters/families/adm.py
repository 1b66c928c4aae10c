"""ADM (Dhariwal & Nichol 2021), and who else trains its U-Net under its names: guided- and improved-diffusion, OpenAI's EDM, torchcfm,
Meta's flow matching.

Levels, blocks, attention, classes and a doubled output are read off names and shapes. Not in them are the process, the width or number of
heads, and the order of `qkv`'s channels (`--use_new_attention_order`). `process` says what the numbers mean:

    ddpm    ε, or x, at n discrete steps of linear or cosine β; guided-diffusion, improved-diffusion
    cfm     v = x − ε, t from noise (0) to data (1), z = t x + (1 − t) ε; torchcfm's "icfm" and "fm", Meta's flow matching
    otcfm   the same for pairs (x, ε) that an optimal transport of each batch has chosen: its target is not E[x | z]
    si      dz/dt of z = sin(πt/2) x + cos(πt/2) ε, t likewise; torchcfm's "si"
    edm     F of x̂ = s²/(s² + σ²) z + s σ/√(s² + σ²) F(z/√(s² + σ²), 250 ln σ) with s = 0.5; edm_* of OpenAI's consistency models
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scorescope.adapters.families import Checkpoint, Weights, checked, chosen, counted, filled, required, whole
from scorescope.adapters.parts import Velocity
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.nets.unet import ORDERS, AttentionBlock, UNet, UNetConfig
from scorescope.schedule import CosineSchedule, DiscreteSchedule, LinearSchedule, VESchedule

MARK = "input_blocks.0.0.weight"
PROCESSES = ("ddpm", "cfm", "otcfm", "si", "edm")
SHAPE = {
    "head_width": "channels of an attention head (num_head_channels)",
    "heads": "attention heads, where not their width but their number was given (num_heads)",
    "order": "new or legacy: how the channels of qkv lie",
    "size": "side of the images, where it shall be fixed",
}
OPTIONS = {"process": f"{', '.join(PROCESSES)}: what it was trained for"} | SHAPE
OF_STEPS = {
    "schedule": "linear or cosine: the betas it was trained with",
    "steps": "their number, 1000 as usual",
    "rescale": "1 if the network is given 1000 k/steps for step k (rescale_timesteps), 0 if it is given k",
    "predict": "eps (as usual), or x (predict_xstart)",
}
OPTIONS |= OF_STEPS
READINGS = (
    {"process": "ddpm", "schedule": "linear"},
    {"process": "ddpm", "schedule": "cosine"},
    *({"process": p} for p in ("cfm", "si", "edm")),
)
SAMPLES_ONLY = "it was trained on pairs of rows and noise chosen by optimal transport, so that its target is not E[x | z]"


def linear_betas(steps: int = 1000) -> np.ndarray:
    """β from 1e-4 to 0.02 for 1,000 steps, and 1000/n times that for n."""
    return np.linspace(0.1 / steps, 20 / steps, steps)


def cosine_betas(steps: int = 1000) -> np.ndarray:
    """β of ᾱ(u) = cos²(π/2 · (u + 0.008)/1.008), at most 0.999."""
    bar = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * math.pi / 2) ** 2
    return np.minimum(1 - bar[1:] / bar[:-1], 0.999)


BETAS = {"linear": linear_betas, "cosine": cosine_betas}


def discrete(betas: str, steps: int = 1000) -> DiscreteSchedule:
    """The schedule of these β."""
    return DiscreteSchedule(np.cumprod(1 - BETAS[betas](steps)).tolist())


def belongs(checkpoint: Checkpoint) -> bool | None:
    """By its first convolution."""
    return checkpoint.has(MARK) and not is_part(checkpoint)


def is_part(checkpoint: Checkpoint) -> bool:
    """Whether the network is one of a latent diffusion, whose buffers were beside it in the state dict."""
    return isinstance(checkpoint.rest.get("betas"), Tensor)


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model; without a label only where it is unconditional, or has a row of zeros for it."""
    told = checked(options, OPTIONS, "adm")
    choices = {"process": 'process="ddpm" with schedule="linear" or "cosine", or process="cfm", "otcfm", "si" or "edm"'}
    steps = {"schedule": 'schedule="linear"'} if told.get("process") == "ddpm" else {}
    required(told, choices | asked(checkpoint.weights, told) | steps, "a guided-diffusion U-Net")
    process = chosen(told, "process", PROCESSES, "adm")
    wrong = [name for name in OF_STEPS if name in told and process != "ddpm"]
    if wrong:
        raise InputError(f"{wrong[0]} belongs to process ddpm, not to {process}", f'process="ddpm", or no {wrong[0]}')
    net = network(checkpoint.weights, told)
    classes = net.config.classes
    fixed: dict[str, Any] = {"classes": classes, "null_label": classes if net.config.null else None, "name": "adm"}
    fixed |= {"shape": net.config.shape if "size" in told else None}
    if process == "ddpm":
        return of_steps(net, told, fixed)
    if process == "edm":
        return NetworkDenoiser(EDM(net), VESchedule(0.002, 80.0), "x", time="sigma", **fixed)
    schedule = CosineSchedule(0.0) if process == "si" else LinearSchedule()
    model = NetworkDenoiser(Velocity(net, schedule, backwards=True), schedule, "v", **fixed)
    if process == "otcfm":
        model.about = {"samples_only": SAMPLES_ONLY}
    return model


def of_steps(net: nn.Module, told: Mapping[str, Any], fixed: Mapping[str, Any]) -> Denoiser:
    """Process ddpm."""
    steps = counted(told, "steps", 1000)
    if steps != 1000:
        required(told, {"rescale": "rescale=1, as improved-diffusion does"}, f"{steps} steps")
    betas = chosen(told, "schedule", BETAS, "adm")
    predict = chosen(told, "predict", ("eps", "x"), "adm", "eps")
    time = functools.partial(rescaled, steps) if chosen(told, "rescale", ("0", "1"), "adm", "0") == "1" else "steps"
    return NetworkDenoiser(net, discrete(betas, steps), predict, time=time, **fixed)


def rescaled(steps: int, t: Tensor) -> Tensor:
    """The step at time t, counted as if there were 1,000 of them."""
    return (t * steps - 1).clamp(min=0) * (1000 / steps)


class EDM(nn.Module):
    """The preconditioning of Karras et al. (2022, Table 1), with times a thousand times theirs: c_noise = 1000/4 · ln σ."""

    def __init__(self, net: nn.Module, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.net, self.sigma_data = net, sigma_data

    def forward(self, z: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """x̂ (B, *shape) of z = x + σ ε."""
        wide = sigma.reshape(-1, *[1] * (z.ndim - 1))
        total = (wide**2 + self.sigma_data**2).sqrt()
        answer = self.net(z / total, 250 * sigma.log(), label)
        return (self.sigma_data / total) ** 2 * z + self.sigma_data * wide / total * answer


# ---- the network --------------------------------------------------------------------------------------------------------------


def asked(weights: Weights, told: Mapping[str, Any]) -> dict[str, str]:
    """What a network with attention must be told, with an example each; OpenAI's EDM (two-dimensional kernels) has the new order."""
    kernels = [value.ndim for name, value in weights.items() if name.endswith(".qkv.weight")]
    heads = {"head_width": "head_width=64 or heads=4"} if kernels and "heads" not in told else {}
    return heads | ({"order": 'order="legacy"'} if kernels and max(kernels) < 4 else {})


def network(weights: Weights, told: Mapping[str, Any]) -> UNet:
    """The network of a state dict with ADM's names, given what `asked` for."""
    order = chosen(told, "order", ORDERS, "adm", "new")
    width, heads = counted(told, "head_width"), counted(told, "heads")
    if width and heads:
        raise InputError("head_width and heads are two ways to say one thing, and both are given", "the one that it was trained with")
    size = counted(told, "size") or None
    weights = {name: value[..., 0] if value.ndim == 4 and _attends(name) else value for name, value in weights.items()}
    with whole("guided-diffusion U-Net"):
        weights = resampled(weights)
    config = shape_of(weights, width or 1, order, size)  # a width of 1 where the number of heads is set below
    table = weights.get("label_emb.weight")
    if table is not None and not table[-1].any():  # Meta's `padding_idx`: no training moves it from zero
        config = replace(config, classes=len(table) - 1, null=True)
    net = filled(UNet, config, weights)
    assert isinstance(net, UNet)
    for block in net.modules():
        if isinstance(block, AttentionBlock):
            channels = block.qkv.in_channels
            if channels % (width or heads):
                said = f"head_width={width}" if width else f"heads={heads}"
                raise InputError(f"{said} does not divide the {channels} channels of an attention", "the number it was trained with")
            block.heads = heads or channels // width
    return net


def _attends(name: str) -> bool:
    return name.endswith((".qkv.weight", ".proj_out.weight"))


def resampled(weights: Weights) -> Weights:
    """The weights, with convolutions that do nothing where the resolution changes without one (`conv_resample=False`).

    Such a place has no names. Averages of 2×2 are a convolution of stride 2; after a repetition stands the identity.
    """
    used = {int(name.split(".")[1]) for name in weights if name.startswith("input_blocks.")}
    ends = [k for k in range(max(used, default=0)) if k not in used]
    if not ends:
        return weights
    found, mean, same = dict(weights), torch.zeros(3, 3), torch.zeros(3, 3)
    mean[1:, 1:], same[1, 1] = 0.25, 1.0

    def each(name: str, channels: int, kernel: Tensor) -> None:
        found[f"{name}.weight"] = torch.diag_embed(kernel[..., None].expand(3, 3, channels)).permute(2, 3, 0, 1).contiguous()
        found[f"{name}.bias"] = torch.zeros(channels)

    blocks = ends[0] - 1  # on each level, after the first convolution
    for level, end in enumerate(ends):
        each(f"input_blocks.{end}.0.op", len(weights[f"input_blocks.{end - 1}.0.in_layers.2.weight"]), mean)
        last = (level + 1) * (blocks + 1) - 1
        place = 2 if f"output_blocks.{last}.1.qkv.weight" in weights else 1
        each(f"output_blocks.{last}.{place}.conv", len(weights[f"output_blocks.{last}.0.in_layers.2.weight"]), same)
    return found


def shape_of(weights: Weights, head_width: int, order: str, size: int | None) -> UNetConfig:
    """What names and shapes say.

    An output block ends a level if something follows its residual block and attention; so many levels there are, and so many blocks
    come before the first of them.
    """
    with whole("guided-diffusion U-Net"):
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
