"""A SiT with what transformers have learned since: LightningDiT (Yao et al. 2025) and JiT (Li & He 2025) are two settings of it.

The network maps a state `z` (B, C, H, W), a time `t` (B,) and a class `label` (B,) to a field of the same shape. What it may have beside
or instead of SiT's parts, with the names of the official codes:

    RMSNorm with weights      blocks.i.{norm1, norm2}.weight, final_layer.norm_final.weight
    norm of queries and keys  blocks.i.attn.{q_norm, k_norm}
    rotary positions          feat_rope.{freqs_cos, freqs_sin} (L, width of a head), beside SiT's `pos_embed`
    SwiGLU                    blocks.i.mlp.{w12, w3}
    no shift                  a third fewer rows of blocks.i.adaLN_modulation.1
    bottleneck                x_embedder.{proj1, proj2}
    tokens of the class       in_context_posemb, before the tokens of the image from one of the blocks on
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorescope.nets.sit import FinalLayer, LabelEmbedder, Mlp, TimestepEmbedder, modulate, sincos_positions, unpatch

EPS = 1e-6  # of every norm but LayerNorm of queries and keys


@dataclass(frozen=True)
class ModernConfig:
    """Shape of the network, and its switches.

    Attributes:
        channels, size, patch, width, depth, heads, classes, doubled: As in `SiTConfig`.
        hidden: Units of a block's perceptron; of each half of it with SwiGLU.
        rows: Of the label table: one for the null label, or none.
        rms: RMSNorm with weights in place of LayerNorm without.
        qk_norm: The norm of queries and keys: "rms", "layer", or "" for none.
        rope: Whether queries and keys are turned by their positions.
        swiglu: Whether the perceptron is gated.
        shift: Whether blocks shift beside scaling.
        bottleneck: Channels between two projections of a patch; 0 for one projection.
        context: Tokens of the class, from block `context_start` on.
    """

    channels: int = 4
    size: int = 32
    patch: int = 2
    width: int = 384
    depth: int = 12
    heads: int = 6
    hidden: int = 1024
    rows: int = 1001
    doubled: bool = False
    rms: bool = True
    qk_norm: str = ""
    rope: bool = True
    swiglu: bool = True
    shift: bool = True
    bottleneck: int = 0
    context: int = 0
    context_start: int = 0

    def __post_init__(self) -> None:
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not divisible by patch {self.patch}")
        if self.width % self.heads or (self.rope and self.width // self.heads % 4):
            raise ValueError(f"width {self.width} makes no {self.heads} heads")
        if self.context and not 0 <= self.context_start < self.depth:
            raise ValueError(f"tokens of the class can't enter at block {self.context_start} of {self.depth}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one state."""
        return (self.channels, self.size, self.size)


def rotations(side: int, head_width: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines (side², head_width) of the angles by which pairs of channels are turned.

    The first half of the channels is turned by the token's row, the second by its column: pair k of a half by row · 10⁴^(−4k/head_width).
    """
    half = head_width // 2
    angle = torch.arange(side).float()[:, None] * 10000 ** (-torch.arange(0, half, 2).float() / half)
    angle = angle.repeat_interleave(2, dim=1)
    both = torch.cat([angle.repeat_interleave(side, dim=0), angle.repeat(side, 1)], dim=1)
    return both.cos(), both.sin()


class Rotary(nn.Module):
    """The tables of `rotations`; `forward` turns queries or keys (B, heads, L, head_width), the last tokens of which are the image's."""

    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, side: int, head_width: int) -> None:
        super().__init__()
        cosines, sines = rotations(side, head_width)
        self.register_buffer("freqs_cos", cosines)
        self.register_buffer("freqs_sin", sines)

    def forward(self, h: Tensor) -> Tensor:
        others = h.shape[2] - len(self.freqs_cos)  # tokens of the class stay as they are
        cosines = F.pad(self.freqs_cos, (0, 0, others, 0), value=1.0)
        sines = F.pad(self.freqs_sin, (0, 0, others, 0))
        first, second = h.unflatten(-1, (-1, 2)).unbind(-1)
        return h * cosines + torch.stack([-second, first], dim=-1).flatten(-2) * sines


def norm(config: ModernConfig) -> nn.Module:
    """Of a token."""
    return nn.RMSNorm(config.width, eps=EPS) if config.rms else nn.LayerNorm(config.width, elementwise_affine=False, eps=EPS)


def head_norm(config: ModernConfig) -> nn.Module:
    """Of the queries or keys of one head."""
    width = config.width // config.heads
    made: dict[str, nn.Module] = {"rms": nn.RMSNorm(width, eps=EPS), "layer": nn.LayerNorm(width), "": nn.Identity()}
    return made[config.qk_norm]


