"""Products of a family's digits with the rows, block by block; kept between passes as far as memory allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.empirical.digits import product
from scorescope.empirical.shelf import Rows, Shelf


@dataclass(frozen=True)
class Tile:
    """Products of one block: exact (P, R, n) int32 of digits with the digits of the rows, or with those of their mirror images."""

    rows: Rows
    exact: Tensor
    mirrored: bool
    index: Tensor


class Products:
    """Iterates over the tiles of digits (P, R, d) int8 with the rows of one class, or of all; keeps as many as `memory` bytes hold."""

    def __init__(self, shelf: Shelf, digits: Tensor, label: int | None, memory: int) -> None:
        self.shelf, self.label, self.each = shelf, label, digits.shape[1]
        digits = digits.flatten(0, 1)
        self.sides = [(digits, False)] + ([(shelf.mirror(digits).contiguous(), True)] if shelf.bank.flips else [])
        self.room = memory if shelf.resident else 0
        self._kept: list[Tile] = []

    def __iter__(self) -> Iterator[Tile]:
        yield from self._kept
        known = len(self._kept)
        for number, (rows, digits, mirrored) in enumerate(self._sides()):
            if number < known:
                continue
            index = rows.index + len(self.shelf.bank.rows) * mirrored
            tile = Tile(rows, product(digits, rows.q.T).view(-1, self.each, len(rows.q)), mirrored, index)
            if number == len(self._kept) and tile.exact.nbytes <= self.room:
                self.room -= tile.exact.nbytes
                self._kept.append(tile)
            yield tile

    def take(self, tile: Tile, exact: Tensor) -> None:
        """Keep the products (P·R, n) of the next tile, made elsewhere."""
        self._kept.append(Tile(tile.rows, exact.view(-1, self.each, exact.shape[1]), tile.mirrored, tile.index))

    def _sides(self) -> Iterator[tuple[Rows, Tensor, bool]]:
        """Blocks of rows with the digits that meet them: the states', or those of their mirror images."""
        for rows in self.shelf.rows(self.label):
            for digits, mirrored in self.sides:
                yield rows, digits, mirrored


def together(shelf: Shelf, stacks: list[Tensor], label: int | None, memory: int) -> list[Products]:
    """Products of several stacks of digits (P, R, d) with the same rows: of all at once, which is faster, where `memory` holds them."""
    each = [Products(shelf, digits, label, memory // len(stacks)) for digits in stacks]
    if len(stacks) < 2:
        return each
    flat = torch.cat([digits.flatten(0, 1) for digits in stacks])
    rows = len(shelf.indices(label)) * (2 if shelf.bank.flips else 1)
    if shelf.resident and 4 * len(flat) * rows <= memory:
        for tile in Products(shelf, flat[:, None], label, 0):
            parts = tile.exact[:, 0].split([len(digits.flatten(0, 1)) for digits in stacks])
            for products, part in zip(each, parts, strict=True):
                products.take(tile, part)
    return each
