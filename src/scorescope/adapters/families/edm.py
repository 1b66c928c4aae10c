"""EDM (Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models") and the models that it reads anew.

States are x + σ ε, and the model gives the posterior mean x̂ = c_skip z + c_out F(c_in z, c_noise, class) of the network F (Table 1):

    precond   c_skip          c_out           c_in           c_noise
    edm       s²/(σ² + s²)    σ s/√(σ² + s²)  1/√(σ² + s²)   ln(σ)/4, with s = sigma_data
    ve        1               σ               1              ln(σ/2)
    vp        1               −σ              1/√(σ² + 1)    999 t, with σ² + 1 = exp(19.9 t²/2 + 0.1 t)
    iddpm     1               −σ              1/√(σ² + 1)    999 − j of the nearest of 1,000 levels u_j

Classes are columns of a table, and none is zero: a prediction without class means something where some labels were dropped in training
(`label_dropout`). Labels of augmentations are zero at evaluation, and add nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from scorescope.adapters.families import Checkpoint, Weights, checked, chosen, filled, positive, whole
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.nets.edm import EDMConfig, EDMUNet
from scorescope.schedule import VESchedule

MARK = "map_layer0.weight"
INSIDE = "model."  # where the preconditioning keeps its network
OPTIONS = {
    "precond": "edm, ve, vp or iddpm: how the network was trained, where the file does not say",
    "sigma_data": "standard deviation that edm expects of the data",
    "null": "1 if labels were dropped in training, so that there is a prediction without class",
}
CLASSES = {"EDMPrecond": "edm", "VEPrecond": "ve", "VPPrecond": "vp", "iDDPMPrecond": "iddpm"}  # of the pickled modules


def belongs(checkpoint: Checkpoint) -> bool | None:
    """By the map of its noise label, and by its names of levels."""
    return any(checkpoint.has(inside + MARK, f"{inside}enc.", f"{inside}dec.") for inside in ("", INSIDE))


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model; what its pickle tells of preconditioning and training rows is taken from there."""
    told = checked(options, OPTIONS, "edm")
    own = made_with(checkpoint)
    precond = told.get("precond", CLASSES.get(own.get("class", "")))
    if precond is None:
        held = f"a {own['class']}, which is unknown" if "class" in own else "a network without its preconditioning"
        raise InputError(f"it holds {held}", 'precond="edm" and sigma_data=0.5, or precond="ve", "vp" or "iddpm"')
    precond = chosen({"precond": precond}, "precond", PRECONDS, "edm")
    own |= {"u": tuple(checkpoint.weights["u"].tolist())} if "u" in checkpoint.weights else {}
    own |= {"sigma_data": positive("sigma_data", told["sigma_data"], "sigma_data=0.5, as in EDM")} if "sigma_data" in told else {}
    if precond == "edm" and not own.keys() & {"class", "sigma_data"}:
        raise InputError('precond="edm" does not tell the standard deviation that it expects of the data', "sigma_data=0.5, as in EDM")
    inside = INSIDE if checkpoint.has(INSIDE + MARK) else ""
    weights = {name.removeprefix(inside): value for name, value in checkpoint.weights.items() if name.startswith(inside) and name != "u"}
    weights.pop("map_augment.weight", None)
    config = shape_of(weights)
    scales = PRECONDS[precond](**{field.name: own[field.name] for field in fields(PRECONDS[precond]) if field.name in own})
    wrapper = Preconditioned(filled(EDMUNet, config, weights), scales)
    dropped = bool(told.get("null", own.get("label_dropout", 0)))
    model = NetworkDenoiser(
        wrapper, VESchedule(*scales.levels), "x", time="sigma", classes=config.classes,
        null_label=config.classes if config.classes and dropped else None, shape=config.shape, name="edm",
    )  # fmt: skip
    if isinstance(checkpoint.rest.get("dataset_kwargs"), Mapping):
        model.about = {"dataset_kwargs": dict(checkpoint.rest["dataset_kwargs"])}
    return model


def made_with(checkpoint: Checkpoint) -> dict[str, Any]:
    """{"class": its name, …} of the module that a pickle holds, with what its class was called with; empty where it is a state dict.

    NVlabs' pickles hold the whole module; read without running code it is a record with a `name` and a `state`.
    """
    record = checkpoint.rest.get(checkpoint.part)
    state = getattr(record, "state", None)
    kwargs = state.get("_init_kwargs") if isinstance(state, Mapping) else None
    return {"class": record.name.rpartition(".")[2], **kwargs} if record is not None and isinstance(kwargs, Mapping) else {}


