"""Exact nearest rows: products nominate with a proven bound, direct differences in float64 decide.

    1. Sketches of all rows, where a sample of the bank says that they are of use: short float32 products leave few rows to most points.
    2. Whole rows for the other points: one float32 product.

Either way the likeliest rows are settled first, and then every row that the bound leaves within the distance of the k-th of them, so
that the answer never depends on blocks, batches or rounding. Sketches are kept while the bank is open: 4 bytes a coordinate, of which
there are 46 to 257 a row, and made once as many points were asked for as their making costs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from scorescope.errors import InputError
from scorescope.rows.bank import Bank
from scorescope.search.bounds import TINY, Points, columns
from scorescope.search.products import U32, U64, full_precision
from scorescope.search.sketch import LONGEST, SETTLE, Sketches
from scorescope.search.units import Units

FARTHEST = 1e100  # values whose squares and sums float64 holds with ease
SPARE = 8  # nominated beyond the k that are asked for
BLOCK = 1 << 23  # values of one block of rows
QUERIES = 512  # points that are multiplied by a block at a time
SKETCHES = 1 << 16  # of one block
VALUES = 1 << 18  # float64 values of one step of direct differences

_known: WeakKeyDictionary[Bank, dict[torch.device, tuple[int, Sketches | None]]] = WeakKeyDictionary()


def neighbours(bank: Bank, x: Tensor, k: int, *, without: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest rows of points x (B, *shape), exact: indices (B, k) and Euclidean distances (B, k) float64, nearest first.

    Computed on the device of x. Mirrored rows count where the bank has flips.
    Distances are those of direct differences in float64, ties go to the smaller index. k is cut to the number of rows there are.

    Args:
        bank: Whose rows.
        x: Points in model space.
        k: How many rows.
        without: (B,) a stored row that each point must not find (its own, and that row's mirror image).

    Raises:
        InputError: Points of another shape, or not finite (named); k below 1.
    """
    for name, given in (("points", x), ("without", x if without is None else without)):
        if not isinstance(given, Tensor):
            raise InputError(f"{name}: {type(given).__name__} is not a tensor", "torch.as_tensor(…)")
    if x.is_complex() or not isinstance(k, int) or (without is not None and (without.is_floating_point() or without.shape != x.shape[:1])):
        raise InputError(f"neighbours of {x.dtype}, k = {k!r}, without = {without}", "real points, a whole k, one row number a point")
    if tuple(x.shape[1:]) != bank.shape:
        raise InputError(f"points of shape {tuple(x.shape[1:])} do not match the bank's rows {bank.shape}")
    if k < 1:
        raise InputError(f"k = {k} asks for no rows", "k of at least 1")
    flat = x.detach().double().reshape(len(x), bank.d)
    broken = (~(flat.abs() <= FARTHEST).all(1)).nonzero().flatten().tolist()
    if broken:
        named = ", ".join(map(str, broken[:5]))
        raise InputError(f"points {named} contain NaN or Inf, or values beyond {FARTHEST:g} ({len(broken)} of {len(x)})")
    banned = None if without is None else without.to(x.device)
    k = min(k, len(bank) - (0 if banned is None else len(bank) // len(bank.rows)))
    if not k or not len(x):
        nothing = torch.zeros((len(x), k), dtype=torch.float64, device=x.device)
        return nothing.long(), nothing
    with full_precision(x.device):
        units, sketches = Units.of(bank, x.device), _sketches(bank, x.device, len(x))
        slack = 8 * U64 * (flat.norm(dim=1) + units.centre.norm()) / units.unit
        whole = [Points(units.scaled(side), slack, units.unit) for side in _sides(bank, flat)]
        if sketches is None:
            return _Search(bank, flat, banned, k, whole, lambda: _whole(bank, units)).run()[:2]
        points = [sketches.points(side) for side in _sides(bank, flat)]
        index, distance, left = _Search(
            bank, flat, banned, k, points, lambda: _sketched(sketches), _Single(bank, units, whole, sketches.norms)
        ).run()
        if len(left):
            some = [points[left] for points in whole]
            search = _Search(bank, flat[left], None if banned is None else banned[left], k, some, lambda: _whole(bank, units))
            index[left], distance[left], _ = search.run()
    return index, distance


def _sides(bank: Bank, flat: Tensor) -> list[Tensor]:
    """Points (B, d) and, with flips, their mirror images: ⟨z, mirror(x)⟩ = ⟨mirror(z), x⟩, so that mirrored rows are never made."""
    return [flat, flat.reshape(-1, *bank.shape).flip(-1).flatten(1)] if bank.flips else [flat]


def _sketches(bank: Bank, device: torch.device, count: int) -> Sketches | None:
    """Those of all rows, once whole rows would cost as much for the points asked for so far; None where they are of no use."""
    known = _known.setdefault(bank, {})
    asked, sketches = known.get(device, (0, None))
    if sketches is None and 0 <= asked <= LONGEST:
        asked += count
        if asked > LONGEST and len(bank.rows) > 4 * LONGEST:
            sketches = Sketches(bank, device, each=True)
            if sketches.axes.useful:
                for start, stored in _stored(bank):
                    sketches.take(start, stored)
            else:
                sketches = None
    known[device] = asked, sketches
    return sketches


def _stored(bank: Bank) -> Iterator[tuple[int, np.ndarray]]:
    """All stored rows, a block at a time."""
    step, n = max(64, BLOCK // bank.d), len(bank.rows)
    for start in range(0, n, step):
        yield start, bank.stored(start, min(start + step, n))


def _whole(bank: Bank, units: Units) -> Iterator[tuple[int, Tensor]]:
    """The columns of whole rows, a block at a time, in memory that lasts until the next."""
    room = torch.empty(0, device=units.centre.device)
    for start, stored in _stored(bank):
        size = (len(stored), bank.d + 2)
        if room.numel() < size[0] * size[1]:
            room = torch.empty(size, device=room.device)
        out = room.flatten()[: size[0] * size[1]].view(size)
        for first, x in units.rows(stored):
            out[first : first + len(x), : bank.d] = x
            columns(x, out[first : first + len(x)])
        yield start, out


def _sketched(sketches: Sketches) -> Iterator[tuple[int, Tensor]]:
    """The columns of sketches, a block at a time."""
    for start in range(0, len(sketches.sides[0]), SKETCHES):
        yield start, columns(sketches.sides[0][start : start + SKETCHES])


@dataclass(frozen=True)
class _Single:
    """Single whole rows, of which `norms` (N,) are known, against `points` and their mirror images.

    Rows are slope·v + offset of the stored values v, so that ⟨a, row⟩ = slope·⟨a, v⟩ + ⟨a, offset⟩ and rows need not be centred.
    """

    bank: Bank
    units: Units
    points: list[Points]
    norms: Tensor

    def within(self, point: Tensor, row: Tensor, side: int, distance: Tensor) -> Tensor:
        """Which pairs (M,) of points, in order, and stored rows may be within a distance (B,) of the point."""
        units, points, d = self.units, self.points[side], self.bank.d
        room, found = torch.empty((units.step, d), device=row.device), []
        each, count = point.unique_consecutive(return_counts=True)
        for i, rows in zip(each.tolist(), row.split(count.tolist()), strict=True):
            for some in rows.split(len(room)):
                stored = torch.from_numpy(self.bank.stored_at(some.cpu().numpy())).reshape(len(some), d)
                found.append(room[: len(some)].copy_(stored).mul_(units.slope) @ points.left[i, :d])
        norm, gamma = self.norms[row].double(), (d + 16) * U32 / (1 - (d + 16) * U32)
        product = torch.cat([*found, room[0, :0]]).double() + (points.left[:, :d].double() @ units.offset)[point]
        product += norm.square() / (2 * points.long[point])
        # Products are off by γ times the norms of what is multiplied, rows by what the table of 8-bit values and float32 round.
        off = 4 * gamma * (norm + norm.square() + units.offset.norm() + units.centre.norm() / units.unit) + TINY
        return ~(product > points.limit(distance)[point] + off)


@dataclass(frozen=True)
class _Search:
    """The nearest k rows of points `flat` (B, d) float64, each but the stored row `banned` (B,) and its mirror image.

    Attributes:
        points: The points, or their sketches, and the same of their mirror images.
        blocks: (first row, columns (n, w + 2)) of all rows or their sketches.
        single: The whole points where `points` are sketches, which may leave too many rows.
    """

    bank: Bank
    flat: Tensor
    banned: Tensor | None
    k: int
    points: list[Points]
    blocks: Callable[[], Iterator[tuple[int, Tensor]]]
    single: _Single | None = None

    def run(self) -> tuple[Tensor, Tensor, Tensor]:
        """Indices and distances (B, k), and the points (M,) for which too many rows are left to settle one by one."""
        index, value = self._nominate()
        index, distance = self._settle(index, value)
        # No row that was not nominated is nearer than the last of those that were.
        doubtful = value[:, -1] <= self.points[0].limit(distance[:, -1])
        if self.single:
            return index, distance, self._widen(index, distance, torch.ones_like(doubtful))
        if bool(doubtful.any()) and value.shape[1] < len(self.bank):
            return index, distance, self._widen(index, distance, doubtful)
        return index, distance, doubtful[:0].nonzero().flatten()

    def _products(self, likely: bool = False) -> Iterator[tuple[slice, Tensor, int]]:
        """(points, their products (b, n) with rows, index of the first row); rows are read once and in order."""
        sides = [points.likely() for points in self.points] if likely and self.single else self.points
        n = len(self.bank.rows)
        for start, rows in self.blocks():
            for first in range(0, len(self.flat), QUERIES):
                part = slice(first, first + QUERIES)
                for mirrored, points in enumerate(sides):
                    product = points[part].products(rows)
                    if self.banned is not None:
                        column = self.banned[part] - start
                        line = ((column >= 0) & (column < len(rows))).nonzero().flatten()
                        product[line, column[line]] = torch.inf
                    yield part, product, start + n * mirrored

    def _nominate(self) -> tuple[Tensor, Tensor]:
        """The k + SPARE likeliest rows (B, w) and their products, ascending."""
        wanted = min(self.k + SPARE + self.k // 4, len(self.bank))
        best = torch.full((len(self.flat), wanted), torch.inf, device=self.flat.device)
        index = torch.zeros_like(best, dtype=torch.int64)
        for part, product, start in self._products(likely=True):
            if bool(best[part, -1].isinf().any()):
                near, place = product.topk(min(wanted, product.shape[1]), dim=1, largest=False)
                found, near = torch.cat([index[part], place + start], 1), torch.cat([best[part], near], 1)
            else:  # most rows are farther than the last of the best so far
                line, row = (product < best[part, -1:]).nonzero(as_tuple=True)
                found, near = _appended(index[part], best[part], line, row + start, product[line, row])
            best[part], place = near.topk(wanted, dim=1, largest=False)
            index[part] = found.gather(1, place)
        return index, best

    def _settle(self, index: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The first k of these rows (B, w) by distance in float64, then by index; their products `value` (B, w) ascend."""
        distance = torch.full_like(value, torch.inf, dtype=torch.float64)
        first = torch.ones_like(index).cumsum(1) <= self.k
        for chosen in (first, ~first):
            # Places that no row has taken are infinitely far, as limits are of points beyond float32.
            wanted = chosen & value.isfinite() & (value <= self.points[0].limit(distance[:, : self.k].amax(1))[:, None])
            point, place = wanted.nonzero(as_tuple=True)
            distance[point, place] = self._distances(point, index[point, place])
        return _first(index, distance, self.k)

    def _widen(self, index: Tensor, distance: Tensor, asked: Tensor) -> Tensor:
        """Put better ones of all rows that the bounds do not rule out into these (B, k), for the points that are asked (B,) for.

        Returns:
            The points (M,) for which sketches leave more rows than multiplying whole rows would cost.
        """
        n = len(self.bank.rows)
        spent, enough = torch.zeros_like(index[:, 0]), len(self.bank) // SETTLE + 2 * self.k
        for part, product, start in self._products():
            possible = product <= self.points[0][part].limit(distance[part, -1])[:, None]
            possible &= asked[part, None]
            column = index[part] - start
            line, place = ((column >= 0) & (column < product.shape[1])).nonzero(as_tuple=True)
            possible[line, column[line, place]] = False
            point, row = possible.nonzero(as_tuple=True)
            point, row = point + part.start, row + start
            if self.single:
                spent += torch.bincount(point, minlength=len(spent))
                point, row = point[spent[point] <= enough], row[spent[point] <= enough]
                kept = self.single.within(point, row - start // n * n, start // n, distance[:, -1])
                point, row = point[kept], row[kept]
            if len(point):
                found = self._distances(point, row)
                index[part], distance[part] = _joined(index[part], distance[part], point - part.start, row, found)
        return (asked & (spent > enough)).nonzero().flatten()

    def _distances(self, point: Tensor, index: Tensor) -> Tensor:
        found = distances(
            len(index), self.bank.d, index.device, lambda i: self.flat.index_select(0, point[i]).sub_(rows_of(self.bank, index[i]))
        )
        return found if self.banned is None else found.masked_fill(index % len(self.bank.rows) == self.banned[point], torch.inf)


def _joined(index: Tensor, distance: Tensor, line: Tensor, more: Tensor, further: Tensor) -> tuple[Tensor, Tensor]:
    """The first k of rows (B, k) and of `more` (M,), each of one line, at distances `further`."""
    return _first(*_appended(index, distance, line, more, further), index.shape[1])


def _appended(index: Tensor, value: Tensor, line: Tensor, more: Tensor, further: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (B, k) and their values, with `more` (M,) rows and values, each at the end of its line (M,); inf where it is short."""
    count = torch.bincount(line, minlength=len(index))
    place = index.shape[1] + torch.arange(len(line), device=line.device) - (count.cumsum(0) - count)[line]
    size = (len(index), index.shape[1] + int(count.max()))
    every, values = index.new_zeros(size), value.new_full(size, torch.inf)
    every[:, : index.shape[1]], values[:, : index.shape[1]] = index, value
    every[line, place], values[line, place] = more, further
    return every, values


def rows_of(bank: Bank, index: Tensor) -> Tensor:
    """Rows of model space by index, flat and in float64, on the index's device."""
    return bank[index].reshape(len(index), -1).to(index.device).double()


def step_rows(d: int) -> int:
    """How many direct differences are taken in one step."""
    return max(16, min(256, VALUES // d))


def distances(n: int, d: int, device: torch.device, difference: Callable[[Tensor], Tensor]) -> Tensor:
    """Norms (n,) of difference(i) (len(i), d) for i < n, in float64.

    All steps have one shape, so that equal differences have equal norms wherever they are asked for, to the last digit.
    """
    step = step_rows(d)
    steps = torch.arange(-(-n // step) * step, device=device).clamp(max=n - 1).split(step) if n else ()
    return torch.cat([torch.zeros(0, dtype=torch.float64, device=device), *(difference(i).norm(dim=1) for i in steps)])[:n]


def _first(index: Tensor, distance: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest distances of every line, ties in order of the index."""
    order = index.argsort(dim=1, stable=True)
    index, distance = index.gather(1, order), distance.gather(1, order)
    distance, order = distance.sort(dim=1, stable=True)
    return index.gather(1, order)[:, :k], distance[:, :k]
