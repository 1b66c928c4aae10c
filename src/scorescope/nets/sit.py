"""SiT: a diffusion transformer with adaLN-zero conditioning (Peebles & Xie 2023; Ma et al. 2024).

The network maps a state `z` (B, C, H, W), a time `t` (B,) and a class `label` (B,) to a field of the same shape as `z`.
It does not know what it predicts: that belongs to the `Denoiser` around it. Parameter names are those of the official
code, so that state dicts load by name:

    pos_embed, x_embedder.proj, t_embedder.mlp.{0,2}, y_embedder.embedding_table,
    blocks.i.{attn.qkv, attn.proj, mlp.fc1, mlp.fc2, adaLN_modulation.1}, final_layer.{linear, adaLN_modulation.1}
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorescope.errors import InputError
from scorescope.nets import DEEPEST, check, square


@dataclass(frozen=True)
class SiTSize:
    """What a recipe chooses of a SiT; the rows and classes of the bank give the rest.

    Attributes:
        width: Of a token.
        depth: Number of blocks.
        heads: Attention heads; they divide the width.
        patch: Side of a patch in pixels (or latent cells); it divides the side of the rows.
        mlp_ratio: Hidden width of a block's MLP over the width of a token.
    """

    width: int = 384
    depth: int = 12
    heads: int = 6
    patch: int = 2
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "patch"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)} is not a positive number", f"--{name} 1 or more")
        if self.width % self.heads or self.width % 4:
            raise InputError(f"width {self.width} must be divisible by heads {self.heads} and by 4", "another --width or --heads")
        if not 1 <= self.mlp_ratio * self.width < math.inf:
            raise InputError(f"--mlp-ratio {self.mlp_ratio:g} is no ratio that leaves hidden units", "--mlp-ratio 4")

    def on(self, shape: tuple[int, ...], classes: int) -> SiTConfig:
        """The SiT for rows of `shape`.

        Raises:
            InputError: Rows that are not square images or latents (C, H, H), or a side that the patch does not divide.
        """
        square(shape, "a SiT")
        if shape[1] % self.patch:
            raise InputError(f"images of side {shape[1]} are not divisible by patch {self.patch}", "--patch with a divisor of the side")
        return SiTConfig(shape[0], shape[1], self.patch, self.width, self.depth, self.heads, classes, self.mlp_ratio)


@dataclass(frozen=True)
class SiTConfig:
    """Shape of a SiT. `classes = 0` makes it unconditional; otherwise row `classes` of the label table is the null label.

    `doubled`: the last layer has a second half (a variance, in the official code), which `forward` drops.
    """

    channels: int = 4
    size: int = 32
    patch: int = 2
    width: int = 384
    depth: int = 12
    heads: int = 6
    classes: int = 1000
    mlp_ratio: float = 4.0
    doubled: bool = False

    def __post_init__(self) -> None:
        check(self, depth=DEEPEST)
        if self.size % self.patch:
            raise ValueError(f"size {self.size} is not divisible by patch {self.patch}")
        if self.width % self.heads or self.width % 4:
            raise ValueError(f"width {self.width} is not divisible by heads {self.heads} and by 4")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one state."""
        return (self.channels, self.size, self.size)


