"""score_sde_pytorch (Song et al. 2020), continuous: NCSN++ and DDPM++ with BigGAN's residual blocks, as all its CIFAR-10 runs but "ddpm".

Layers are numbered (`all_modules.N`), in the order in which they are run; which kind each one is, is read off the names below it. What is
passed over: levels, attention, and a pyramid of the input (NCSN++, which filters by [1, 3, 3, 1] where it changes the resolution; DDPM++
has neither). `sde` says what the numbers mean:

    vpsde, subvpsde   ε at time 999 t, images in [−1, 1], β from 0.1 to 20
    vesde             score at level σ, images in [0, 1], σ from 0.01 to 50, or as its buffer `sigmas` says

For vesde the network itself turns z into 2z − 1, which is a state of images in [−1, 1] at the level 2σ. So it is asked there, and with
h its answer before the division by σ, x̂ = z + σ h on [0, 1] is x̂ = z + 2σ h on [−1, 1]: ε̂ = −h.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorescope.adapters.families import Checkpoint, Weights, checked, chosen, filled, required, whole
from scorescope.adapters.parts import conv, count, linear, sinusoids, tried
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.schedule import SubVPSchedule, VESchedule, VPSchedule

MARK = "all_modules."
SDES = ("vpsde", "subvpsde", "vesde")
READINGS = tuple({"sde": sde} for sde in SDES)
OPTIONS = {"sde": f"{', '.join(SDES)}: what it was trained for"}
FIR = (0.125, 0.375, 0.375, 0.125)


def belongs(checkpoint: Checkpoint) -> bool | None:
    """By its numbered layers."""
    return checkpoint.has(MARK)


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model, for images in [−1, 1]."""
    told = checked(options, OPTIONS, "score_sde")
    required(told, {"sde": 'sde="vesde", "vpsde" or "subvpsde"'}, "score_sde")
    sde = chosen(told, "sde", SDES, "score_sde")
    weights = {name: value for name, value in checkpoint.weights.items() if name.startswith(MARK)}
    with whole("NCSN++ with BigGAN's blocks"):
        net = filled(NCSNpp, weights, weights)
    assert isinstance(net, NCSNpp)
    tried(net, net.channels, 2**net.levels)
    if (sde == "vesde") != net.fourier:
        features = "Fourier features of log σ, as vesde has them" if net.fourier else "sinusoids of a step, as vpsde and subvpsde have them"
        raise InputError(f"the network embeds time by {features}, which is not {sde}", "the sde that it was trained with")
    if sde == "vesde":
        sigmas = checkpoint.weights.get("sigmas", torch.tensor([50.0, 0.01])).double()
        schedule = VESchedule(2 * float(sigmas.min()), 2 * float(sigmas.max()))
        return NetworkDenoiser(net, schedule, "eps", time="sigma", name="score_sde")
    return NetworkDenoiser(net, SubVPSchedule() if sde == "subvpsde" else VPSchedule(), "eps", time=_label, name="score_sde")


def _label(t: Tensor) -> Tensor:
    return 999 * t


