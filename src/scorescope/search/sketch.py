"""A sketch of every row: a few coordinates whose distances never exceed those of the rows.

With orthonormal axes P (d, p) the map x → (Pᵀx, ‖(I − PPᵀ)x‖), of rows in `units`, shortens every distance or keeps it, whatever the axes.
They are the principal ones of some rows, so that little is lost; other rows tell how many of them are worth their while: p is the least of

    p + SETTLE·d·(share of pairs of rows that sketches leave)

With n = 256 + 16 terms, u = 2⁻²⁴ and γ = n·u/(1 − n·u) float32 sums of 256 terms, added in float64, are off by no more than

    ‖s − Pᵀx‖ ≤ √p·γ‖x‖,    |r² − ‖(I − PPᵀ)x‖²| ≤ 2(√p + 1)·γ‖x‖² = e,    hence |r − ‖(I − PPᵀ)x‖| ≤ e/r

and rows for which e/r is large are sketched in float64.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from scorescope.rows.bank import Bank
from scorescope.search.bounds import Points
from scorescope.search.products import U32, U64, product
from scorescope.search.units import Units

LENGTHS = (45, 64, 96, 128, 192, 256)  # axes; a sketch has a coordinate more
LONGEST = LENGTHS[-1]
SAMPLE = 1024  # rows whose principal axes are taken
PROBES = 512  # rows that tell how much these hold
SETTLE = 32  # what a value of a float64 difference of single rows costs, in values of a product
PRECISE = 2.0**-8  # what float32 may lose of a sketch's last coordinate
ROWS = 512  # sketched at a time
PIECE = 256  # columns of one float32 product


@dataclass(frozen=True)
class Axes:
    """Orthonormal `axes` (d, p) float64 of scaled rows; `useful` says that sketches spare points most of the products with whole rows."""

    units: Units
    axes: Tensor
    useful: bool

    @staticmethod
    def of(bank: Bank, device: torch.device, each: bool) -> Axes:
        """Principal axes of rows drawn evenly, as many as others tell: to find `each` row's nearest, or the closest pair of all."""
        units = Units.of(bank, device)
        drawn = bank[np.unique(np.linspace(0, len(bank.rows) - 1, SAMPLE + PROBES).astype(np.int64))].to(device)
        probe = torch.arange(len(drawn), device=device) % 3 == 1
        seen, probes = (drawn[~probe], drawn[probe]) if len(drawn) == SAMPLE + PROBES else (drawn, drawn)
        seen = torch.cat([seen, seen.flip(-1)]) if bank.flips else seen
        x = units.scaled(seen.flatten(1)).float()
        values, vectors = torch.linalg.eigh((x @ x.T).double())
        kept = (values > 1e-6 * values[-1].clamp(min=1e-30)).nonzero().flatten().flip(0)[: min(LONGEST, bank.d)]
        axes = torch.linalg.qr((x.T @ vectors[:, kept].float()).double())[0]
        lengths = sorted({min(length, axes.shape[1]) for length in LENGTHS})
        costs = _costs(units.scaled(probes.flatten(1)), axes, lengths, each)
        best = int(np.argmin(costs))
        return Axes(units, axes[:, : lengths[best]].contiguous(), costs[best] < bank.d / 2)

    @cached_property
    def short(self) -> Tensor:
        """The axes in float32."""
        return self.axes.float()

    def sketch(self, x: Tensor) -> Tensor:
        """Sketches (n, p + 1) float64 of scaled rows (n, d) float64."""
        return _with_rest(x @ self.axes, torch.linalg.vecdot(x, x))

    def rows(self, x: Tensor) -> tuple[Tensor, float]:
        """Sketches (n, p + 1) float64 of scaled rows (n, d) float32, and how far they may be off."""
        inside = torch.zeros(len(x), self.axes.shape[1], dtype=torch.float64, device=x.device)
        square = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        for piece, axes in zip(x.split(PIECE, 1), self.short.split(PIECE), strict=True):
            inside += product(piece, axes.T)
            square += piece.norm(dim=1).double().square()
        gamma, root = (PIECE + 16) * U32 / (1 - (PIECE + 16) * U32), inside.shape[1] ** 0.5
        found = _with_rest(inside, square)
        lost = 2 * (root + 1) * gamma * square / found[:, -1].clamp(min=1e-300)
        coarse = lost > PRECISE
        found[coarse] = self.sketch(x[coarse].double())
        off = lost.masked_fill(coarse, 0).add_(root * gamma * square.sqrt())
        return found, float(off.max()) * (1 + 4 * gamma) if len(off) else 0.0


def _with_rest(inside: Tensor, square: Tensor) -> Tensor:
    """Coordinates (n, p) inside the axes and the norm outside, of rows whose squared norms are `square`."""
    return torch.cat([inside, (square - inside.square().sum(1)).clamp(min=0).sqrt()[:, None]], 1)


