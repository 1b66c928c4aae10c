"""Unconditional latent diffusion (Rombach et al. 2022, CompVis): ADM's U-Net as `model.diffusion_model.…`, its β among the buffers.

It predicts ε, or x where `parameterization` said so, of latents as its autoencoder scales them: the bank's rows are those. Its EMA has the
same names without dots (`model_ema.diffusion_modelinput_blocks00weight`) and is taken where it is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scorescope.adapters.families import Checkpoint, Weights, adm, checked, chosen, required
from scorescope.adapters.families.adm import SHAPE, asked, network
from scorescope.adapters.parts import trained_schedule
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError

MARK = "model.diffusion_model.input_blocks.0.0.weight"
INSIDE = ("model.diffusion_model.", "diffusion_model.")
OPTIONS = SHAPE | {"predict": "eps (as usual), or x (parameterization: x0)"}


def belongs(checkpoint: Checkpoint) -> bool | None:
    """By where the U-Net lies."""
    return any(checkpoint.has(f"{prefix}{adm.MARK}") for prefix in INSIDE) or (checkpoint.has(adm.MARK) and adm.is_part(checkpoint))


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model of latents."""
    told = checked(options, OPTIONS, "ldm")
    weights, buffers = unet(checkpoint.weights), {**checkpoint.rest, **checkpoint.weights}
    if any(".transformer_blocks." in name for name in weights):
        raise InputError("its network is conditioned by cross-attention, on a text or an embedded class", "its diffusers folder")
    if "betas" not in buffers:
        raise InputError("the state dict of a latent diffusion lacks its betas", "the whole state dict")
    required(told, asked(weights, told), "a latent diffusion")
    predict = chosen(told, "predict", ("eps", "x"), "ldm", "eps")
    net = network(weights, told)
    shape = net.config.shape if "size" in told else None
    return NetworkDenoiser(net, trained_schedule(buffers), predict, time="steps", classes=0, shape=shape, name="ldm")


def unet(weights: Weights) -> Weights:
    """The U-Net's own weights: their moving average, where the file has it."""
    prefix = next((prefix for prefix in INSIDE if any(name.startswith(prefix) for name in weights)), "")
    own = {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}
    averages = {name: weights.get("model_ema.diffusion_model" + name.replace(".", "")) for name in own}
    return {name: value if (average := averages[name]) is None else average for name, value in own.items()}
