"""Products of a family's digits with the rows, block by block; kept between passes as far as memory allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.empirical.digits.arithmetic import product
from scorescope.empirical.digits.shelf import Readable, Rows, Shelf
from scorescope.search.products import Workspace

WHOLE, FEW = 1 << 16, 1 << 27  # rows of a block at most, where all products take no more bytes than this


@dataclass(frozen=True)
class Tile:
    """Products of one block: exact (P, R, n) int32 of digits with the digits of the rows, or with those of their mirror images."""

    rows: Rows
    exact: Tensor
    mirrored: bool
    index: Tensor

    def first(self, n: int) -> Tile:
        """The tile of its first rows alone."""
        rows = self.rows
        return Tile(Rows(rows.q[:n], rows.square[:n], rows.index[:n]), self.exact[..., :n], self.mirrored, self.index[:n])


class Products:
    """Iterates over the tiles of digits (P, R, d) int8 with the rows of one class, or of all; keeps as many as `memory` bytes hold.

    A tile that is not kept is gone when the next is made; those that are lie in `workspace`, if one is given, until it is begun anew.
    """

    def __init__(self, shelf: Readable, digits: Tensor, label: int | None, memory: int, workspace: Workspace | None = None) -> None:
        self.shelf, self.label, self.each = shelf, label, digits.shape[1]
        flat = digits.flatten(0, 1)
        # Rows are read once, for the states and for their mirror images.
        self.digits = torch.cat([flat, shelf.mirror(flat)]) if shelf.bank.flips else flat
        self.sides = 2 if shelf.bank.flips else 1
        self.memory = memory
        # Few products are made and looked at faster in large blocks, many in blocks of which caches hold something.
        self.block = None
        if memory:
            rows = shelf.kept(label)
            self.block = WHOLE if 4 * len(self.digits) * (rows.stop - rows.start) <= min(memory, FEW) else None
        self.workspace, self._spare = workspace, Workspace()
        self._kept: list[Tile] = []

    def __iter__(self) -> Iterator[Tile]:
        yield from self._kept
        known = len(self._kept) // self.sides
        for number, rows in enumerate(self.shelf.rows(self.label, self.block)):
            if number < known:
                continue
            size = 4 * len(self.digits) * len(rows.q)
            keep = number == len(self._kept) // self.sides and size <= self.memory
            tiles = list(self._made(rows, keep))
            if keep:
                self.memory -= size
                self._kept += tiles
            yield from tiles

    def _made(self, rows: Rows, keep: bool) -> Iterator[Tile]:
        """The tiles of a block, made in memory that lasts as long as they do."""
        self._spare.begin()
        workspace = self.workspace if keep else self._spare
        out = None if workspace is None else workspace.take(len(self.digits), len(rows.q), self.digits.device)
        for mirrored, exact in enumerate(product(self.digits, rows.q.T, out).chunk(self.sides)):
            yield self._tile(rows, exact, bool(mirrored))

    def _tile(self, rows: Rows, exact: Tensor, mirrored: bool) -> Tile:
        index = rows.index + len(self.shelf.bank.rows) * mirrored
        return Tile(rows, exact.view(-1, self.each, len(rows.q)), mirrored, index)

    def take(self, tile: Tile, exact: Tensor, block: int | None) -> None:
        """Keep the products (P·R, n) of the next tile, made elsewhere in blocks of so many rows."""
        self.block = block
        self._kept.append(self._tile(tile.rows, exact, tile.mirrored))


def together(shelf: Shelf, stacks: list[Tensor], label: int | None, memory: int, workspace: Workspace) -> list[Products]:
    """Products of several stacks of digits (P, R, d) with the same rows: of all at once, which is faster, where `memory` holds them."""
    workspace.begin()
    each = [Products(shelf, digits, label, memory // len(stacks), workspace) for digits in stacks]
    if len(stacks) < 2:
        return each
    flat = torch.cat([digits.flatten(0, 1) for digits in stacks])
    rows = len(shelf.indices(label)) * (2 if shelf.bank.flips else 1)
    if 4 * len(flat) * rows <= memory:
        whole = Products(shelf, flat[:, None], label, memory, workspace)
        for tile in whole:
            parts = tile.exact[:, 0].split([len(digits.flatten(0, 1)) for digits in stacks])
            for products, part in zip(each, parts, strict=True):
                products.take(tile, part, whole.block)
    return each