def shape_of(weights: Weights) -> EDMConfig:
    """What names and shapes say."""
    with whole("network of EDM"):
        sides = sorted({int(name[4:].split("x")[0]) for name in weights if name.startswith("enc.")}, reverse=True)
        top, bottom = (f"{side}x{side}" for side in (sides[0], sides[-1]))
        starts = [name.split(".")[1] for name in weights if name.startswith(f"enc.{bottom}_block")]
        embedding, noise = weights[MARK].shape
        adm = "out_conv.weight" in weights
        first, channels = weights[f"enc.{top}_conv.weight"].shape[:2]
        filters = [value.shape[-1] for name, value in weights.items() if name.endswith("resample_filter")]
        return EDMConfig(
            adm=adm,
            channels=channels,
            out=len(weights["out_conv.weight" if adm else f"dec.{top}_aux_conv.weight"]),
            size=sides[0],
            first=first,
            widths=tuple(len(weights[f"enc.{side}x{side}_block0.conv0.weight"]) for side in sides),
            blocks=1 + max(int(name.rpartition("_block")[2]) for name in starts),
            attention=tuple(side for side in sides if f"enc.{side}x{side}_block0.qkv.weight" in weights),
            embedding=embedding,
            noise=noise,
            fourier="map_noise.freqs" in weights,
            residual=any("_aux_residual." in name for name in weights),
            taps=filters[0] if filters else 2,
            classes=weights["map_label.weight"].shape[1] if "map_label.weight" in weights else 0,
        )


class Preconditioned(nn.Module):
    """A network seen as the posterior mean of x + σ ε; `scales` gives c_skip, c_out, c_in and c_noise of σ (B,)."""

    def __init__(self, net: nn.Module, scales: EDM | VE | VP | IDDPM) -> None:
        super().__init__()
        self.net, self.scales = net, scales

    def forward(self, z: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        """x̂ (B, C, H, W)."""
        *scales, noise = self.scales(sigma)
        skip, out, into = (scale.reshape(-1, 1, 1, 1) for scale in scales)
        return skip * z + out * self.net(into * z, noise, label)[:, : z.shape[1]]


Four = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class EDM:
    """EDM's own preconditioning. The parameters of all four are called as in the pickles."""

    sigma_data: float = 0.5

    @property
    def levels(self) -> tuple[float, float]:
        """The least and the largest σ."""
        return 0.002, 80.0

    def __call__(self, sigma: Tensor) -> Four:
        """c_skip, c_out, c_in and c_noise of σ (B,)."""
        total = (sigma**2 + self.sigma_data**2).sqrt()
        return (self.sigma_data / total) ** 2, sigma * self.sigma_data / total, 1 / total, sigma.log() / 4


@dataclass(frozen=True)
class VE:
    """NCSN++ as Song et al. (2021) train it."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    @property
    def levels(self) -> tuple[float, float]:
        """The least and the largest σ."""
        return self.sigma_min, self.sigma_max

    def __call__(self, sigma: Tensor) -> Four:
        """c_skip, c_out, c_in and c_noise of σ (B,)."""
        one = torch.ones_like(sigma)
        return one, sigma, one, (sigma / 2).log()


@dataclass(frozen=True)
class VP:
    """DDPM++ as Song et al. (2021) train it: ε of the state scaled to variance 1."""

    beta_d: float = 19.9
    beta_min: float = 0.1
    M: int = 1000
    epsilon_t: float = 1e-5

    @property
    def levels(self) -> tuple[float, float]:
        """The least and the largest σ."""
        first, last = (math.sqrt(math.expm1(self.beta_d * t**2 / 2 + self.beta_min * t)) for t in (self.epsilon_t, 1.0))
        return first, last

    def __call__(self, sigma: Tensor) -> Four:
        """c_skip, c_out, c_in and c_noise of σ (B,)."""
        t = ((self.beta_min**2 + 2 * self.beta_d * (1 + sigma**2).log()).sqrt() - self.beta_min) / self.beta_d
        return torch.ones_like(sigma), -sigma, 1 / (sigma**2 + 1).sqrt(), (self.M - 1) * t


@dataclass(frozen=True)
class IDDPM:
    """ADM as Nichol & Dhariwal (2021) train it: ε of the state scaled to variance 1, at levels u_0 > … > u_M = 0 (Table 1).

    u_{j−1} = √((u_j² + 1)/max(ᾱ_{j−1}/ᾱ_j, C₁) − 1), with ᾱ_j = sin²(π/2 · j/(M (C₂ + 1))). The file holds them; otherwise they are
    computed in float32, as in its training, whose rounding moves them by up to 5e-4.
    """

    C_1: float = 0.001
    C_2: float = 0.008
    M: int = 1000
    u: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.u:
            return
        bar = ((0.5 * math.pi * torch.arange(self.M + 1) / self.M / (self.C_2 + 1)).sin() ** 2).numpy()
        found = np.zeros(self.M + 1, np.float32)
        for j in range(self.M, 0, -1):
            found[j - 1] = np.sqrt((found[j] ** 2 + np.float32(1)) / max(bar[j - 1] / bar[j], np.float32(self.C_1)) - np.float32(1))
        object.__setattr__(self, "u", tuple(found.tolist()))

    @property
    def levels(self) -> tuple[float, float]:
        """The least and the largest σ."""
        return self.u[-2], self.u[0]

    def __call__(self, sigma: Tensor) -> Four:
        """c_skip, c_out, c_in and c_noise of σ (B,)."""
        nearest = (torch.tensor(self.u, dtype=sigma.dtype, device=sigma.device)[:, None] - sigma).abs().argmin(0)
        return torch.ones_like(sigma), -sigma, 1 / (sigma**2 + 1).sqrt(), (len(self.u) - 2 - nearest).to(sigma.dtype)


PRECONDS = {"edm": EDM, "ve": VE, "vp": VP, "iddpm": IDDPM}
