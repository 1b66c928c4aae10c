"""pytorch-ddpm (w86763777), the base of SecMI, SimA and CDI: DDPM's U-Net, ε at 1,000 steps of linear β.

    time_embedding.timembedding.{0,1,3}, head, downblocks.i, middleblocks.{0,1}, upblocks.i, tail.{0,2};
    a residual block: block1.{0,2}, temb_proj.1, block2.{0,3}, shortcut, attn.{group_norm, proj_q, proj_k, proj_v, proj}

What every block is, is read off its names. The embedding of time is a table of sinusoids, a row for each step; it is computed here, so
that a step may lie between two of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorescope.adapters.families import Checkpoint, Weights, checked, filled, whole
from scorescope.adapters.parts import conv, count, linear, tried
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.schedule import DiscreteSchedule

MARK = "time_embedding.timembedding.1.weight"
OPTIONS: dict[str, str] = {}


def belongs(checkpoint: Checkpoint) -> bool | None:
    """By the embedding of time and the blocks."""
    return checkpoint.has(MARK, "downblocks.", "tail.")


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model; of the steps there are as many as rows of the table."""
    checked(options, OPTIONS, "ddpm")
    with whole("pytorch-ddpm U-Net"):
        steps = len(checkpoint.weights["time_embedding.timembedding.0.weight"])
        net = filled(UNet, checkpoint.weights, checkpoint.weights)
    assert isinstance(net, UNet)
    tried(net, *net.smallest)
    schedule = DiscreteSchedule(np.cumprod(1 - np.linspace(1e-4, 0.02, steps)).tolist())
    return NetworkDenoiser(net, schedule, "eps", time="steps", name="ddpm")


class _TimeEmbedding(nn.Module):
    """Pairs of sin(k ω_i), cos(k ω_i) with ω_i = 10⁻⁴ⁱ/ʰ for i < h, then a perceptron."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        name = "time_embedding.timembedding"
        rows, self.width = weights[f"{name}.0.weight"].shape
        table = nn.Embedding(rows, self.width)
        table.weight.requires_grad_(False)
        self.timembedding = nn.Sequential(table, linear(weights, f"{name}.1"), nn.SiLU(), linear(weights, f"{name}.3"))

    def forward(self, step: Tensor) -> Tensor:
        omega = torch.exp(-math.log(10000) * torch.arange(0, self.width, 2, dtype=torch.float32, device=step.device) / self.width)
        angle = step.float()[:, None] * omega
        return self.timembedding[1:](torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1))


class _Attention(nn.Module):
    """One head over all positions, with a skip."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()
        self.group_norm = nn.GroupNorm(32, len(weights[f"{name}.group_norm.weight"]))
        self.proj_q, self.proj_k, self.proj_v, self.proj = (
            conv(weights, f"{name}.{part}") for part in ("proj_q", "proj_k", "proj_v", "proj")
        )

    def forward(self, h: Tensor) -> Tensor:
        inside = self.group_norm(h)
        q, k, v = (layer(inside).flatten(2).mT for layer in (self.proj_q, self.proj_k, self.proj_v))
        return h + self.proj(F.scaled_dot_product_attention(q, k, v).mT.reshape(h.shape))


class _Block(nn.Module):
    """Two convolutions about the embedding, a skip, and attention where it has some."""

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__()

        def convolved(part: str, last: int) -> nn.Sequential:
            idle = [nn.Identity()] * (last - 2)  # dropout's place
            return nn.Sequential(nn.GroupNorm(32, len(weights[f"{part}.0.weight"])), nn.SiLU(), *idle, conv(weights, f"{part}.{last}"))

        self.block1, self.block2 = convolved(f"{name}.block1", 2), convolved(f"{name}.block2", 3)
        self.temb_proj = nn.Sequential(nn.SiLU(), linear(weights, f"{name}.temb_proj.1"))
        first = self.block1[-1]
        self.shortcut = nn.Identity() if first.in_channels == first.out_channels else conv(weights, f"{name}.shortcut")
        self.attn = _Attention(weights, f"{name}.attn") if f"{name}.attn.proj.weight" in weights else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        inside = self.block2(self.block1(h) + self.temb_proj(embedding)[..., None, None])
        return self.attn(inside + self.shortcut(h))


class _Resample(nn.Module):
    """Half the side by a convolution of stride 2, or twice the side by repetition and a convolution."""

    def __init__(self, weights: Weights, name: str, up: bool) -> None:
        super().__init__()
        self.up, self.main = up, conv(weights, f"{name}.main", stride=1 if up else 2)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return self.main(F.interpolate(h, scale_factor=2.0, mode="nearest") if self.up else h)


class UNet(nn.Module):
    """The network. `forward(z, step)`: z (B, C, H, W), step (B,)."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()

        def blocks(name: str, up: bool = False) -> nn.ModuleList:
            found = [f"{name}.{k}" for k in range(count(weights, f"{name}."))]
            return nn.ModuleList(_Resample(weights, k, up) if f"{k}.main.weight" in weights else _Block(weights, k) for k in found)

        self.time_embedding = _TimeEmbedding(weights)
        self.head = conv(weights, "head")
        self.downblocks, self.middleblocks, self.upblocks = blocks("downblocks"), blocks("middleblocks"), blocks("upblocks", up=True)
        if sum(isinstance(layer, _Block) for layer in self.upblocks) != len(self.downblocks) + 1:
            raise ValueError(f"{len(self.downblocks)} downblocks do not go with {len(self.upblocks)} upblocks")
        self.smallest = (self.head.in_channels, 2 ** (1 + sum(isinstance(layer, _Resample) for layer in self.downblocks)))
        self.tail = nn.Sequential(nn.GroupNorm(32, len(weights["tail.0.weight"])), nn.SiLU(), conv(weights, "tail.2"))

    def forward(self, z: Tensor, step: Tensor) -> Tensor:
        """Evaluate the network; see the class for shapes."""
        embedding = self.time_embedding(step)
        h = self.head(z)
        kept = [h]
        for layer in self.downblocks:
            h = layer(h, embedding)
            kept.append(h)
        for layer in self.middleblocks:
            h = layer(h, embedding)
        for layer in self.upblocks:
            h = layer(h if isinstance(layer, _Resample) else torch.cat([h, kept.pop()], dim=1), embedding)
        return self.tail(h)
