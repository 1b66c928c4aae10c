"""Products of vectors with all rows, block by block, and the logits that they make; planes of integers are in `planes`.

A product of floats misses (d + 4)·u·‖v‖‖x‖ at most, u = 2⁻²⁴ in float32, 2⁻⁵³ in float64 (Higham, Accuracy and Stability, 3.1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.empirical.family import Family
from scorescope.empirical.shelf import Block, Shelf
from scorescope.search.products import U32, U64, product

VALUES = 1 << 20  # logits of one step: what the caches of a processor hold


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


@dataclass(frozen=True)
class Known:
    """What is known of ⟨v, x⟩ of vectors (P, R): Σ_l scale_l·product_l + common, off by `off` at most, of parts of `size` in all.

    Attributes:
        scale: (P, R, L) of the L products that are made for each vector.
        common: (P, R) what all rows have in common.
        size: (P, R) bound on the sum of the sizes of what is added.
        off: (P, R) bound on what the products miss.
        rest: (P, R) norm of what is left of v, whose product with a row they miss, too.
    """

    scale: Tensor
    common: Tensor
    size: Tensor
    off: Tensor
    rest: Tensor


class Products(ABC):
    """Tiles of one's own rows of a class, or of all, and vectors; kept for the next pass where `memory` bytes hold them."""

    fine: bool  # exact enough for the weights of sums
    type: torch.dtype

    def __init__(self, known: Known, each: int, shelf: Shelf, label: int | None, memory: int) -> None:
        self.known, self.shelf, self.label = known, shelf, label
        self.shape = len(known.scale), known.scale[0].numel()
        size = known.scale.numel() * each * len(shelf.indices(label)) * len(shelf.sides)  # `each` bytes a number
        self.keeps, self._kept = size <= memory, list[Tile]()

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

    def _room(self, block: Block, sides: int = 1) -> Tensor:
        """For the products with a block (sides, P·R·L, n): memory of their own if they are kept, else until the next block."""
        shape, device = (sides, self.shape[0] * self.shape[1], len(block.index)), block.index.device
        return torch.empty(shape, dtype=self.type, device=device) if self.keeps else self.shelf.buffers.take("products", shape, self.type)

    @abstractmethod
    def _of(self, block: Block, mirrored: bool) -> Tensor:
        """The products (P·R·L, n) with a block, in such room."""


class FloatProducts(Products):
    """Products in float64, which are fine, or in float32; vectors are divided by powers of two, so that none leaves its type."""

    def __init__(self, vectors: Tensor, fine: bool, shelf: Shelf, label: int | None, memory: int) -> None:
        size, unit = vectors.norm(dim=2) * shelf.reach, torch.frexp(vectors.abs().amax(2))[1].double().exp2()
        off = (vectors.shape[2] + 4) * (U64 if fine else U32) * size
        self.fine, self.type = fine, torch.float64 if fine else torch.float32
        known = Known(unit[..., None], torch.zeros_like(size), size, off, torch.zeros_like(size))
        super().__init__(known, self.type.itemsize, shelf, label, memory)
        flat = (vectors / unit[..., None]).flatten(0, 1)
        self._vectors = torch.stack([(shelf.mirror(flat) if mirrored else flat).to(self.type) for mirrored in shelf.sides])

    def _of(self, block: Block, mirrored: bool) -> Tensor:
        if not self.fine:
            return product(self._vectors[int(mirrored)], self.shelf.single(block))
        if not mirrored:  # both sides at once, so that rows become float64 once
            self._sides = self._room(block, len(self._vectors))
            for part, x in self.shelf.doubles(block):
                torch.mm(self._vectors.flatten(0, 1), x.T, out=self._sides.flatten(0, 1)[:, part])
        return self._sides[int(mirrored)]


class Logits:
    """The logits of a family's states, relative to the shell's, from `products` with its vectors."""

    def __init__(self, family: Family, products: Products) -> None:
        self.family, self.products, self.buffers = family, products, products.shelf.buffers
        states, known, c = family.states, products.known, family.coefficients
        scale, common, self._size, self._off, rest = (
            v if family.place is None else v[family.place] for v in (known.scale, known.common, known.size, known.off, known.rest)
        )
        # By how much what is left of a state tilts logits, for each unit of a row's norm: (B,) slope·‖rest‖.
        self.tilt = states.slope * (family.rest + (c.abs() * rest[:, None]).sum(2).flatten())
        fixed = torch.stack([-0.5 * states.curve, states.slope * (c * common[:, None]).sum(2).flatten() - states.shell], 1)
        # What the products, ‖x‖² and 1 are multiplied with.
        weights = states.slope.view(*c.shape[:2], 1) * (c[..., None] * scale[:, None]).flatten(2)
        self.columns = torch.cat([weights, fixed.view(*c.shape[:2], 2)], 2)

    def of_states(self, tile: Tile, which: Tensor, dtype: torch.dtype) -> Tensor:
        """(m, n) those of the states `which` (m,), in order, with a tile's rows, until the next such call."""
        t = self.columns.shape[1]
        groups, place = torch.unique_consecutive(which // t, return_inverse=True)
        every = len(groups) == int(groups[-1]) - int(groups[0]) + 1
        found = self.of(tile, slice(int(groups[0]), int(groups[-1]) + 1) if every else groups, dtype)
        return found if len(found) == len(which) else found[place * t + which % t]

    def of(self, tile: Tile, groups: slice | Tensor, dtype: torch.dtype) -> Tensor:
        """(P'·T, n) those of some groups with a tile's rows, until the next such call."""
        place = self.family.place
        part = tile.products[groups if place is None else place[groups]]
        p, k, n = part.shape
        columns = self.columns[groups].to(dtype)
        found = self.buffers.take("logits", (p, columns.shape[1], n), dtype)
        if k == columns.shape[1] == 1:
            every = torch.stack([tile.block.square, torch.ones_like(tile.block.square)]).to(dtype)
            return torch.addmm(found[:, 0].copy_(part[:, 0]).mul_(columns[:, 0, :1]), columns[:, 0, 1:], every, out=found[:, 0])
        stack = self.buffers.take("stack", (p, k + 2, n), dtype)
        stack[:, :k], stack[:, k], stack[:, k + 1] = part, tile.block.square, 1.0
        return torch.bmm(columns, stack, out=found).flatten(0, 1)

    def parts(self, n: int) -> Iterator[tuple[slice, slice]]:
        """Groups that are looked at together, of n rows, and their states."""
        p, t, k = self.columns.shape
        size = max(1, self.products.shelf.at_once(VALUES) // max(1, n * max(t, k)))
        for start in range(0, p, size):
            stop = min(start + size, p)
            yield slice(start, stop), slice(start * t, stop * t)

    def error(self, unit: float) -> Tensor:
        """(B,) bound on the error of a logit that is put together with unit roundoff `unit`, but for what is common to all rows."""
        return self.rounding(unit) + self.tilt * self.products.shelf.reach * (1 + 1e-5)

    def rounding(self, unit: float) -> Tensor:
        """(B,) the part of `error` that is no tilt."""
        states, coefficients = self.family.states, self.family.coefficients.abs()
        size, off = (states.slope * (coefficients * v[:, None]).sum(2).flatten() for v in (self._size, self._off))
        far = states.curve * self.products.shelf.reach**2
        products = off + (states.d + 4) * U64 * far
        together = (self.columns.shape[2] + 6) * unit * (size + far + states.shell.abs())
        return (products + together) * (1 + 1e-5)