def norm(weights: Weights, name: str) -> nn.GroupNorm:
    """A group for each four channels, 32 at most."""
    channels = len(weights[f"{name}.weight"])
    return nn.GroupNorm(min(channels // 4, 32), channels, eps=1e-6)


def filtered(h: Tensor, change: str) -> Tensor:
    """Half or twice the side after the filter [1, 3, 3, 1]."""
    kernel = torch.tensor(FIR, dtype=h.dtype, device=h.device)
    kernel = torch.outer(kernel, kernel).expand(h.shape[1], 1, 4, 4)
    if change == "down":
        return F.conv2d(h, kernel, stride=2, padding=1, groups=h.shape[1])
    return F.conv_transpose2d(h, 4 * kernel, stride=2, padding=1, groups=h.shape[1])


def resized(h: Tensor, change: str, fir: bool) -> Tensor:
    """Half or twice the side, with the filter, or by averages and repetition."""
    if fir:
        return filtered(h, change)
    return F.avg_pool2d(h, 2) if change == "down" else F.interpolate(h, scale_factor=2.0, mode="nearest")


class _Mixed(nn.Module):
    """The channels at each position, mixed: W (in, out) and b."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.W, self.b = (nn.Parameter(torch.empty(weights[f"{name}.{part}"].shape)) for part in "Wb")

    def forward(self, h: Tensor) -> Tensor:
        return torch.einsum("bchw,cd->bdhw", h, self.W) + self.b[:, None, None]


class _Attention(nn.Module):
    """One head over all positions; (h + answer)/√2."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.GroupNorm_0 = norm(weights, f"{name}.GroupNorm_0")
        self.NIN_0, self.NIN_1, self.NIN_2, self.NIN_3 = (_Mixed(weights, f"{name}.NIN_{k}") for k in range(4))

    def forward(self, h: Tensor) -> Tensor:
        inside = self.GroupNorm_0(h)
        q, k, v = (layer(inside).flatten(2).mT for layer in (self.NIN_0, self.NIN_1, self.NIN_2))
        return (h + self.NIN_3(F.scaled_dot_product_attention(q, k, v).mT.reshape(h.shape))) / math.sqrt(2)


class _Block(nn.Module):
    """A residual block; (h + answer)/√2. `change` of the resolution happens before its first convolution."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.GroupNorm_0, self.GroupNorm_1 = norm(weights, f"{name}.GroupNorm_0"), norm(weights, f"{name}.GroupNorm_1")
        self.Conv_0, self.Conv_1 = conv(weights, f"{name}.Conv_0"), conv(weights, f"{name}.Conv_1")
        self.Dense_0 = linear(weights, f"{name}.Dense_0")
        skips = self.Conv_0.in_channels != self.Conv_0.out_channels or f"{name}.Conv_2.weight" in weights
        self.Conv_2 = conv(weights, f"{name}.Conv_2") if skips else nn.Identity()
        self.change, self.fir = "", False

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        inside = F.silu(self.GroupNorm_0(h))
        if self.change:
            inside, h = (resized(part, self.change, self.fir) for part in (inside, h))
        inside = self.Conv_0(inside) + self.Dense_0(F.silu(embedding))[..., None, None]
        inside = self.Conv_1(F.silu(self.GroupNorm_1(inside)))
        return (self.Conv_2(h) + inside) / math.sqrt(2)


class _Pyramid(nn.Module):
    """Half the side by the filter and a convolution of stride 2, of the input."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.Conv2d_0 = conv(weights, f"{name}.Conv2d_0", stride=2, padding=0)

    def forward(self, h: Tensor) -> Tensor:
        kernel = torch.tensor(FIR, dtype=h.dtype, device=h.device)
        kernel = torch.outer(kernel, kernel).expand(h.shape[1], 1, 4, 4)
        return self.Conv2d_0(F.conv2d(h, kernel, padding=2, groups=h.shape[1]))


class _Fourier(nn.Module):
    """sin and cos of 2π W log σ."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.empty(weights[f"{name}.W"].shape), requires_grad=False)

    def forward(self, sigma: Tensor) -> Tensor:
        angle = 2 * math.pi * sigma.log()[:, None] * self.W
        return torch.cat([angle.sin(), angle.cos()], dim=1)


KINDS = {"W": _Fourier, "NIN_3.W": _Attention, "Conv2d_0.weight": _Pyramid, "Conv_1.weight": _Block}


def layer(weights: Weights, name: str) -> nn.Module:
    """The layer of a number, by the names below it."""
    for part, kind in KINDS.items():
        if f"{name}.{part}" in weights:
            return kind(weights, name)
    dimensions = weights[f"{name}.weight"].ndim
    return norm(weights, name) if dimensions == 1 else linear(weights, name) if dimensions == 2 else conv(weights, name)


class NCSNpp(nn.Module):
    """The network. `forward(z, time)`: z (B, C, H, W), time (B,), 999 t or the level 2σ of images in [−1, 1]; it answers with ε̂."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.all_modules = nn.ModuleList(layer(weights, f"{MARK}{k}") for k in range(count(weights, MARK)))
        self.fourier = isinstance(self.all_modules[0], _Fourier)
        kinds = [type(one) for one in self.all_modules]
        want = [nn.Linear, nn.Linear, nn.Conv2d]
        if kinds[self.fourier : self.fourier + 3] != want or kinds[-2:] != [nn.GroupNorm, nn.Conv2d]:
            raise ValueError("its first or last layers are others")
        self.channels = len(weights[f"{MARK}{len(kinds) - 1}.bias"])
        if not set(kinds[self.fourier + 3 : -2]) <= {_Block, _Attention, _Pyramid}:
            raise ValueError("there are layers of other kinds between its blocks")
        fir = _Pyramid in kinds
        changes = [one for one in self.all_modules if isinstance(one, _Block) and _changes(one)]
        for index, one in enumerate(changes):
            one.change, one.fir = "down" if index < len(changes) / 2 else "up", fir
        self.levels = len(changes) // 2 + 1
        blocks = kinds.count(_Block) - len(changes)  # n on each level down, two between, n + 1 on each level up
        self.depth = (blocks - 2 - self.levels) // (2 * self.levels)
        odd = len(changes) % 2 or blocks != 2 + self.levels * (2 * self.depth + 1) or self.depth < 1
        if odd or (fir and kinds.count(_Pyramid) != self.levels - 1):
            raise ValueError(f"{blocks} blocks, {len(changes)} changes of resolution")

    def forward(self, z: Tensor, time: Tensor) -> Tensor:
        """Evaluate the network; see the class for shapes."""
        modules = list(self.all_modules)
        features = modules.pop(0)(time / 2) if self.fourier else sinusoids(time, modules[0].in_features, last=1)  # type: ignore[arg-type]
        embedding = modules.pop(0)(features)
        embedding = modules.pop(0)(F.silu(embedding))

        def run(h: Tensor) -> Tensor:
            return modules.pop(0)(h, embedding)

        def attended(h: Tensor) -> Tensor:
            return modules.pop(0)(h) if isinstance(modules[0], _Attention) else h

        pyramid, h = z, modules.pop(0)(z)
        kept = [h]
        for level in range(self.levels):
            for _ in range(self.depth):
                kept.append(h := attended(run(h)))
            if level < self.levels - 1:
                h = run(h)
                if isinstance(modules[0], _Pyramid):
                    h = pyramid = (modules.pop(0)(pyramid) + h) / math.sqrt(2)
                kept.append(h)
        h = run(attended(run(h)))
        for level in range(self.levels):
            for _ in range(self.depth + 1):
                h = run(torch.cat([h, kept.pop()], dim=1))
            h = attended(h)
            h = run(h) if level < self.levels - 1 else h
        h = modules[1](F.silu(modules[0](h)))
        return -h if self.fourier else h


def _changes(block: _Block) -> bool:
    """Whether a block changes the resolution: it has a convolution on its skip though its channels stay as many."""
    return isinstance(block.Conv_2, nn.Conv2d) and block.Conv_2.in_channels == block.Conv_2.out_channels
