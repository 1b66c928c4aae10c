"""Few axes that hold most of a bank's rows: those of a cosine transform along every axis of a row's shape that have the most energy.

The transform is orthonormal, so that ⟨v, x⟩ = Σ_k v_k x_k over the coordinates of both. The first coordinates are multiplied; the others
lie in bands, of which norms are enough for a bound (Cauchy–Schwarz, band by band):

    |⟨v, x⟩ − Σ_{k ≤ K} v_k x_k| ≤ Σ_b ‖v_b‖‖x_b‖

Every axis is even or odd under mirroring, so that the coordinates of a mirrored vector are its own, some with their sign turned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.search.products import U32

SHARE = 8  # of the axes, one in so many
BANDS = 16
LONGEST = 512  # axis of a row's shape that is transformed


def suits(shape: tuple[int, ...]) -> bool:
    """Whether the transform of rows of this shape takes little beside a product of all their values."""
    return len(shape) > 1 and max(shape) <= LONGEST and sum(shape) * SHARE <= math.prod(shape)


def cosines(n: int, device: torch.device) -> Tensor:
    """The orthonormal cosine transform (DCT-II) of length n, (n, n) float64: row k is even under mirroring if k is."""
    k, i = (torch.arange(n, dtype=torch.float64, device=device) for _ in range(2))
    found = torch.cos(math.pi / n * k[:, None] * (i + 0.5)) * (2 / n) ** 0.5
    found[0] /= 2**0.5
    return found


@dataclass(frozen=True)
class Axes:
    """The axes of rows of a `shape`, in `order` (d,) of falling energy; the first `kept` are multiplied, the others lie in bands."""

    shape: tuple[int, ...]
    order: Tensor
    kept: int

    @staticmethod
    def of(shape: tuple[int, ...], energy: Tensor) -> Axes:
        """Those of rows whose transform has this energy (d,)."""
        return Axes(shape, energy.argsort(descending=True, stable=True), math.prod(shape) // SHARE)

    @property
    def width(self) -> int:
        """Numbers that `outline` makes of a vector."""
        return self.kept + BANDS

    @property
    def signs(self) -> Tensor:
        """(kept,) float64 what the first coordinates of a mirrored vector are multiplied with."""
        return 1.0 - 2.0 * (self.order[: self.kept] % self.shape[-1] % 2)

    def outline(self, x: Tensor) -> Tensor:
        """(n, width) the first coordinates of vectors (n, d), then the norms of the bands; no norm is too small by rounding sums."""
        y = transformed(x, self.shape)
        y = y.index_select(1, self.order)
        first, rest = y.split([self.kept, y.shape[1] - self.kept], 1)
        bands = [part.norm(dim=1) for part in rest.chunk(BANDS, 1)]
        bands += [torch.zeros_like(bands[0])] * (BANDS - len(bands))
        return torch.cat([first, torch.stack(bands, 1) * (1 + 2 * x.shape[1] * torch.finfo(x.dtype).eps)], 1)

    @property
    def off(self) -> float:
        """How far from the transform of a vector that in float32 is, at most, for each unit of its norm.

        A product with an orthonormal n × n matrix is off by no more than (n + 1)·u·‖|T||x|‖, and ‖|T|‖ ≤ √n.
        """
        return 1.01 * U32 * sum((n + 1) * n**0.5 for n in self.shape)


def transformed(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The cosine transform of flat vectors (n, d) of a shape, in their own precision."""
    width = x.shape[1]
    for n in shape:
        width //= n
        if n > 1:
            matrix = cosines(n, x.device).to(x.dtype)
            x = x.reshape(-1, n) @ matrix.T if width == 1 else matrix @ x.reshape(-1, n, width)
    return x.reshape(-1, math.prod(shape))
