"""Products of vectors with all rows, block by block, and the logits that they make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.empirical.buffers import Buffers
from scorescope.empirical.family import Family
from scorescope.empirical.shelf import Block, Shelf

VALUES = 1 << 19  # logits of one step: what the caches of a processor hold


@dataclass(frozen=True)
class Tile:
    """One block of rows, or of their mirror images, and its products (P, R, n).

    Attributes:
        index: (n,) indices of the rows, N + i for row i mirrored.
    """

    block: Block
    mirrored: bool
    index: Tensor
    products: Tensor


class Products:
    """Tiles of one's own rows of a class, or of all, with vectors (P, R, d); kept for the next pass where `memory` bytes hold them."""

    def __init__(self, vectors: Tensor, double: bool, shelf: Shelf, label: int | None, memory: int) -> None:
        self.shape, self.double, self.shelf, self.label = vectors.shape[:2], double, shelf, label
        self.type = torch.float64 if double else torch.float32
        flat = vectors.flatten(0, 1)
        size = len(flat) * len(shelf.indices(label)) * len(shelf.sides) * self.type.itemsize
        self.keeps, self._kept = shelf.resident and size <= memory, list[Tile]()
        self._vectors = [(shelf.mirror(flat) if mirrored else flat).to(self.type) for mirrored in shelf.sides]

    def __iter__(self) -> Iterator[Tile]:
        if self._kept:
            yield from self._kept
            return
        kept, n, buffers = [], len(self.shelf.bank.rows), self.shelf.buffers
        for block in self.shelf.blocks(self.label):
            x = self.shelf.double(block) if self.double else block.x
            for mirrored in self.shelf.sides:
                flat = self._vectors[mirrored]
                shape = (len(flat), len(x))
                room = torch.empty(shape, dtype=self.type, device=x.device) if self.keeps else buffers.take("products", shape, self.type)
                products = torch.mm(flat, x.T, out=room).view(*self.shape, len(x))
                tile = Tile(block, mirrored, block.index + n * mirrored, products)
                if self.keeps:
                    kept.append(tile)
                yield tile
        self._kept = kept


def logits(family: Family, tile: Tile, groups: slice, dtype: torch.dtype, buffers: Buffers) -> Tensor:
    """(P'·T, n) logits relative to the shell's of the states of some groups, until the next such call."""
    part = tile.products[groups if family.place is None else family.place[groups]]
    p, r, n = part.shape
    columns = family.columns[groups].to(dtype)
    found = buffers.take("logits", (p, columns.shape[1], n), dtype)
    stack = buffers.take("stack", (p, r + 2, n), dtype)
    stack[:, :r], stack[:, r], stack[:, r + 1] = part, tile.block.square, 1.0
    return torch.bmm(columns, stack, out=found).flatten(0, 1)


def parts(family: Family, n: int) -> Iterator[tuple[slice, slice]]:
    """Groups that are looked at together, and their states."""
    p, t, r = family.coefficients.shape
    size = max(1, VALUES // max(1, n * max(t, r + 2)))
    for start in range(0, p, size):
        stop = min(start + size, p)
        yield slice(start, stop), slice(start * t, stop * t)
