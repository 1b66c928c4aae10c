"""DDPM++, NCSN++ (Song et al. 2021) and ADM (Dhariwal & Nichol 2021) as Karras et al. (2022, "Elucidating the Design Space …") train them.

The network maps a scaled state (B, C, H, W), a noise label (B,) and a class (B,) to a field of the same shape. Parameter names are those
of their checkpoints, so that these load by name; s is the side of a level:

    map_noise.freqs (NCSN++), map_label, map_layer0, map_layer1,
    enc.{s}x{s}_{conv, down, aux_residual, block0, …}, dec.{s}x{s}_{in0, in1, up, block0, …};
    the last layers: dec.{s}x{s}_{aux_norm, aux_conv}, or out_norm and out_conv in ADM;
    a block: norm0, conv0, affine, norm1, conv1, skip, norm2, qkv, proj, and resample_filter where it changes the side
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEAD = 64  # channels of an attention head in ADM; the other two have one head


@dataclass(frozen=True)
class EDMConfig:
    """Shape of the network.

    Attributes:
        adm: Whether it is ADM, or DDPM++ and NCSN++.
        channels, out, size: Of the state, of the answer, and their side.
        first: Channels after the first convolution.
        widths: Channels of each level; every level halves the side.
        blocks: Residual blocks on each level of the encoder; the decoder has one more.
        attention: Sides with attention.
        embedding, noise: Widths of the condition, and of the noise label's features.
        fourier: Whether these features have frequencies of their own (NCSN++).
        residual: Whether the state is fed in on each level (NCSN++).
        taps: Of the filter by which the side changes: 2, or 4 in NCSN++.
        classes: Of the labels; 0 makes it unconditional. The label `classes` means none.
    """

    adm: bool = False
    channels: int = 3
    out: int = 3
    size: int = 32
    first: int = 128
    widths: tuple[int, ...] = (256, 256, 256)
    blocks: int = 4
    attention: tuple[int, ...] = (16,)
    embedding: int = 512
    noise: int = 128
    fourier: bool = False
    residual: bool = False
    taps: int = 2
    classes: int = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one state."""
        return (self.channels, self.size, self.size)


class Features(nn.Module):
    """Sines and cosines of the noise label (B,) → (B, noise): of geometric frequencies from 1 to 10⁻⁴, or of those that the file holds.

    ADM stops one frequency short of 10⁻⁴, and its cosines come first.
    """

    freqs: Tensor

    def __init__(self, config: EDMConfig) -> None:
        super().__init__()
        self.pairs, self.adm, self.fourier = config.noise // 2, config.adm, config.fourier
        if config.fourier:
            self.register_buffer("freqs", torch.zeros(self.pairs))

    def forward(self, label: Tensor) -> Tensor:
        place = torch.arange(self.pairs, dtype=torch.float32, device=label.device) / (self.pairs if self.adm else max(self.pairs - 1, 1))
        angle = label[:, None] * (2 * math.pi * self.freqs if self.fourier else 1e-4**place)
        return torch.cat([angle.cos(), angle.sin()] if self.adm else [angle.sin(), angle.cos()], dim=1)