class PatchEmbed(nn.Module):
    """Patches to tokens, (B, C, H, W) → (B, L, width), by one projection or through a bottleneck."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        if config.bottleneck:
            self.proj1 = nn.Conv2d(config.channels, config.bottleneck, config.patch, stride=config.patch, bias=False)
            self.proj2 = nn.Conv2d(config.bottleneck, config.width, 1)
        else:
            self.proj = nn.Conv2d(config.channels, config.width, config.patch, stride=config.patch)
        self.bottleneck = bool(config.bottleneck)

    def forward(self, z: Tensor) -> Tensor:
        h = self.proj2(self.proj1(z)) if self.bottleneck else self.proj(z)
        return h.flatten(2).transpose(1, 2).contiguous()


class Attention(nn.Module):
    """Multi-head self-attention, (B, L, width) → (B, L, width), of normed and turned queries and keys."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.q_norm, self.k_norm = head_norm(config), head_norm(config)
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, h: Tensor, turn: nn.Module) -> Tensor:
        q, k, v = self.qkv(h).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(turn(self.q_norm(q)), turn(self.k_norm(k)), v)
        return self.proj(out.transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    """A perceptron whose hidden units are gated: w3 (SiLU(a) b), with (a, b) = w12 h."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.w12 = nn.Linear(width, 2 * hidden)
        self.w3 = nn.Linear(hidden, width)

    def forward(self, h: Tensor) -> Tensor:
        gate, value = self.w12(h).chunk(2, dim=-1)
        return self.w3(F.silu(gate) * value)


class Block(nn.Module):
    """Attention and perceptron, each normalised, modulated and gated by the condition."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(config), norm(config)
        self.attn = Attention(config)
        self.mlp = SwiGLU(config.width, config.hidden) if config.swiglu else Mlp(config.width, config.hidden)
        self.parts = 6 if config.shift else 4
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.width, self.parts * config.width))

    def forward(self, h: Tensor, condition: Tensor, turn: nn.Module) -> Tensor:
        parts = self.adaLN_modulation(condition).chunk(self.parts, dim=1)
        still = torch.zeros_like(parts[0])
        shift1, scale1, gate1, shift2, scale2, gate2 = parts if self.parts == 6 else (still, *parts[:2], still, *parts[2:])
        h = torch.addcmul(h, gate1.unsqueeze(1), self.attn(modulate(self.norm1(h), shift1, scale1), turn))
        return torch.addcmul(h, gate2.unsqueeze(1), self.mlp(modulate(self.norm2(h), shift2, scale2)))


class ModernSiT(nn.Module):
    """The network. `forward(z, t, label)`: z (B, C, H, W); t (B,) in [0, 1]; label (B,), a row of the label table → (B, C, H, W)."""

    def __init__(self, config: ModernConfig) -> None:
        super().__init__()
        self.config = config
        side = config.size // config.patch
        self.x_embedder = PatchEmbed(config)
        self.t_embedder = TimestepEmbedder(config.width)
        self.y_embedder = LabelEmbedder(config.rows - 1, config.width)
        self.pos_embed = nn.Parameter(sincos_positions(side, config.width).unsqueeze(0), requires_grad=False)
        self.feat_rope = Rotary(side, config.width // config.heads) if config.rope else nn.Identity()
        self.in_context_posemb = nn.Parameter(torch.empty(1, config.context, config.width)) if config.context else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        outputs = config.patch**2 * config.channels * (1 + config.doubled)
        self.final_layer = FinalLayer(config.width, outputs, norm(config))
        if self.in_context_posemb is not None:
            nn.init.normal_(self.in_context_posemb, std=1 / math.sqrt(config.width))

    @property
    def stages(self) -> list[nn.Module]:
        """The blocks in order; the output (B, L, width) of each is a hidden state."""
        return list(self.blocks)

    def forward(self, z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Evaluate the network; see the class for shapes."""
        config = self.config
        tag = self.y_embedder(label)
        condition = self.t_embedder(t) + tag
        h = self.x_embedder(z) + self.pos_embed
        for index, block in enumerate(self.blocks):
            if self.in_context_posemb is not None and index == config.context_start:
                h = torch.cat([tag.unsqueeze(1) + self.in_context_posemb, h], dim=1)
            h = block(h, condition, self.feat_rope)
        return unpatch(self.final_layer(h[:, config.context :], condition), config.size, config.patch, config.channels)


CONFIG, NETWORK = ModernConfig, ModernSiT
