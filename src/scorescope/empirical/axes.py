"""Few axes that hold most of a bank's rows: those of a cosine transform along every axis of a row's shape that have the most energy.

The transform is orthonormal, so that ⟨v, x⟩ = Σ_k v_k x_k over the coordinates of both. The first coordinates are multiplied; the others
lie in bands, of which norms are enough for a bound (Cauchy–Schwarz, band by band):

    |⟨v, x⟩ − Σ_{k ≤ K} v_k x_k| ≤ Σ_b ‖v_b‖‖x_b‖

Every axis is even or odd under mirroring, so that the coordinates of a mirrored vector are its own, some with their sign turned.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

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
    def signs(self) -> Tensor:
        """(kept,) float64 what the first coordinates of a mirrored vector are multiplied with."""
        return 1.0 - 2.0 * (self.order[: self.kept] % self.shape[-1] % 2)

    def outline(self, x: Tensor) -> Tensor:
        """(n, kept + BANDS) the first coordinates of vectors (n, d), then the norms of the bands; no norm is too small by rounding sums."""
        y = transformed(x, self.shape)
        first = y.index_select(1, self.order[: self.kept])
        bands = (y.square_() @ self._members.to(x.dtype)).sqrt_()
        return torch.cat([first, bands.mul_(1 + 2 * x.shape[1] * torch.finfo(x.dtype).eps)], 1)

    @cached_property
    def _members(self) -> Tensor:
        """(d, BANDS) which axes lie in which band."""
        found = torch.zeros(len(self.order), BANDS, dtype=torch.float64, device=self.order.device)
        rest = self.order[self.kept :]
        found[rest, torch.arange(len(rest), device=rest.device) * BANDS // max(len(rest), 1)] = 1.0
        return found

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
