"""Exact nearest rows: products nominate with a proven bound, direct differences in float64 decide.

Rows that are stored in 8 bits are multiplied as integers, without any error, by points rounded to 16 bits; others in float32. Where
the bound leaves room for a row that was not nominated (many near-ties, many copies), a second pass settles every such row, so that
the answer never depends on blocks, batches or rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.errors import InputError
from scorescope.rows.bank import Bank
from scorescope.search.bounds import bounds_for
from scorescope.search.products import full_precision

FARTHEST = 1e100  # values whose squares and sums float64 holds with ease
SPARE = 8  # nominated beyond the k that are asked for
BLOCK = 1 << 25  # values of one block of rows
QUERIES = 256  # points that are multiplied by a block at a time
VALUES = 1 << 18  # float64 values of one step of direct differences


def neighbours(bank: Bank, x: Tensor, k: int, *, without: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest rows of points x (B, *shape), exact: indices (B, k) and Euclidean distances (B, k) float64, nearest first.

    Computed on the device of x; the rows are read once and in order, whatever B. Mirrored rows count where the bank has flips.
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
        nominated, least = _Search(bank, flat, banned, k).nominate()
        index, distance = _Search(bank, flat, banned, k).settle(nominated, least)
        # No row that was not nominated is nearer than the last of those that were.
        doubtful = (~(distance[:, -1] < least[:, -1])).nonzero().flatten()
        if len(doubtful) and nominated.shape[1] < len(bank):
            again = _Search(bank, flat[doubtful], None if banned is None else banned[doubtful], k)
            index[doubtful], distance[doubtful] = again.widen(index[doubtful], distance[doubtful])
    return index, distance


@dataclass(frozen=True)
class _Search:
    """The nearest k rows of points `flat` (B, d) float64, each but the stored row `banned` (B,) and its mirror image."""

    bank: Bank
    flat: Tensor
    banned: Tensor | None
    k: int

    def nominate(self) -> tuple[Tensor, Tensor]:
        """The k + SPARE rows (B, w) with the least bounds, and the bounds on their distances, ascending."""
        wanted = min(self.k + SPARE, len(self.bank))
        best = torch.full((len(self.flat), wanted), torch.inf, dtype=torch.float64, device=self.flat.device)
        index = torch.zeros_like(best, dtype=torch.int64)
        for part, least, rows in self._bounds():
            near, place = least.topk(min(wanted, least.shape[1]), dim=1, largest=False)
            near, found = torch.cat([best[part], near], 1), torch.cat([index[part], rows[place]], 1)
            best[part], place = near.topk(wanted, dim=1, largest=False)
            index[part] = found.gather(1, place)
        return index, best

    def _bounds(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """(points, bounds on their distances (b, n), indices of the rows (n,)); rows are read once and in order."""
        step, n, bounds = max(64, min(8192, BLOCK // self.bank.d)), len(self.bank.rows), bounds_for(self.bank, self.flat)
        for start in range(0, n, step):
            stored = self.bank.stored(start, min(start + step, n))
            index = torch.arange(start, start + len(stored), device=self.flat.device)
            bounds.load(stored)
            for first in range(0, len(self.flat), QUERIES):
                part = slice(first, first + QUERIES)
                for mirrored in (False, True) if self.bank.flips else (False,):
                    least = bounds.squares(part, mirrored).clamp_(min=0).sqrt_().sub_(bounds.slack[part, None])
                    if self.banned is not None:
                        least.masked_fill_(index == self.banned[part, None], torch.inf)
                    yield part, least, index + n * mirrored

    def settle(self, index: Tensor, least: Tensor) -> tuple[Tensor, Tensor]:
        """The first k of these rows (B, w) by distance in float64, then by index; `least` (B, w) bounds the distances, ascending."""
        distance = torch.full_like(least, torch.inf)
        every = torch.ones_like(least, dtype=torch.bool)
        first = every.cumsum(1) <= self.k
        for chosen in (first, ~first):
            wanted = chosen & (least <= distance[:, : self.k].amax(1, keepdim=True))
            point, place = wanted.nonzero(as_tuple=True)
            distance[point, place] = self._distances(point, index[point, place])
        return _first(index, distance, self.k)

    def widen(self, index: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        """These rows (B, k), or better ones of all that the bounds do not rule out."""
        for part, least, rows in self._bounds():
            possible = least <= distance[part, -1:]
            for line in possible.any(1).nonzero().flatten().tolist():
                point, fresh = part.start + line, rows[possible[line]]
                fresh = fresh[~torch.isin(fresh, index[point])]
                further = self._distances(torch.full_like(fresh, point), fresh)
                joined, both = torch.cat([index[point], fresh]), torch.cat([distance[point], further])
                index[point], distance[point] = (found[0] for found in _first(joined[None], both[None], self.k))
        return index, distance

    def _distances(self, point: Tensor, index: Tensor) -> Tensor:
        found = distances(len(index), self.bank.d, index.device, lambda i: self.flat[point[i]] - rows_of(self.bank, index[i]))
        return found if self.banned is None else found.masked_fill(index % len(self.bank.rows) == self.banned[point], torch.inf)


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
