"""Lower bounds on the distances of points to rows, by one float32 product whose rounding is bounded.

With z and x in units of the rows, s = max(1, ‖z‖), w their width and γ = n·u/(1 − n·u), n = w + 16, u = 2⁻²⁴ (any order of summation):

    ‖z − x‖² = ‖z‖² + 2s·G,    G = ‖x‖²/(2s) − ⟨z/s, x⟩ ≥ ⟨(−z/s, 1/s, −1), (x, ‖x‖²/2, e)⟩,    e = 2γ‖x‖ + 4γ·‖x‖²/2

where the right side is computed in float32: its sum is off by at most γ(‖x‖ + ‖x‖²/2s + e), and z/s, x and ‖x‖² by u, u and 2γ of
themselves. The same product serves whole rows (w = d) and their sketches, whose distances never exceed those of the rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.search.products import U32, U64, product

TINY = 1e-30  # more than what underflow takes from a sum in units of the rows


def columns(x: Tensor, out: Tensor | None = None) -> Tensor:
    """(x, ‖x‖²/2, e) (n, w + 2) float32 of x (n, w) float32; in `out`, whose first w columns are x, if given."""
    width = x.shape[1]
    out = torch.cat([x, x.new_empty(len(x), 2)], 1) if out is None else out
    terms = (width + 16) * U32
    gamma, norm = terms / (1 - terms), x.norm(dim=1).double()
    half = norm.square() / 2
    out[:, width] = half
    out[:, width + 1] = gamma * (2 * norm + 4 * half) + TINY
    return out


class Points:
    """Points z (B, w) float64; the rows are known but for `slack` (B,), all in units of `unit`."""

    def __init__(self, z: Tensor, slack: Tensor, unit: float) -> None:
        self.slack, self.unit, self.square = slack, unit, z.square().sum(1)
        self.long = z.norm(dim=1).clamp(min=1)
        one = torch.ones_like(self.long)
        self.left = torch.cat([-z / self.long[:, None], 1 / self.long[:, None], -one[:, None]], 1).float()

    def __getitem__(self, part: slice | Tensor) -> Points:
        """Some of them."""
        some = object.__new__(Points)
        some.unit = self.unit
        some.slack, some.square, some.long, some.left = self.slack[part], self.square[part], self.long[part], self.left[part]
        return some

    def likely(self) -> Points:
        """Sketches whose products are what is likely instead of what is sure: as if what they leave out were orthogonal."""
        some = self[:]
        some.left = self.left.clone()
        some.left[:, -3] = 0
        return some

    def products(self, rows: Tensor) -> Tensor:
        """Lower bounds (B, n) float32 of G for the `columns` of rows."""
        return product(self.left, rows)

    def limit(self, distance: Tensor) -> Tensor:
        """No row is within `distance` (B,) whose product is above this (B,) float32."""
        square = (distance / self.unit + self.slack).square()
        found = (square - self.square + 16 * U64 * (square + self.square)) / (2 * self.long)
        return (found + found.abs() * 2 * U32 + TINY).float()
