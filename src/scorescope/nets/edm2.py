"""The U-Net of Karras et al. (2024, "Analyzing and Improving the Training Dynamics of Diffusion Models"), which keeps magnitudes.

Weights are normalised before they are used, activations have magnitude one on expectation, and nothing has a bias; numbers of equations
are the paper's. The network maps a scaled state (B, C, H, W), a noise label (B,) and a class (B,) to a field of the same shape. Parameter
names are those of its checkpoints; s is the side of a level:

    emb_fourier.{freqs, phases}, emb_noise, emb_label, out_gain, out_conv,
    enc.{s}x{s}_{conv, down, block0, …}, dec.{s}x{s}_{in0, in1, up, block0, …};
    a block: emb_gain, emb_linear, conv_res0, conv_res1, conv_skip, attn_qkv, attn_proj
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorescope.nets.unet import resize

EPS = 1e-4  # of every normalisation


@dataclass(frozen=True)
class EDM2Config:
    """Shape of the network.

    Attributes:
        channels, size: Of the state.
        widths: Channels of each level; every level halves the side.
        blocks: Residual blocks on each level of the encoder; the decoder has one more.
        attention: Sides with attention.
        embedding, noise: Widths of the condition, and of the noise label's features.
        classes: Of the labels; 0 makes it unconditional. The label `classes` means none.
        head: Channels of an attention head.
        label_balance, concat_balance, res_balance, attn_balance: Shares of the class in the condition, of what is kept in the decoder's
            inputs, of a residual, and of an attention.
        clip: Bound of every block's output.
    """

    channels: int = 4
    size: int = 64
    widths: tuple[int, ...] = (192, 384, 576, 768)
    blocks: int = 3
    attention: tuple[int, ...] = (16, 8)
    embedding: int = 768
    noise: int = 192
    classes: int = 0
    head: int = 64
    label_balance: float = 0.5
    concat_balance: float = 0.5
    res_balance: float = 0.3
    attn_balance: float = 0.3
    clip: float = 256.0

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of one state."""
        return (self.channels, self.size, self.size)


def normalized(x: Tensor, dim: tuple[int, ...]) -> Tensor:
    """`x` of mean square one along `dim` (Eqs. 30, 66)."""
    return x / (EPS + x.square().mean(dim, keepdim=True).sqrt())


def silu(x: Tensor) -> Tensor:
    """SiLU over its magnitude for normal inputs (Eq. 81)."""
    return F.silu(x) / 0.596


def mixed(a: Tensor, b: Tensor, share: float) -> Tensor:
    """A weighted sum of two independent inputs (Eq. 88)."""
    return torch.lerp(a, b, share) / math.hypot(1 - share, share)


