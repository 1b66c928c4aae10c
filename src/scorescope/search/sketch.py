"""A sketch of every row: a few coordinates whose distances never exceed those of the rows.

With orthonormal axes P and a centre c the map x → (Pᵀ(x − c), ‖(I − PPᵀ)(x − c)‖)/radius shortens every distance, in units of the
bank's radius, or keeps it, whatever the axes; they are the principal ones of some rows, so that little is lost. In these units no sketch
is longer than √N, so that squares neither overflow float32 nor vanish, however large or small the rows are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorescope.rows.bank import Bank
from scorescope.search.products import U32, U64
from scorescope.search.quantize import centre_of

AXES = 45  # with the rest's norm and two columns for the squares, 48 float32 values a row
SAMPLE = 512  # rows whose principal axes are taken


@dataclass(frozen=True)
class Axes:
    """Orthonormal `axes` (d, p) about `centre` (d,), float64; `unit` is the radius of the bank."""

    centre: Tensor
    axes: Tensor
    unit: float

    @staticmethod
    def of(bank: Bank, device: torch.device) -> Axes:
        """Principal axes of rows drawn evenly from the bank."""
        centre, unit = centre_of(bank, device), bank.radius or 1.0
        drawn = bank[np.unique(np.linspace(0, len(bank.rows) - 1, SAMPLE).astype(np.int64))].to(device)
        drawn = torch.cat([drawn, drawn.flip(-1)]) if bank.flips else drawn
        x = (drawn.double().flatten(1) - centre) / unit
        values, vectors = torch.linalg.eigh(x @ x.T)
        kept = (values > 1e-9 * values[-1].clamp(min=1e-300)).nonzero().flatten().flip(0)[: min(AXES, bank.d)]
        return Axes(centre, torch.linalg.qr(x.T @ vectors[:, kept])[0], unit)

    def sketch(self, x: Tensor) -> Tensor:
        """Sketches (n, p + 1) float64 of rows (n, d), in units of the radius."""
        centred = (x.double() - self.centre) / self.unit
        inside = centred @ self.axes
        outside = (torch.linalg.vector_norm(centred, dim=1).square() - inside.square().sum(1)).clamp(min=0).sqrt()
        return torch.cat([inside, outside[:, None]], 1)


class Sketches:
    """Sketches of all stored rows, and of their mirror images if there are any, in memory: about 200 bytes a row and side.

    Attributes:
        sides: (N, p + 1) float32 of the rows; the same of the mirror images.
        slack: No two rows are nearer than their sketches by more than twice this, in units of the radius.
        reach: The largest norm of a sketch.
    """

    def __init__(self, bank: Bank, device: torch.device) -> None:
        self.bank, self.axes = bank, Axes.of(bank, device)
        size = (len(bank.rows), self.axes.axes.shape[1] + 1)
        self.sides = [torch.zeros(size, device=device) for _ in range(1 + bank.flips)]
        self.reach = 0.0

    def take(self, start: int, stored: np.ndarray) -> None:
        """Sketch the stored rows that begin at row `start`."""
        x = torch.from_numpy(self.bank.decode(stored)).to(self.axes.centre.device)
        for begun in range(0, len(x), 512):
            some = x[begun : begun + 512]
            part = slice(start + begun, start + begun + len(some))
            for mirrored, side in enumerate(self.sides):
                sketch = self.axes.sketch((some.flip(-1) if mirrored else some).flatten(1))
                side[part] = sketch
                self.reach = max(self.reach, float(sketch.norm(dim=1).max()))

    @property
    def slack(self) -> float:
        """Rounding of a sketch to float32, and of the difference of squares whose root is its last coordinate."""
        return self.reach * (4 * U32 + (8 * (self.bank.d + 64) * U64) ** 0.5)

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
        return (between.norm(dim=1) - 2 * self.slack) * self.axes.unit

    def squares(self, first: Tensor, second: Tensor, mirrored: bool) -> Tensor:
        """Squared distances (m, n) float32 of the sketches of rows to those of rows, or of their mirror images: one product."""
        a, b = self.sides[0][first], self.sides[mirrored][second]
        one_a, one_b = torch.ones_like(a[:, :1]), torch.ones_like(b[:, :1])
        left = torch.cat([-2 * a, one_a, a.square().sum(1, keepdim=True)], 1)
        return left @ torch.cat([b, b.square().sum(1, keepdim=True), one_b], 1).T

    def limit(self, distance: float) -> float:
        """No two rows are within `distance` if their `squares` are above this."""
        columns = self.sides[0].shape[1] + 2
        return (distance / self.axes.unit + 2 * self.slack) ** 2 + 4 * (columns + 12) * U32 * self.reach**2
