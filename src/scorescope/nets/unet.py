"""ADM: the U-Net of Dhariwal & Nichol (2021, "Diffusion Models Beat GANs"), with or without its attention.

The network maps a state `z` (B, C, H, W), a time `t` (B,) and a class `label` (B,) to a field of the same shape. Parameter names are
those of guided-diffusion, so that its state dicts load by name:

    time_embed.{0,2}, label_emb, input_blocks.i.j, middle_block.{0,1,2}, output_blocks.i.j, out.{0,2};
    a residual block: in_layers.{0,2}, emb_layers.1, out_layers.{0,3}, skip_connection; attention: norm, qkv, proj_out

Without attention (the paper's convolution-only variant) `middle_block.1` is an identity, so that all other names stay.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorescope.errors import InputError
from scorescope.nets import DEEPEST, check, square

ORDERS = ("new", "legacy")


@dataclass(frozen=True)
class UNetSize:
    """What a recipe chooses of a U-Net; the rows and classes of the bank give the rest.

    Attributes:
        channels: Of the first level.
        multipliers: Channels of each level, as multiples of the first's; every level halves the side.
        residual_blocks: On each level of the encoder; the decoder has one more.
        attention: Downsampling factors at which attention follows the residual blocks; none leaves convolutions alone.
        head_width: Channels of an attention head.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    residual_blocks: int = 3
    attention: tuple[int, ...] = (1, 2, 4)
    head_width: int = 64

    def __post_init__(self) -> None:
        for name in ("channels", "residual_blocks", "head_width"):
            if getattr(self, name) < 1:
                option = name.replace("_", "-")
                raise InputError(f"--{option} {getattr(self, name)} is not a positive number", f"--{option} 1 or more")
        if not self.multipliers or min(self.multipliers) < 1:
            raise InputError(f"--multipliers {' '.join(map(str, self.multipliers))} leaves a level without channels", "--multipliers 1 2 2")
        levels = [2**level for level in range(len(self.multipliers))]
        wrong = [factor for factor in self.attention if factor not in levels]
        if wrong:
            raise InputError(f"--attention {wrong[0]} is not a factor of a level ({', '.join(map(str, levels))})", "--attention 1 2 4")
        if self.channels % 2:
            raise InputError(f"--channels {self.channels} is odd; the embedding of time needs pairs", f"--channels {self.channels + 1}")

    def on(self, shape: tuple[int, ...], classes: int) -> UNetConfig:
        """The U-Net for rows of `shape`.

        Raises:
            InputError: Rows that are not square images or latents (C, H, H), or a side that the levels do not divide.
        """
        square(shape, "a U-Net")
        factor = 2 ** (len(self.multipliers) - 1)
        if shape[1] % factor:
            remedy = f"--multipliers with fewer levels, or a bank built with --size {math.ceil(shape[1] / factor) * factor}"
            raise InputError(f"images of side {shape[1]} are not divisible by {factor}, the U-Net's last factor", remedy)
        own = (self.channels, self.multipliers, self.residual_blocks, self.attention, self.head_width)
        return UNetConfig(shape[0], shape[1], *own, classes=classes, null=bool(classes), middle_attention=bool(self.attention))


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net.

    Attributes:
        in_channels, size: Of a state (in_channels, size, size).
        channels, multipliers, residual_blocks, attention, head_width: As in `UNetSize`.
        classes: Of the labels; 0 makes it unconditional.
        null: Whether the table of labels has one more row, for "no class"; guided-diffusion's has none.
        order: How the channels of `qkv` lie: "new" (all queries, all keys, all values) or "legacy" (head by head).
        scale_shift: Whether the embedding scales and shifts the second normalization, or is added before it.
        updown: Whether residual blocks change the resolution, or convolutions between them.
        doubled: Whether the output has a second half (a variance, which `forward` drops).
        middle_attention: Whether attention stands between the two residual blocks of the middle.
        time_scale: What t is multiplied by before it is embedded; 1000 makes [0, 1] the steps that ADM was made for.
    """

    in_channels: int = 4
    size: int = 32
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    residual_blocks: int = 3
    attention: tuple[int, ...] = (1, 2, 4)
    head_width: int = 64
    classes: int = 1000
    null: bool = True
    order: str = "new"
    scale_shift: bool = True
    updown: bool = True
    doubled: bool = False
    middle_attention: bool = True
    time_scale: float = 1000.0

    def __post_init__(self) -> None:
        for name in ("multipliers", "attention"):  # JSON gives lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        check(self, residual_blocks=DEEPEST)
        if not self.multipliers or self.size % 2 ** (len(self.multipliers) - 1):
            raise ValueError(f"size {self.size} is not divisible by 2^{len(self.multipliers) - 1}")
        if self.order not in ORDERS:
            raise ValueError(f"order {self.order!r} is none of {', '.join(ORDERS)}")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one state."""
        return (self.in_channels, self.size, self.size)


def normalization(channels: int) -> nn.GroupNorm:
    """32 groups, or as many of them as divide the channels."""
    return nn.GroupNorm(math.gcd(32, channels), channels)


def zeroed(module: nn.Conv2d | nn.Conv1d) -> nn.Conv2d | nn.Conv1d:
    """The module with all weights zero, so that the block around it begins as the identity."""
    nn.init.zeros_(module.weight)
    assert module.bias is not None
    nn.init.zeros_(module.bias)
    return module


def resize(h: Tensor, change: str) -> Tensor:
    """Twice the side by repetition, half of it by averages, or as it is."""
    if change == "up":
        return F.interpolate(h, scale_factor=2.0, mode="nearest")
    return F.avg_pool2d(h, 2) if change == "down" else h


