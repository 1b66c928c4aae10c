"""The closest pairs of a bank, exact: within each class, and of all; and all exact duplicates.

Copies are found by hashes. For the rest, three bounds rule pairs out, cheapest first, and float64 decides what they leave:

    1. boxes around tiles of rows that lie near each other: tiles at a larger distance than the best pair so far are skipped;
    2. sketches of 46 to 257 coordinates, whose distances never exceed those of the rows: one float32 product for two tiles;
    3. where sketches leave many, whole rows: one float32 product for two tiles, whose rounding is bounded.

Classes come first, and tiles with themselves, so that a good pair rules out most of the others. Memory is 4 bytes a coordinate of a
sketch (twice that with flips) and tiles of fixed size. The bank is read once in order, later only the rows of pairs that are left.
Where the closest rows are much closer than most, as in photographs, sketches take 2 to 8 ns for a pair of rows on one core; where
they are not (white noise), every pair goes through whole rows: N²·d multiplications.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from scorescope.rows.bank import Bank
from scorescope.rows.storage import Progress, quiet
from scorescope.search.copies import Copies
from scorescope.search.nearest import BLOCK, distances, rows_of, step_rows
from scorescope.search.products import U32, full_precision
from scorescope.search.sketch import Sketches, limit_of, squares
from scorescope.search.units import Units

PANEL = 1 << 29  # bytes of whole rows that are kept for the tiles to come
TILE = 2048  # rows whose pairs with as many others are looked at together
MANY = TILE * TILE >> 9  # pairs left by sketches from which on a product of whole rows is cheaper than direct differences


@dataclass(frozen=True, order=True)
class Pair:
    """Two different stored rows and their Euclidean distance; index −1 and an infinite distance where there is no such pair.

    A `second` of N + j stands for the mirror image of row j.
    """

    distance: float
    first: int
    second: int


NO_PAIR = Pair(float("inf"), -1, -1)


@dataclass(frozen=True)
class ClosestPairs:
    """The closest pairs of stored rows i < j, or of row i and the mirror image of row j; ties go to the smaller indices.

    Attributes:
        whole: Of all rows; exact copies are at distance 0, and named before copies of mirror images.
        distinct: Of all rows, with copies counted once and pairs at distance 0 left out.
        by_class: `whole` within each class that has rows, by label; empty without labels.
        by_class_distinct: `distinct` within each class.
        duplicates: (M, 2) every stored row that repeats an earlier row exactly, in order, and the first row that it repeats.
    """

    whole: Pair
    distinct: Pair
    by_class: dict[int, Pair]
    by_class_distinct: dict[int, Pair]
    duplicates: np.ndarray


def closest_pairs(bank: Bank, device: torch.device | str = "cpu", progress: Progress = quiet) -> ClosestPairs:
    """The closest pair of rows, that of every class, and all exact duplicates, exact: what C(t) needs (B.2).

    With flips a row may also be close to another row's mirror image. 50,000 × 3,072 8-bit rows of ten classes take seconds on two
    cores; the cost, which grows with N² at worst, is in the module's docstring.

    Args:
        bank: Whose rows.
        device: Where to compute.
        progress: Told (what is done, how much of it, out of how much) now and then.
    """
    device = torch.device(device)
    with full_precision(device):
        copies, sketches = Copies(bank), Sketches(bank, device)
        step = max(64, min(8192, BLOCK // bank.d))
        for start in range(0, len(bank.rows), step):
            stored = bank.stored(start, min(start + step, len(bank.rows)))
            copies.take(start, stored)
            sketches.take(start, stored)
            progress("rows", start + len(stored), len(bank.rows))
        copies.finish()
        every = np.arange(len(bank.rows))
        classes = {} if bank.labels is None else {int(tag): bank.indices(int(tag)) for tag in np.unique(bank.labels)}
        groups = [*classes.values(), every]
        done, total = 0, sum(len(index) ** 2 for index in groups)

        def tick(pairs: int) -> None:
            nonlocal done
            done += pairs
            progress("pairs", min(done, total), total)

        search = _Search(bank, sketches, tick)
        by_class = {tag: search.closest(np.unique(copies.originals(index)), NO_PAIR) for tag, index in classes.items()}
        distinct = search.closest(np.unique(copies.originals(every)), min(by_class.values(), default=NO_PAIR))
    progress("pairs", total, total)
    original = copies.originals(every)
    repeats = np.flatnonzero(original != every)
    return ClosestPairs(
        whole=_at_zero(copies, every) or distinct,
        distinct=distinct,
        by_class={tag: _at_zero(copies, index) or by_class[tag] for tag, index in classes.items()},
        by_class_distinct=by_class,
        duplicates=np.stack([repeats, original[repeats]], 1),
    )


def _at_zero(copies: Copies, index: np.ndarray) -> Pair | None:
    """The first pair of equal rows, or else of a row that equals another's mirror image, if there is one."""
    original = copies.originals(index)
    repeats = np.flatnonzero(original != index)
    if len(repeats):
        return min(Pair(0.0, int(first), int(second)) for first, second in zip(original[repeats], index[repeats], strict=True))
    twins = copies.twins(index)
    return Pair(0.0, int(twins[0, 0]), int(twins[0, 1]) + len(copies.bank.rows)) if len(twins) else None


@dataclass(frozen=True)
class _Tile:
    """Some stored rows, near each other, as a whole once they are needed."""

    bank: Bank
    units: Units
    index: Tensor

    @cached_property
    def whole(self) -> tuple[Tensor, float]:
        """Scaled rows (n, d) float32, and the largest of their norms."""
        x = torch.cat([x for _, x in self.units.rows(self.bank.stored_at(self.index.cpu().numpy()))])
        return x, float(x.norm(dim=1).max())