def joined(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Channels of both, so that they contribute by their shares, however many they are (Eq. 103)."""
    first, second = a.shape[1], b.shape[1]
    scale = math.sqrt(first + second) / math.hypot(1 - share, share)
    return torch.cat([a * (scale * (1 - share) / math.sqrt(first)), b * (scale * share / math.sqrt(second))], dim=1)


class Weight(nn.Module):
    """A convolution, or a linear map, by normalised weights (Eqs. 47, 66)."""

    def __init__(self, into: int, out: int, *kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out, into, *kernel))
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        weight = normalized(self.weight, tuple(range(1, self.weight.ndim))) * (gain / math.sqrt(self.weight[0].numel()))
        return F.linear(x, weight) if weight.ndim == 2 else F.conv2d(x, weight, padding=weight.shape[-1] // 2)


class Features(nn.Module):
    """√2 cos(label · freqs + phases), (B,) → (B, noise) (Eq. 75)."""

    freqs: Tensor
    phases: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.zeros(width))
        self.register_buffer("phases", torch.zeros(width))

    def forward(self, label: Tensor) -> Tensor:
        return math.sqrt(2) * (label[:, None] * self.freqs + self.phases).cos()


class Block(nn.Module):
    """Two convolutions about the condition beside a skip, and attention where the level has it (Fig. 21).

    In the encoder the skip's projection comes first, and what both branches get is normalised at each position.
    """

    def __init__(
        self, config: EDM2Config, into: int, out: int, *, decoder: bool = False, change: str = "", attention: bool = False
    ) -> None:
        super().__init__()
        self.config, self.decoder, self.change = config, decoder, change
        self.heads = out // config.head if attention else 0
        self.emb_gain = nn.Parameter(torch.zeros([]))
        self.emb_linear = Weight(config.embedding, out)
        self.conv_res0 = Weight(into if decoder else out, out, 3, 3)
        self.conv_res1 = Weight(out, out, 3, 3)
        self.conv_skip = Weight(into, out, 1, 1) if into != out else nn.Identity()
        if self.heads:
            self.attn_qkv, self.attn_proj = Weight(out, 3 * out, 1, 1), Weight(out, out, 1, 1)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        h = resize(h, self.change)
        if not self.decoder:
            h = normalized(self.conv_skip(h), (1,))
        gate = 1 + self.emb_linear(condition, self.emb_gain)[..., None, None]
        inside = self.conv_res1(silu(self.conv_res0(silu(h)) * gate))
        h = mixed(self.conv_skip(h) if self.decoder else h, inside, self.config.res_balance)
        if self.heads:
            parts = normalized(self.attn_qkv(h).flatten(2).unflatten(1, (self.heads, -1, 3)), (2,))
            q, k, v = parts.permute(3, 0, 1, 4, 2)  # each (B, heads, H·W, C)
            found = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(h.shape)
            h = mixed(h, self.attn_proj(found), self.config.attn_balance)
        return h.clamp(-self.config.clip, self.config.clip)


class EDM2UNet(nn.Module):
    """The network. `forward(z, noise, label)`: z (B, C, H, W); noise label (B,); class (B,), `classes` meaning none."""

    def __init__(self, config: EDM2Config) -> None:
        super().__init__()
        self.config = c = config
        self.out_gain = nn.Parameter(torch.zeros([]))
        self.emb_fourier, self.emb_noise = Features(c.noise), Weight(c.noise, c.embedding)
        self.emb_label = Weight(c.classes, c.embedding) if c.classes else None
        sides = [c.size >> level for level in range(len(c.widths))]
        names, now, kept = [f"{side}x{side}" for side in sides], c.widths[0], [c.widths[0]]
        self.enc = nn.ModuleDict({f"{names[0]}_conv": Weight(c.channels + 1, now, 3, 3)})
        for level, (name, width) in enumerate(zip(names, c.widths, strict=True)):
            if level:
                self.enc[f"{name}_down"] = Block(c, now, now, change="down")
                kept.append(now)
            for index in range(c.blocks):
                self.enc[f"{name}_block{index}"] = Block(c, now, width, attention=sides[level] in c.attention)
                now = width
                kept.append(now)
        self.dec = nn.ModuleDict({f"{names[-1]}_in0": Block(c, now, now, decoder=True, attention=True)})
        self.dec[f"{names[-1]}_in1"] = Block(c, now, now, decoder=True)
        for level in reversed(range(len(names))):
            if level < len(names) - 1:
                self.dec[f"{names[level]}_up"] = Block(c, now, now, decoder=True, change="up")
            for index in range(c.blocks + 1):
                width, attends = c.widths[level], sides[level] in c.attention
                self.dec[f"{names[level]}_block{index}"] = Block(c, now + kept.pop(), width, decoder=True, attention=attends)
                now = width
        self.out_conv = Weight(now, c.channels, 3, 3)

    @property
    def stages(self) -> list[nn.Module]:
        """The blocks of encoder and decoder in order; the output (B, C, H, W) of each is a hidden state."""
        return [block for block in (*self.enc.values(), *self.dec.values()) if isinstance(block, Block)]

    def condition(self, noise: Tensor, label: Tensor | None) -> Tensor:
        """What every block is given, (B, embedding)."""
        c, found = self.config, self.emb_noise(self.emb_fourier(noise))
        if self.emb_label is not None:
            label = torch.full((len(noise),), c.classes, device=noise.device) if label is None else label
            tag = F.one_hot(label, c.classes + 1)[:, :-1].to(found)  # none is zero everywhere
            found = mixed(found, self.emb_label(tag * math.sqrt(c.classes)), c.label_balance)
        return silu(found)

    def forward(self, z: Tensor, noise: Tensor, label: Tensor | None = None) -> Tensor:
        """Evaluate the network; see the class for shapes."""
        condition, h = self.condition(noise, label), torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
        kept: list[Tensor] = []
        for layer in self.enc.values():
            h = layer(h, condition) if isinstance(layer, Block) else layer(h)
            kept.append(h)
        for name, layer in self.dec.items():
            h = layer(joined(h, kept.pop(), self.config.concat_balance) if "_block" in name else h, condition)
        return self.out_conv(h, self.out_gain)


CONFIG, NETWORK = EDM2Config, EDM2UNet
