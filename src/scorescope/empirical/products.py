"""Products of vectors with all rows, block by block, and the logits that they make.

|⟨v, x⟩ as computed − ⟨v, x⟩| ≤ (d + 4)·u·‖v‖‖x‖      u = 2⁻²⁴ in float32, 2⁻⁵³ in float64 (Higham, Accuracy and Stability, 3.1)

and those of planes of integers by what the planes leave out (`planes`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.empirical.family import Family
from scorescope.empirical.shelf import Block, Shelf
from scorescope.search.products import U32, U64

VALUES = 1 << 19  # logits of one step: what the caches of a processor hold


@dataclass(frozen=True)
class Tile:
    """One block of rows, or of their mirror images, and its products (P, K, n).

    Attributes:
        index: (n,) indices of the rows, N + i for row i mirrored.
    """

    block: Block
    mirrored: bool
    index: Tensor
    products: Tensor


class Products(ABC):
    """Tiles of one's own rows of a class, or of all, with vectors (P, R, d); kept for the next pass where `memory` bytes hold them.

    Attributes:
        shape: (P, K) groups, and the products that each row has with the vectors of a group.
        fine: They are exact enough for the weights of sums.
    """

    shape: tuple[int, int]
    fine: bool

    def __init__(self, shelf: Shelf, label: int | None, memory: int, size: int) -> None:
        self.shelf, self.label = shelf, label
        size *= self.shape[0] * self.shape[1] * len(shelf.indices(label)) * len(shelf.sides)
        self.keeps, self._kept = shelf.resident and size <= memory, list[Tile]()

    def __iter__(self) -> Iterator[Tile]:
        if self._kept:
            yield from self._kept
            return
        kept, n = [], len(self.shelf.bank.rows)
        for block in self.shelf.blocks(self.label):
            for mirrored in self.shelf.sides:
                products = self._of(block, mirrored).view(*self.shape, len(block.index))
                tile = Tile(block, mirrored, block.index + n * mirrored, products)
                if self.keeps:
                    kept.append(tile)
                yield tile
        self._kept = kept

    @abstractmethod
    def _of(self, block: Block, mirrored: bool) -> Tensor:
        """(P·K, n) of a block: in memory of their own if they are kept, else until the next."""

    @abstractmethod
    def weights(self, family: Family) -> Tensor:
        """(P, T, K) what the products are multiplied with to make ⟨z − α·centre, x⟩, but for `constant`."""

    @abstractmethod
    def constant(self, family: Family) -> Tensor:
        """(B,) of ⟨z − α·centre, x⟩, what all rows have in common."""

    @abstractmethod
    def size(self, family: Family) -> Tensor:
        """(B,) bound on the sum of the sizes of all that `weights` and `constant` put together."""

    @abstractmethod
    def off(self, family: Family) -> Tensor:
        """(B,) bound on the error of ⟨z − α·centre, x⟩ that the products have, whoever puts them together."""


class FloatProducts(Products):
    """Products in float64, which are fine, or in float32."""

    def __init__(self, vectors: Tensor, fine: bool, shelf: Shelf, label: int | None, memory: int) -> None:
        self.shape, self.fine = (vectors.shape[0], vectors.shape[1]), fine
        self.type = torch.float64 if fine else torch.float32
        super().__init__(shelf, label, memory, self.type.itemsize)
        flat = vectors.flatten(0, 1)
        self._vectors = [(shelf.mirror(flat) if mirrored else flat).to(self.type) for mirrored in shelf.sides]
        self._norms = vectors.norm(dim=2)

    def _of(self, block: Block, mirrored: bool) -> Tensor:
        x, flat = self.shelf.double(block) if self.fine else block.x, self._vectors[mirrored]
        shape = (len(flat), len(x))
        room = torch.empty(shape, dtype=self.type, device=x.device) if self.keeps else self.shelf.buffers.take("products", shape, self.type)
        return torch.mm(flat, x.T, out=room)

    def weights(self, family: Family) -> Tensor:
        """The coefficients themselves."""
        return family.coefficients

    def constant(self, family: Family) -> Tensor:
        """Nothing."""
        return torch.zeros_like(family.rest)

    def size(self, family: Family) -> Tensor:
        """Σ_r |C_r|‖v_r‖ times the reach."""
        return family.of_vectors(self._norms) * self.shelf.reach

    def off(self, family: Family) -> Tensor:
        """As above."""
        return (family.states.d + 4) * (U64 if self.fine else U32) * self.size(family)


class Logits:
    """The logits of a family's states, relative to the shell's, from `products` with its vectors."""

    def __init__(self, family: Family, products: Products) -> None:
        self.family, self.products, self.buffers = family, products, products.shelf.buffers
        states, weights = family.states, products.weights(family)
        shape = weights.shape[:2]
        fixed = torch.stack([-0.5 * states.curve, states.slope * products.constant(family) - states.shell], 1)
        # What the products, ‖x‖² and 1 are multiplied with.
        self.columns = torch.cat([states.slope.view(*shape, 1) * weights, fixed.view(*shape, 2)], 2)

    def of(self, tile: Tile, groups: slice, dtype: torch.dtype) -> Tensor:
        """(P'·T, n) those of some groups with a tile's rows, until the next such call."""
        place = self.family.place
        part = tile.products[groups if place is None else place[groups]]
        p, k, n = part.shape
        columns = self.columns[groups].to(dtype)
        found = self.buffers.take("logits", (p, columns.shape[1], n), dtype)
        stack = self.buffers.take("stack", (p, k + 2, n), dtype)
        stack[:, :k], stack[:, k], stack[:, k + 1] = part, tile.block.square, 1.0
        return torch.bmm(columns, stack, out=found).flatten(0, 1)

    def parts(self, n: int) -> Iterator[tuple[slice, slice]]:
        """Groups that are looked at together, of n rows, and their states."""
        p, t, k = self.columns.shape
        size = max(1, VALUES // max(1, n * max(t, k)))
        for start in range(0, p, size):
            stop = min(start + size, p)
            yield slice(start, stop), slice(start * t, stop * t)

    def error(self, unit: float) -> Tensor:
        """(B,) bound on the error of a logit that is put together with unit roundoff `unit`, but for what is common to all rows."""
        return self._rounding(unit) + self.tilt * self.products.shelf.reach * (1 + 1e-5)

    @property
    def rounding(self) -> Tensor:
        """(B,) the part of `error`, for float64, that is no tilt."""
        return self._rounding(U64)

    @property
    def tilt(self) -> Tensor:
        """(B,) slope·‖rest‖: by how much what is left of a state tilts logits, for each unit of a row's norm."""
        return self.family.states.slope * self.family.rest

    def _rounding(self, unit: float) -> Tensor:
        states, reach = self.family.states, self.products.shelf.reach
        size, far = states.slope * self.products.size(self.family), states.curve * reach**2
        products = states.slope * self.products.off(self.family) + (states.d + 4) * U64 * far
        together = (self.columns.shape[2] + 6) * unit * (size + far + states.shell.abs())
        return (products + together) * (1 + 1e-5)