class ResBlock(nn.Module):
    """Two convolutions about the embedding, and a skip; `change` of the resolution happens before the first of them."""

    def __init__(self, channels: int, out: int, embedding: int, scale_shift: bool, change: str = "") -> None:
        super().__init__()
        self.change, self.scale_shift = change, scale_shift
        self.in_layers = nn.Sequential(normalization(channels), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * out if scale_shift else out))
        last = zeroed(nn.Conv2d(out, out, 3, padding=1))
        self.out_layers = nn.Sequential(normalization(out), nn.SiLU(), nn.Identity(), last)  # dropout's place keeps the names
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        inside = resize(self.in_layers[1](self.in_layers[0](h)), self.change)
        inside = self.in_layers[2](inside)
        condition = self.emb_layers(embedding)[..., None, None]
        if self.scale_shift:
            scale, shift = condition.chunk(2, dim=1)
            inside = torch.addcmul(shift, self.out_layers[0](inside), 1 + scale)
        else:
            inside = self.out_layers[0](inside + condition)
        return self.skip_connection(resize(h, self.change)) + self.out_layers[3](F.silu(inside))


class AttentionBlock(nn.Module):
    """Self-attention of all positions, with a skip."""

    def __init__(self, channels: int, head_width: int, order: str) -> None:
        super().__init__()
        self.heads, self.order = max(1, channels // head_width), order
        if channels % self.heads:
            raise ValueError(f"{channels} channels are not divisible by {self.heads} heads")
        self.norm = normalization(channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        zeroed(self.proj_out)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        batch, channels, _, _ = h.shape
        rows = self.norm(h).flatten(2).mT  # (B, L, C)
        mixed = F.linear(rows, self.qkv.weight[..., 0], self.qkv.bias)
        if self.order == "new":
            q, k, v = mixed.view(batch, -1, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = mixed.view(batch, -1, self.heads, 3, channels // self.heads).permute(3, 0, 2, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, -1, channels)
        return h + F.linear(out, self.proj_out.weight[..., 0], self.proj_out.bias).mT.reshape(h.shape)


class Upsample(nn.Module):
    """Twice the side, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return self.conv(resize(h, "up"))


class Downsample(nn.Module):
    """Half the side, by a convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return self.op(h)


class Stage(nn.Sequential):
    """Layers one after another, each given the embedding where it takes one."""

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:  # type: ignore[override]
        for layer in self:
            h = layer(h) if isinstance(layer, (nn.Conv2d, nn.Identity)) else layer(h, embedding)
        return h


class UNet(nn.Module):
    """The network. `forward(z, t, label)`: z (B, C, H, W); t (B,); label (B,), `classes` meaning none where it has a null row."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = c = config
        wide = 4 * c.channels
        self.time_embed = nn.Sequential(nn.Linear(c.channels, wide), nn.SiLU(), nn.Linear(wide, wide))
        self.label_emb = nn.Embedding(c.classes + c.null, wide) if c.classes else None

        def residual(channels: int, out: int, change: str = "") -> ResBlock:
            return ResBlock(channels, out, wide, c.scale_shift, change)

        def attended(layers: list[nn.Module], channels: int, factor: int) -> list[nn.Module]:
            return [*layers, AttentionBlock(channels, c.head_width, c.order)] if factor in c.attention else layers

        now = first = c.multipliers[0] * c.channels
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(c.in_channels, now, 3, padding=1))])
        kept = [now]
        for level, multiplier in enumerate(c.multipliers):
            for _ in range(c.residual_blocks):
                block = residual(now, multiplier * c.channels)
                now = multiplier * c.channels
                self.input_blocks.append(Stage(*attended([block], now, 2**level)))
                kept.append(now)
            if level < len(c.multipliers) - 1:
                self.input_blocks.append(Stage(residual(now, now, "down") if c.updown else Downsample(now)))
                kept.append(now)
        between = AttentionBlock(now, c.head_width, c.order) if c.middle_attention else nn.Identity()
        self.middle_block = Stage(residual(now, now), between, residual(now, now))
        self.output_blocks = nn.ModuleList()
        for level, multiplier in reversed(list(enumerate(c.multipliers))):
            for index in range(c.residual_blocks + 1):
                block = residual(now + kept.pop(), multiplier * c.channels)
                now = multiplier * c.channels
                layers = attended([block], now, 2**level)
                if level and index == c.residual_blocks:
                    layers.append(residual(now, now, "up") if c.updown else Upsample(now))
                self.output_blocks.append(Stage(*layers))
        last = zeroed(nn.Conv2d(first, c.in_channels * (1 + c.doubled), 3, padding=1))
        self.out = nn.Sequential(normalization(now), nn.SiLU(), last)

    @property
    def stages(self) -> list[nn.Module]:
        """The blocks of encoder, middle and decoder in order; the output (B, C, H, W) of each is a hidden state."""
        return [*self.input_blocks, self.middle_block, *self.output_blocks]

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Evaluate the network; see the class for shapes."""
        half = self.config.channels // 2
        omega = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
        angle = (t.float() * self.config.time_scale)[:, None] * omega
        embedding = self.time_embed(torch.cat([angle.cos(), angle.sin()], dim=1))
        if self.label_emb is not None:
            if label is None:
                label = torch.full((len(z),), self.config.classes, device=z.device)
            embedding = embedding + self.label_emb(label)
        h, kept = z.contiguous(memory_format=torch.channels_last), []
        for stage in self.input_blocks:
            h = stage(h, embedding)
            kept.append(h)
        h = self.middle_block(h, embedding)
        for stage in self.output_blocks:
            h = stage(torch.cat([h, kept.pop()], dim=1), embedding)
        return self.out(h)[:, : z.shape[1]].contiguous()


SIZE, CONFIG, NETWORK = UNetSize, UNetConfig, UNet