def _costs(x: Tensor, axes: Tensor, lengths: list[int], each: bool) -> list[float]:
    """What it costs by sketches of some lengths to find the nearest rows of scaled rows (n, d), in values of a product for a pair."""
    inside, square, never = x @ axes, torch.linalg.vecdot(x, x), torch.eye(len(x), device=x.device) * 1e30
    nearest = (_squares(x) + never).amin(1, keepdim=True)
    nearest = nearest if each else nearest[nearest > 0].amin() if bool((nearest > 0).any()) else nearest
    return [
        length + SETTLE * x.shape[1] * float((_squares(_with_rest(inside[:, :length], square)) + never <= nearest).double().mean())
        for length in lengths
    ]


def _squares(x: Tensor) -> Tensor:
    """Squared distances (n, n) of rows (n, d)."""
    square = torch.linalg.vecdot(x, x)
    return (square[:, None] + square).addmm_(x, x.T, alpha=-2).clamp_(min=0)


class Sketches:
    """Sketches of all stored rows, and of their mirror images if there are any, in memory: 4 bytes a coordinate.

    Attributes:
        sides: (N, p + 1) float32 of the rows; the same of the mirror images unless `each` row's nearest are sought, for which
            the points are mirrored.
        norms: (N,) float32 of the scaled rows.
        reach: The largest norm of a sketch.
    """

    def __init__(self, bank: Bank, device: torch.device, each: bool = False) -> None:
        self.axes = Axes.of(bank, device, each)
        size = (len(bank.rows), self.axes.axes.shape[1] + 1)
        self.sides = [torch.zeros(size, device=device) for _ in range(1 + (bank.flips and not each))]
        self.norms = torch.zeros(len(bank.rows), device=device)
        self.reach = self.off = 0.0

    def take(self, start: int, stored: np.ndarray) -> None:
        """Sketch the stored rows that begin at row `start`."""
        for place, x in self.axes.units.rows(stored, ROWS):
            part = slice(start + place, start + place + len(x))
            self.norms[part] = x.norm(dim=1)
            for mirrored, side in enumerate(self.sides):
                sketch, off = self.axes.rows(x.reshape(-1, *self.axes.units.shape).flip(-1).flatten(1) if mirrored else x)
                side[part] = sketch
                self.off, self.reach = max(self.off, off), max(self.reach, float(sketch.norm(dim=1).max()))

    @property
    def slack(self) -> float:
        """No two rows are nearer than their sketches by more than twice this, scaled.

        A sketch is off by `off`, by its rounding to float32 and that of the scaled row, and in float64 by that of the difference
        of squares whose root is its last coordinate.
        """
        return self.off + self.reach * (8 * U32 + (8 * (self.axes.units.d + 64) * U64) ** 0.5)

    def points(self, flat: Tensor) -> Points:
        """Sketches of points (B, d) float64."""
        z = self.axes.units.scaled(flat)
        sketch = self.axes.sketch(z)
        slack = self.slack + z.norm(dim=1) * (8 * (self.axes.units.d + 64) * U64) ** 0.5
        slack += 8 * U64 * (flat.norm(dim=1) + self.axes.units.centre.norm()) / self.axes.units.unit
        return Points(sketch, slack, self.axes.units.unit)

    def tiles(self, index: Tensor, size: int) -> list[Tensor]:
        """Rows in parts of at most `size` that lie near each other: split in two along the widest coordinate, again and again."""
        if len(index) <= size:
            return [index]
        sketch = self.sides[0][index]
        order = sketch[:, sketch.std(0).argmax()].argsort(stable=True)
        half = -(-len(index) // size) // 2 * size
        return self.tiles(index[order[:half]], size) + self.tiles(index[order[half:]], size)

    def box(self, index: Tensor, mirrored: bool) -> Tensor:
        """The smallest and largest coordinates (2, p + 1) of the sketches of rows, or of their mirror images."""
        return torch.stack(self.sides[mirrored][index].aminmax(dim=0))

    def gaps(self, box: Tensor, others: Tensor) -> Tensor:
        """How far rows in a box (2, p + 1) are at least from those in each of others (n, 2, p + 1), (n,) float64."""
        box, others = box.double(), others.double()
        between = torch.maximum(others[:, 0] - box[1], box[0] - others[:, 1]).clamp(min=0)
        return (between.norm(dim=1) - 2 * self.slack) * self.axes.units.unit

    def squares(self, first: Tensor, second: Tensor, mirrored: bool) -> Tensor:
        """Squared distances (m, n) float32 of the sketches of rows to those of rows, or of their mirror images: one product."""
        return squares(self.sides[0][first], self.sides[mirrored][second])

    def limit(self, distance: float) -> float:
        """No two rows are within `distance` if their `squares` are above this."""
        return limit_of(distance / self.axes.units.unit + 2 * self.slack, self.sides[0].shape[1] + 2, self.reach)


def squares(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (m, n) float32 of rows (m, w) to rows (n, w): one product."""
    one_a, one_b = torch.ones_like(a[:, :1]), torch.ones_like(b[:, :1])
    left = torch.cat([-2 * a, one_a, a.square().sum(1, keepdim=True)], 1)
    return product(left, torch.cat([b, b.square().sum(1, keepdim=True), one_b], 1))


def limit_of(distance: float, columns: int, reach: float) -> float:
    """No two rows with norms of at most `reach` are within `distance` if their `squares`, products of so many columns, are above this."""
    return distance**2 + 6 * (columns + 12) * U32 / (1 - columns * U32) * reach**2