class Convolution(nn.Module):
    """A convolution that may halve or double the side by a filter: before it, or after it on the way down (`late`); or the filter alone."""

    weight: Tensor
    bias: Tensor
    resample_filter: Tensor

    def __init__(self, channels: int, out: int, kernel: int, change: str = "", taps: int = 2, late: bool = False) -> None:
        super().__init__()
        self.change, self.kernel, self.late = change, kernel, late
        if kernel:
            self.weight = nn.Parameter(torch.empty(out, channels, kernel, kernel))
            self.bias = nn.Parameter(torch.empty(out))
        if change:
            self.register_buffer("resample_filter", torch.empty(1, 1, taps, taps))

    def forward(self, h: Tensor) -> Tensor:
        edge = self.kernel // 2
        if self.late:
            edge += (self.resample_filter.shape[-1] - 1) // 2
            return self._resampled(F.conv2d(h, self.weight, padding=edge), 0) + self.bias[:, None, None]
        if self.change:
            h = self._resampled(h, (self.resample_filter.shape[-1] - 1) // 2)
        return F.conv2d(h, self.weight, self.bias, padding=edge) if self.kernel else h

    def _resampled(self, h: Tensor, edge: int) -> Tensor:
        each = self.resample_filter.expand(h.shape[1], -1, -1, -1)
        if self.change == "up":
            return F.conv_transpose2d(h, 4 * each, stride=2, padding=edge, groups=h.shape[1])
        return F.conv2d(h, each, stride=2, padding=edge, groups=h.shape[1])


def normalization(channels: int, eps: float) -> nn.GroupNorm:
    """At most 32 groups of at least four channels."""
    return nn.GroupNorm(min(32, channels // 4), channels, eps)


class Block(nn.Module):
    """Two convolutions about the condition, a skip, and attention where the level has it.

    In DDPM++ and NCSN++ the condition is added, and every sum is divided by √2; in ADM it scales and shifts.
    """

    def __init__(self, config: EDMConfig, channels: int, out: int, change: str = "", attention: bool = False) -> None:
        super().__init__()
        self.adm, eps = config.adm, 1e-5 if config.adm else 1e-6
        self.scale = 1.0 if config.adm else math.sqrt(0.5)
        self.heads = (out // HEAD if config.adm else 1) if attention else 0
        self.norm0 = normalization(channels, eps)
        self.conv0 = Convolution(channels, out, 3, change, config.taps)
        self.affine = nn.Linear(config.embedding, 2 * out if config.adm else out)
        self.norm1 = normalization(out, eps)
        self.conv1 = Convolution(out, out, 3)
        mixes = channels != out or (change and not config.adm)
        self.skip = Convolution(channels, out, 1 if mixes else 0, change, config.taps) if mixes or change else nn.Identity()
        if self.heads:
            self.norm2 = normalization(out, eps)
            self.qkv, self.proj = Convolution(out, 3 * out, 1), Convolution(out, out, 1)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        inside = self.conv0(F.silu(self.norm0(h)))
        given = self.affine(condition)[..., None, None]
        if self.adm:
            scale, shift = given.chunk(2, dim=1)
            inside = torch.addcmul(shift, self.norm1(inside), 1 + scale)
        else:
            inside = self.norm1(inside + given)
        h = (self.conv1(F.silu(inside)) + self.skip(h)) * self.scale
        if not self.heads:
            return h
        q, k, v = self.qkv(self.norm2(h)).flatten(2).unflatten(1, (self.heads, -1, 3)).permute(3, 0, 1, 4, 2)  # each (B, heads, H·W, C)
        found = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(h.shape)
        return (self.proj(found) + h) * self.scale


class EDMUNet(nn.Module):
    """The network. `forward(z, noise, label)`: z (B, C, H, W); noise label (B,); class (B,), `classes` meaning none."""

    def __init__(self, config: EDMConfig) -> None:
        super().__init__()
        self.config = c = config
        self.map_noise = Features(c)
        self.map_layer0, self.map_layer1 = nn.Linear(c.noise, c.embedding), nn.Linear(c.embedding, c.embedding)
        self.map_label = nn.Linear(c.classes, c.embedding if c.adm else c.noise, bias=not c.adm) if c.classes else None
        sides = [c.size >> level for level in range(len(c.widths))]
        names, now, aux, kept = [f"{side}x{side}" for side in sides], c.first, c.channels, [c.first]
        self.enc = nn.ModuleDict({f"{names[0]}_conv": Convolution(c.channels, now, 3)})
        for level, (name, width) in enumerate(zip(names, c.widths, strict=True)):
            if level:
                self.enc[f"{name}_down"] = Block(c, now, now, "down")
                kept.append(now)
                if c.residual:
                    self.enc[f"{name}_aux_residual"] = Convolution(aux, now, 3, "down", c.taps, late=True)
                    aux = now
            for index in range(c.blocks):
                self.enc[f"{name}_block{index}"] = Block(c, now, width, attention=sides[level] in c.attention)
                now = width
                kept.append(now)
        self.dec = nn.ModuleDict({f"{names[-1]}_in0": Block(c, now, now, attention=True), f"{names[-1]}_in1": Block(c, now, now)})
        for level in reversed(range(len(names))):
            if level < len(names) - 1:
                self.dec[f"{names[level]}_up"] = Block(c, now, now, "up")
            for index in range(c.blocks + 1):
                attends = sides[level] in c.attention and (c.adm or index == c.blocks)
                self.dec[f"{names[level]}_block{index}"] = Block(c, now + kept.pop(), c.widths[level], attention=attends)
                now = c.widths[level]
        last, norm = Convolution(now, c.out, 3), normalization(now, 1e-5 if c.adm else 1e-6)
        if c.adm:
            self.out_norm, self.out_conv = norm, last
        else:
            self.dec[f"{names[0]}_aux_norm"], self.dec[f"{names[0]}_aux_conv"] = norm, last

    @property
    def stages(self) -> list[nn.Module]:
        """The blocks of encoder and decoder in order; the output (B, C, H, W) of each is a hidden state."""
        return [block for block in (*self.enc.values(), *self.dec.values()) if isinstance(block, Block)]

    def condition(self, noise: Tensor, label: Tensor | None) -> Tensor:
        """What every block is given, (B, embedding)."""
        c, features, tag = self.config, self.map_noise(noise), None
        if self.map_label is not None:
            label = torch.full((len(noise),), c.classes, device=noise.device) if label is None else label
            tag = F.one_hot(label, c.classes + 1)[:, :-1].to(features)  # none is zero everywhere
        if c.adm:
            features = self.map_layer1(F.silu(self.map_layer0(features)))
            return F.silu(features if tag is None else features + self.map_label(tag))  # type: ignore[misc]
        features = features if tag is None else features + self.map_label(tag * math.sqrt(c.classes))  # type: ignore[misc]
        return F.silu(self.map_layer1(F.silu(self.map_layer0(features))))

    def forward(self, z: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Evaluate the network; see the class for shapes."""
        condition, h, aux = self.condition(noise, label), z, z
        kept: list[Tensor] = []
        for name, layer in self.enc.items():
            if name.endswith("_aux_residual"):
                h = kept[-1] = aux = (h + layer(aux)) * math.sqrt(0.5)
            else:
                h = layer(h, condition) if isinstance(layer, Block) else layer(h)
                kept.append(h)
        for name, layer in self.dec.items():
            if isinstance(layer, Block):
                h = layer(torch.cat([h, kept.pop()], dim=1) if "_block" in name else h, condition)
        if self.config.adm:
            return self.out_conv(F.silu(self.out_norm(h)))
        name = f"{self.config.size}x{self.config.size}_aux"
        return self.dec[f"{name}_conv"](F.silu(self.dec[f"{name}_norm"](h)))


CONFIG, NETWORK = EDMConfig, EDMUNet
