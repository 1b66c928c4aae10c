"""Products of a family's digits with the rows, block by block; kept between passes where memory allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    """Iterates over the tiles of digits (P, R, d) int8 with the rows of one class, or of all; keeps them if `memory` bytes suffice."""

    def __init__(self, shelf: Shelf, digits: Tensor, label: int | None, memory: int) -> None:
        self.shelf, self.label, self.each = shelf, label, digits.shape[1]
        digits = digits.flatten(0, 1)
        self.sides = [(digits, False)] + ([(shelf.mirror(digits).contiguous(), True)] if shelf.bank.flips else [])
        stored = len(shelf.indices(label))
        self.keep = shelf.resident and len(digits) * stored * 4 * len(self.sides) <= memory
        self._kept: list[Tile] = []

    def __iter__(self) -> Iterator[Tile]:
        if self._kept:
            yield from self._kept
            return
        tiles = []
        for rows in self.shelf.rows(self.label):
            for digits, mirrored in self.sides:
                index = rows.index + len(self.shelf.bank.rows) * mirrored
                tile = Tile(rows, product(digits, rows.q.T).view(-1, self.each, len(rows.q)), mirrored, index)
                if self.keep:
                    tiles.append(tile)
                yield tile
        self._kept = tiles