def sincos_positions(side: int, width: int) -> Tensor:
    """Fixed two-dimensional sine-cosine position table, (side², width): half of the width for columns, half for rows."""

    def one_axis(position: Tensor, size: int) -> Tensor:
        omega = 1.0 / 10000 ** (torch.arange(size // 2, dtype=torch.float64) / (size / 2.0))
        angle = position.reshape(-1, 1) * omega
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    rows, columns = torch.meshgrid(torch.arange(side, dtype=torch.float64), torch.arange(side, dtype=torch.float64), indexing="ij")
    return torch.cat([one_axis(columns, width // 2), one_axis(rows, width // 2)], dim=1).float()


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens: (B, C, H, W) → (B, H·W/patch², width)."""

    def __init__(self, config: SiTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.channels, config.width, config.patch, stride=config.patch)

    def forward(self, z: Tensor) -> Tensor:
        # Contiguous, or every sum after it would keep the layout of images, in which layers copy before they compute.
        return self.proj(z).flatten(2).transpose(1, 2).contiguous()


class TimestepEmbedder(nn.Module):
    """Sinusoids of t (cosines first, periods up to 10⁴), then a two-layer MLP. `t` enters as it is, in [0, 1]."""

    frequencies = 256

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(self.frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        half = self.frequencies // 2
        omega = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
        angle = t.float()[:, None] * omega
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=1))


class LabelEmbedder(nn.Module):
    """A row for each class, and the null label as the last row."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, label: Tensor) -> Tensor:
        return self.embedding_table(label)


class Attention(nn.Module):
    """Multi-head self-attention, (B, L, width) → (B, L, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, h: Tensor) -> Tensor:
        batch, length, width = h.shape
        q, k, v = self.qkv(h).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    """The transformer's two-layer perceptron with tanh-approximated GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, h: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(h), approximate="tanh"))


def unpatch(h: Tensor, size: int, patch: int, channels: int) -> Tensor:
    """Tokens (B, L, patch² · channels) to images (B, channels, size, size); of more channels in a token the first are taken."""
    side = size // patch
    h = h.view(-1, side, side, patch, patch, h.shape[-1] // patch**2)[..., :channels]
    return h.permute(0, 5, 1, 3, 2, 4).reshape(-1, channels, size, size)


def modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Shift and scale every token of `h` (B, L, width) by its example's (B, width)."""
    return torch.addcmul(shift.unsqueeze(1), h, (1 + scale).unsqueeze(1))


class Block(nn.Module):
    """Attention and MLP, each normalised, modulated and gated by the condition; at initialisation the identity."""

    def __init__(self, config: SiTConfig) -> None:
        super().__init__()
        width = config.width
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.attn = Attention(width, config.heads)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False, eps=1e-6)
        self.mlp = Mlp(width, int(width * config.mlp_ratio))
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=1)
        h = torch.addcmul(h, gate1.unsqueeze(1), self.attn(modulate(self.norm1(h), shift1, scale1)))
        return torch.addcmul(h, gate2.unsqueeze(1), self.mlp(modulate(self.norm2(h), shift2, scale2)))


class FinalLayer(nn.Module):
    """Tokens back to patches of pixels."""

    def __init__(self, width: int, outputs: int, norm: nn.Module) -> None:
        super().__init__()
        self.norm_final = norm
        self.linear = nn.Linear(width, outputs)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=1)
        return self.linear(modulate(self.norm_final(h), shift, scale))


class SiT(nn.Module):
    """The network. `forward(z, t, label)`: z (B, C, H, W); t (B,) in [0, 1]; label (B,), `classes` meaning none → (B, C, H, W)."""

    def __init__(self, config: SiTConfig) -> None:
        super().__init__()
        self.config = config
        side = config.size // config.patch
        self.x_embedder = PatchEmbed(config)
        self.t_embedder = TimestepEmbedder(config.width)
        self.y_embedder = LabelEmbedder(config.classes, config.width) if config.classes else None
        self.pos_embed = nn.Parameter(sincos_positions(side, config.width).unsqueeze(0), requires_grad=False)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        outputs = config.patch**2 * config.channels * (1 + config.doubled)
        self.final_layer = FinalLayer(config.width, outputs, nn.LayerNorm(config.width, elementwise_affine=False, eps=1e-6))
        self._initialize()

    @property
    def stages(self) -> list[nn.Module]:
        """The blocks in order; the output (B, L, width) of each is a hidden state."""
        return list(self.blocks)

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.view(self.config.width, -1))
        if self.x_embedder.proj.bias is not None:
            nn.init.zeros_(self.x_embedder.proj.bias)
        if self.y_embedder is not None:
            nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        for index in (0, 2):
            layer: Any = self.t_embedder.mlp[index]
            nn.init.normal_(layer.weight, std=0.02)
        zeroed: list[Any] = [block.adaLN_modulation[-1] for block in self.blocks]  # type: ignore[index]
        zeroed += [self.final_layer.adaLN_modulation[-1], self.final_layer.linear]
        for layer in zeroed:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Evaluate the network; see the class for shapes."""
        config = self.config
        condition = self.t_embedder(t)
        if self.y_embedder is not None:
            if label is None:
                label = torch.full((z.shape[0],), config.classes, device=z.device)
            condition = condition + self.y_embedder(label)
        h = self.x_embedder(z) + self.pos_embed
        for block in self.blocks:
            h = block(h, condition)
        return unpatch(self.final_layer(h, condition), config.size, config.patch, config.channels)


SIZE, CONFIG, NETWORK = SiTSize, SiTConfig, SiT