class _Search:
    """The closest pair at a distance above 0 among rows of which no two are equal."""

    def __init__(self, bank: Bank, sketches: Sketches, tick: Callable[[int], None]) -> None:
        self.bank, self.sketches, self.tick = bank, sketches, tick
        self.device = sketches.sides[0].device
        self.units = sketches.axes.units

    def closest(self, index: np.ndarray, best: Pair) -> Pair:
        """The closest pair of these stored rows, or `best` if none is closer."""
        parts, sides = self.sketches.tiles(torch.from_numpy(index).to(self.device), TILE), range(1 + self.bank.flips)
        for part in parts:
            tile = _Tile(self.bank, self.units, part)
            for mirrored in sides:
                best = self._look(tile, tile, bool(mirrored), best)
            self.tick(len(part) ** 2)
        boxes = [torch.stack([self.sketches.box(part, bool(mirrored)) for part in parts]) for mirrored in sides]
        wide = max(1, min(16, PANEL // (4 * TILE * self.bank.d)))
        for start in range(0, len(parts), wide):  # The rows of a tile serve all tiles of a panel.
            panel = [_Tile(self.bank, self.units, part) for part in parts[start : start + wide]]
            gaps = [[self.sketches.gaps(box, other).tolist() for other in boxes] for box in boxes[0][start : start + wide]]
            for b in range(start + 1, len(parts)):
                other = panel[b - start] if b < start + wide else _Tile(self.bank, self.units, parts[b])
                for a, tile in enumerate(panel[: b - start]):
                    for mirrored in sides:
                        if gaps[a][mirrored][b] <= best.distance:
                            best = self._look(tile, other, bool(mirrored), best)
                    self.tick(2 * len(tile.index) * len(other.index))
        return best

    def _look(self, a: _Tile, b: _Tile, mirrored: bool, best: Pair) -> Pair:
        """The closest pair of a row of one tile and a row of the other, or its mirror image; or `best`."""
        square = _upper(self.sketches.squares(a.index, b.index, mirrored), a is b)
        limit: Callable[[float], float] = self.sketches.limit
        if not math.isfinite(best.distance):
            likeliest = square.argmin()[None]
            found = square.flatten()[likeliest], likeliest // len(b.index), likeliest % len(b.index)
            best = self._settle(a, b, mirrored, *found, limit, best) if bool(found[0].isfinite()) else best
        if _many(square, limit(best.distance)):
            (x, reach), (other, far) = a.whole, b.whole
            other = other.reshape(-1, *self.bank.shape).flip(-1).reshape(other.shape) if mirrored else other
            square = _upper(squares(x, other), a is b)
            # A row is scaled with one rounding, and its norm is known to what float32 sums lose.
            long, unit, columns = max(reach, far) * (1 + 2 * (self.bank.d + 8) * U32), self.units.unit, self.bank.d + 2

            def limit(distance: float) -> float:
                return limit_of(distance / unit + 4 * U32 * long, columns, long)

        return self._settle(a, b, mirrored, *_below(square, limit(best.distance)), limit, best)

    def _settle(
        self, a: _Tile, b: _Tile, mirrored: bool, square: Tensor, i: Tensor, j: Tensor, limit: Callable[[float], float], best: Pair
    ) -> Pair:
        """The closest of the pairs (i, j), likeliest first, until `limit` rules out the rest; or `best`."""
        order = square.argsort()
        for some in order.split(step_rows(self.bank.d)) if len(order) else ():
            if float(square[some[0]]) > limit(best.distance):
                break
            one, other = a.index[i[some]], b.index[j[some]]
            first, second = torch.minimum(one, other), torch.maximum(one, other) + len(self.bank.rows) * mirrored
            distance = self._distances(first, second)
            nearest = (distance == distance.min()).nonzero().flatten()
            if bool(distance[nearest[0]] <= best.distance) and bool(distance[nearest[0]].isfinite()):
                ties = zip(first[nearest].tolist(), second[nearest].tolist(), strict=True)
                best = min(best, Pair(float(distance[nearest[0]]), *min(ties)))
        return best

    def _distances(self, first: Tensor, second: Tensor) -> Tensor:
        """Distances (n,) of rows in float64; infinite for equal ones."""
        found = distances(len(first), self.bank.d, first.device, lambda k: rows_of(self.bank, first[k]) - rows_of(self.bank, second[k]))
        return torch.where(found > 0, found, torch.inf)


def _upper(square: Tensor, same: bool) -> Tensor:
    """Of a tile with itself, every pair once."""
    if same:
        square.masked_fill_(torch.ones_like(square, dtype=torch.bool).tril_(), torch.inf)
    return square


def _many(square: Tensor, limit: float) -> bool:
    """Whether about more than MANY pairs are not above a limit, from some of the rows that have any."""
    line = (square.amin(1) <= limit).nonzero().flatten()
    some = line[:: max(1, len(line) // 64)]
    return bool(len(some)) and int((square[some] <= limit).sum()) * len(line) > MANY * len(some)


def _below(square: Tensor, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """(values, rows, columns) of the pairs that are not above a limit."""
    limit = min(limit, torch.finfo(square.dtype).max)
    line = (square.amin(1) <= limit).nonzero().flatten()
    some = square[line]
    i, j = (some <= limit).nonzero(as_tuple=True)
    return some[i, j], line[i], j
