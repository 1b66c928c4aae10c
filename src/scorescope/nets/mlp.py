"""A perceptron for vectors: the paper's Gaussian experiment (appendix C.6: 10 layers of width 1000) and other data without a grid.

x_embedder, t_embedder.mlp.{0,2}, y_embedder.embedding_table, layers.i, final_layer
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorescope.errors import InputError
from scorescope.nets import DEEPEST, check
from scorescope.nets.sit import LabelEmbedder, TimestepEmbedder


@dataclass(frozen=True)
class MLPSize:
    """What a recipe chooses of an MLP.

    Attributes:
        width: Of a hidden layer.
        depth: Number of layers with weights between the data and the answer, the last included.
        skips: Whether each hidden layer adds to what it was given; deep ones train better so, the paper's is plain.
    """

    width: int = 256
    depth: int = 6
    skips: bool = True

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("depth", 2)):
            if getattr(self, name) < least:
                raise InputError(f"--{name} {getattr(self, name)} is too small", f"--{name} {least} or more")

    def on(self, shape: tuple[int, ...], classes: int) -> MLPConfig:
        """The MLP for rows of `shape`.

        Raises:
            InputError: Rows that are no vectors.
        """
        if len(shape) != 1:
            raise InputError(f"an MLP takes vectors (d,); the bank's rows are {shape}", "--preset sit-desk or unet-desk, for images")
        return MLPConfig(tuple(shape), self.width, self.depth, self.skips, classes)


@dataclass(frozen=True)
class MLPConfig:
    """Shape of an MLP. `classes = 0` makes it unconditional; otherwise row `classes` of the label table is the null label."""

    shape: tuple[int, ...] = (2,)
    width: int = 256
    depth: int = 6
    skips: bool = True
    classes: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(self.shape))  # JSON gives a list
        check(self, depth=DEEPEST)


class Layer(nn.Linear):
    """A hidden layer with SiLU."""

    def forward(self, h: Tensor) -> Tensor:
        return F.silu(super().forward(h))


class MLP(nn.Module):
    """The network. `forward(z, t, label)`: z (B, *shape); t (B,) in [0, 1]; label (B,), `classes` meaning none → (B, *shape)."""

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        d = torch.Size(config.shape).numel()
        self.x_embedder = nn.Linear(d, config.width)
        self.t_embedder = TimestepEmbedder(config.width)
        self.y_embedder = LabelEmbedder(config.classes, config.width) if config.classes else None
        self.layers = nn.ModuleList(Layer(config.width, config.width) for _ in range(config.depth - 2))
        self.final_layer = nn.Linear(config.width, d)
        nn.init.zeros_(self.final_layer.weight)
        nn.init.zeros_(self.final_layer.bias)

    @property
    def stages(self) -> list[nn.Module]:
        """The hidden layers in order; the output (B, width) of each is a hidden state."""
        return list(self.layers)

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Evaluate the network; see the class for shapes."""
        condition = self.t_embedder(t)
        if self.y_embedder is not None:
            if label is None:
                label = torch.full((len(z),), self.config.classes, device=z.device)
            condition = condition + self.y_embedder(label)
        h = F.silu(self.x_embedder(z.flatten(1)) + condition)
        for layer in self.layers:
            h = h + layer(h) if self.config.skips else layer(h)
        return self.final_layer(h).view(z.shape)


SIZE, CONFIG, NETWORK = MLPSize, MLPConfig, MLP
