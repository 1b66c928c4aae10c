"""EDM2 (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models"): EDM's preconditioning, another network.

Its states are those of images in [−1, 1], or of SD-VAE latents that were whitened channel by channel: (latent − mean) · 0.5/std, with the
scale and bias that its pickles keep as `encoder`. As in EDM a prediction without class means something where labels were dropped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from scorescope.adapters.families import Checkpoint, Weights, checked, counted, filled, positive, whole
from scorescope.adapters.families.edm import EDM, Preconditioned, made_with
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.nets.edm2 import EDM2Config, EDM2UNet
from scorescope.schedule import VESchedule

MARK = "emb_fourier.freqs"
INSIDE = "unet."  # where the preconditioning keeps its network
OPTIONS = {
    "sigma_data": "standard deviation that it expects of the data, where the file does not say",
    "head_width": "channels of an attention head, where they are not 64",
    "null": "1 if labels were dropped in training, so that there is a prediction without class",
}
TOLD = {"label_balance": "label_balance", "concat_balance": "concat_balance", "res_balance": "res_balance", "attn_balance": "attn_balance"}
TOLD |= {"channels_per_head": "head", "clip_act": "clip"}  # arguments of the pickled module that shapes do not tell


def belongs(checkpoint: Checkpoint) -> bool | None:
    """By the features of its noise label, and by its gains."""
    return any(checkpoint.has(inside + MARK, f"{inside}out_gain", f"{inside}enc.") for inside in ("", INSIDE))


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model; what its pickle tells of preconditioning, latents and training rows is taken from there."""
    told = checked(options, OPTIONS, "edm2")
    own = made_with(checkpoint)
    sigma_data = told.get("sigma_data", own.get("sigma_data", EDM.sigma_data if own.get("class") == "Precond" else None))
    if sigma_data is None:
        raise InputError("the state dict of EDM2 does not tell the standard deviation that it expects of the data", "sigma_data=0.5")
    if list(own.get("resample_filter", (1, 1))) != [1, 1]:
        raise InputError(f"it was made with resample_filter={own['resample_filter']}, which is not known here", "my_model.py:build")
    inside = INSIDE if checkpoint.has(INSIDE + MARK) else ""
    weights = {name.removeprefix(inside): value for name, value in checkpoint.weights.items() if name.startswith(inside)}
    own |= {"channels_per_head": counted(told, "head_width")} if "head_width" in told else {}
    config = shape_of(weights, own)
    net, scales = filled(EDM2UNet, config, weights), EDM(positive("sigma_data", sigma_data, "sigma_data=0.5"))
    dropped = bool(told.get("null", 0)) and config.classes
    model = NetworkDenoiser(
        Preconditioned(net, scales), VESchedule(*scales.levels), "x", time="sigma", classes=config.classes,
        null_label=config.classes if dropped else None, shape=config.shape, name="edm2",
    )  # fmt: skip
    model.about = {name: value for name, value in told_of_data(checkpoint.rest).items() if value}
    return model


def told_of_data(rest: Mapping[str, Any]) -> dict[str, Any]:
    """The training rows, and how raw latents became the states' (latent · scale + bias), as the pickle says."""
    dataset, encoder = rest.get("dataset_kwargs"), rest.get("encoder")
    state = getattr(encoder, "state", None)
    held = {name: plain(value) for name, value in state.items() if not str(name).startswith("_")} if isinstance(state, Mapping) else {}
    named = {"class": encoder.name.rpartition(".")[2]} if encoder is not None and hasattr(encoder, "name") else {}
    return {"dataset_kwargs": dict(dataset) if isinstance(dataset, Mapping) else None, "encoder": named | held}


def plain(value: Any) -> Any:
    """Arrays as lists."""
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def shape_of(weights: Weights, told: Mapping[str, Any]) -> EDM2Config:
    """What names and shapes say, and what the module was made with."""
    made: dict[str, Any] = {TOLD[name]: math.inf if value is None else value for name, value in told.items() if name in TOLD}
    with whole("network of EDM2"):
        sides = sorted({int(name[4:].split("x")[0]) for name in weights if name.startswith("enc.")}, reverse=True)
        bottom = f"enc.{sides[-1]}x{sides[-1]}_block"
        embedding, noise = weights["emb_noise.weight"].shape
        return EDM2Config(
            channels=len(weights["out_conv.weight"]),
            size=sides[0],
            widths=tuple(len(weights[f"enc.{side}x{side}_block0.conv_res1.weight"]) for side in sides),
            blocks=1 + max(int(name[len(bottom) :].split(".")[0]) for name in weights if name.startswith(bottom)),
            attention=tuple(side for side in sides if f"enc.{side}x{side}_block0.attn_qkv.weight" in weights),
            embedding=embedding,
            noise=noise,
            classes=weights["emb_label.weight"].shape[1] if "emb_label.weight" in weights else 0,
            **made,
        )
