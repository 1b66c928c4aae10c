"""JiT (Li & He 2025) as its authors publish it: it predicts x̂ of pixels in [−1, 1]; time runs from noise (0) to data (1).

Its states are τ x + (1 − τ) s ε, with a noise scale s of 1 for images of side 256 and 2 for 512. A state z = α x + σ ε of the paper's
axis is one of those times (s α + σ)/s, at τ = s α/(s α + σ); with s = 1 it is one as it stands.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scorescope.adapters.families import Checkpoint, Weights, checked, counted, filled, positive, whole
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.nets.modern import ModernConfig, ModernSiT, rotations

MARK = "x_embedder.proj1.weight"
OPTIONS = {
    "noise_scale": "what noise was multiplied by in its training (--noise_scale), where the file does not hold its arguments",
    "context_start": "block from which on the class's tokens are there, for sizes other than B, L and H",
}
INSIDE = "net."  # where the code's own denoiser keeps the network
STARTS = {(768, 12): 4, (1024, 24): 8, (1280, 32): 10}  # context_start of B, L, H by width and depth


def belongs(checkpoint: Checkpoint) -> bool | None:
    """By the two projections of a patch."""
    return checkpoint.has(MARK) or checkpoint.has(INSIDE + MARK)


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model on the paper's axis."""
    told = checked(options, OPTIONS, "jit")
    weights = {name.removeprefix(INSIDE): value for name, value in checkpoint.weights.items()}
    scale = told.get("noise_scale", argument(checkpoint.rest, "noise_scale"))
    if scale is None:
        raise InputError("the state dict of a JiT does not tell its noise scale", "noise_scale=1.0, or 2.0 for images of side 512")
    scale = positive("noise_scale", scale, "noise_scale=1.0, or 2.0 for images of side 512")
    config = shape_of(weights, counted(told, "context_start") if "context_start" in told else None)
    cosines, sines = rotations(config.size // config.patch, config.width // config.heads)  # which its code computes and does not keep
    net = filled(ModernSiT, config, {"feat_rope.freqs_cos": cosines, "feat_rope.freqs_sin": sines} | weights)
    classes = config.rows - 1
    inside = NoiseScaled(net, scale)
    return NetworkDenoiser(inside, prediction="x", classes=classes, null_label=classes, shape=config.shape, name="jit")


def argument(rest: Mapping[str, Any], name: str) -> Any:
    """One of the training's arguments, where the file holds them."""
    args = rest.get("args")
    return (args if isinstance(args, Mapping) else getattr(args, "__dict__", {})).get(name)


def shape_of(weights: Weights, context_start: int | None) -> ModernConfig:
    """What names and shapes say; where the class's tokens enter is told by the size."""
    with whole("JiT"):
        bottleneck, channels, patch, _ = weights["x_embedder.proj1.weight"].shape
        width = len(weights["x_embedder.proj2.weight"])
        side = math.isqrt(weights["pos_embed"].shape[1])
        depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        heads = width // len(weights["blocks.0.attn.q_norm.weight"])
        hidden = weights["blocks.0.mlp.w3.weight"].shape[1]
        rows = len(weights["y_embedder.embedding_table.weight"])
        context = weights["in_context_posemb"].shape[1] if "in_context_posemb" in weights else 0
    start = STARTS.get((width, depth)) if context_start is None else context_start
    if context and start is None:
        raise InputError(
            f"a JiT of width {width} and depth {depth} does not tell where the class's tokens enter", "context_start=4, as in its code"
        )
    if context and not 0 <= int(start or 0) < depth:
        raise InputError(f"context_start={start} is none of the {depth} blocks", "context_start=4, as in its code")
    return ModernConfig(
        channels, side * patch, patch, width, depth, heads, hidden, rows,
        qk_norm="rms", bottleneck=bottleneck, context=context, context_start=start or 0,
    )  # fmt: skip


class NoiseScaled(nn.Module):
    """A network of states τ x + (1 − τ) s ε, asked about states (1 − t) x + t ε."""

    def __init__(self, net: nn.Module, scale: float) -> None:
        super().__init__()
        self.net, self.scale = net, scale

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """x̂ of the state."""
        total = self.scale * (torch.ones_like(t) - t) + t
        return self.net(z * (self.scale / total).view(-1, *[1] * (z.ndim - 1)), self.scale * (torch.ones_like(t) - t) / total, label)
