"""DiCo (Ai et al. 2025): a U-Net of convolutions that are gated channel by channel, conditioned as in DiT.

The network maps a state `z` (B, C, H, W), a time `t` (B,) and a class `label` (B,) to a field of the same shape, for any side that 4
divides. Parameter names are those of the official code, so that state dicts load by name:

    x_embedder.proj, t_embedder_{1, 2, 3}.mlp.{0, 2}, y_embedder.embedding_table_{0, 1, 2},
    encoder_level_1.i, down1_2.body.0, encoder_level_2.i, down2_3.body.0, latent.i, up3_2.body.0, reduce_chan_level2, decoder_level_2.i,
    up2_1.body.0, reduce_chan_level1, decoder_level_1.i, final_layer.{out_proj, adaLN_modulation.1};
    a block: conv1, …, conv5, ca.1, adaLN_modulation.1
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorescope.nets.sit import TimestepEmbedder


@dataclass(frozen=True)
class DiCoConfig:
    """Shape of a DiCo.

    Attributes:
        channels: Of a state.
        width: Of the first level; the second and third have two and four times as much, and the last one of the decoder twice.
        depths: Blocks of encoder 1, encoder 2, the middle, decoder 2 and decoder 1.
        mlp_ratio: Hidden width of a block's perceptron over its width.
        rows: Of the label tables: one for the null label, or none.
        doubled: Whether the output has a second half (a variance, which `forward` drops).
    """

    channels: int = 4
    width: int = 128
    depths: tuple[int, ...] = (5, 4, 4, 4, 4)
    mlp_ratio: float = 2.0
    rows: int = 1001
    doubled: bool = True


class Norm(nn.Module):
    """Each position's channels (B, C, H, W) normalised, then scaled and shifted by the condition."""

    def forward(self, h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        normed = F.layer_norm(h.movedim(1, -1), h.shape[1:2], eps=1e-6).movedim(-1, 1)
        return torch.addcmul(shift[..., None, None], normed, (1 + scale)[..., None, None])


class Block(nn.Module):
    """Convolutions whose channels are gated by their means, and a perceptron, each modulated and gated by the condition."""

    def __init__(self, width: int, ratio: float) -> None:
        super().__init__()
        hidden = int(ratio * width)
        self.norm = Norm()
        self.conv1, self.conv3 = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.ca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width, 1), nn.Sigmoid())
        self.conv4, self.conv5 = nn.Conv2d(width, hidden, 1), nn.Conv2d(hidden, width, 1)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaLN_modulation(condition).chunk(6, dim=1)
        inside = F.gelu(self.conv2(self.conv1(self.norm(h, shift1, scale1))))
        h = h + gate1[..., None, None] * self.conv3(inside * self.ca(inside))
        return h + gate2[..., None, None] * self.conv5(F.gelu(self.conv4(self.norm(h, shift2, scale2))))


class Resized(nn.Module):
    """A convolution, then pixels into channels ("down") or channels into pixels ("up")."""

    def __init__(self, width: int, change: str) -> None:
        super().__init__()
        shuffle = nn.PixelUnshuffle(2) if change == "down" else nn.PixelShuffle(2)
        self.body = nn.Sequential(nn.Conv2d(width, width // 2 if change == "down" else 2 * width, 3, padding=1, bias=False), shuffle)

    def forward(self, h: Tensor) -> Tensor:
        return self.body(h)


class PatchEmbed(nn.Module):
    """Overlapping patches of three pixels, one about each."""

    def __init__(self, config: DiCoConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.channels, config.width, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        return self.proj(z)


class LabelEmbedder(nn.Module):
    """A table for each of the three widths."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.embedding_table_0 = nn.Embedding(rows, width)
        self.embedding_table_1 = nn.Embedding(rows, 2 * width)
        self.embedding_table_2 = nn.Embedding(rows, 4 * width)

    def forward(self, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.embedding_table_0(label), self.embedding_table_1(label), self.embedding_table_2(label)


class FinalLayer(nn.Module):
    """Channels back to those of the state."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm = Norm()
        self.out_proj = nn.Conv2d(width, out, 3, padding=1)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(condition).chunk(2, dim=1)
        return self.out_proj(self.norm(h, shift, scale))


class DiCo(nn.Module):
    """The network. `forward(z, t, label)`: z (B, C, H, W); t (B,); label (B,), a row of the label tables → (B, C, H, W)."""

    def __init__(self, config: DiCoConfig) -> None:
        super().__init__()
        self.config, width = config, config.width

        def level(factor: int, depth: int) -> nn.ModuleList:
            return nn.ModuleList(Block(factor * width, config.mlp_ratio) for _ in range(depth))

        self.x_embedder = PatchEmbed(config)
        self.t_embedder_1, self.t_embedder_2, self.t_embedder_3 = (TimestepEmbedder(factor * width) for factor in (1, 2, 4))
        self.y_embedder = LabelEmbedder(config.rows, width)
        first, second, middle, third, last = config.depths
        self.encoder_level_1, self.encoder_level_2, self.latent = level(1, first), level(2, second), level(4, middle)
        self.decoder_level_2, self.decoder_level_1 = level(2, third), level(2, last)
        self.down1_2, self.down2_3 = Resized(width, "down"), Resized(2 * width, "down")
        self.up3_2, self.up2_1 = Resized(4 * width, "up"), Resized(2 * width, "up")
        self.reduce_chan_level2, self.reduce_chan_level1 = nn.Conv2d(4 * width, 2 * width, 1), nn.Conv2d(2 * width, 2 * width, 1)
        self.final_layer = FinalLayer(2 * width, config.channels * (1 + config.doubled))

    @property
    def stages(self) -> list[nn.Module]:
        """The blocks in order; the output (B, C, H, W) of each is a hidden state."""
        levels = (self.encoder_level_1, self.encoder_level_2, self.latent, self.decoder_level_2, self.decoder_level_1)
        return [block for level in levels for block in level]

    def forward(self, z: Tensor, t: Tensor, label: Tensor) -> Tensor:
        """Evaluate the network; see the class for shapes."""
        times = (embedder(t) for embedder in (self.t_embedder_1, self.t_embedder_2, self.t_embedder_3))
        first, second, third = (time + tag for time, tag in zip(times, self.y_embedder(label), strict=True))

        def through(level: nn.ModuleList, h: Tensor, condition: Tensor) -> Tensor:
            for block in level:
                h = block(h, condition)
            return h

        wide = through(self.encoder_level_1, self.x_embedder(z), first)
        half = through(self.encoder_level_2, self.down1_2(wide), second)
        h = through(self.latent, self.down2_3(half), third)
        h = through(self.decoder_level_2, self.reduce_chan_level2(torch.cat([self.up3_2(h), half], dim=1)), second)
        h = through(self.decoder_level_1, self.reduce_chan_level1(torch.cat([self.up2_1(h), wide], dim=1)), second)
        return self.final_layer(h, second)[:, : z.shape[1]].contiguous()


CONFIG, NETWORK = DiCoConfig, DiCo
