"""Groups of near-duplicate rows: a copy of a row that the bank holds several times is as near to its near-duplicates as to itself.

    gap      d_j < d_{j+1}/3 among a row's ascending distances d_1 ≤ … ≤ d_k to other rows: what lies before its last gap repeats it
    τ        the closest percentile, over real rows, of the distance to the nearest row behind the gap
    group    of a row: itself, all rows nearer to it than τ or equal to it, and their mirror images

Where a bank has no near-duplicates, τ is the closest percentile of the distances between neighbours, and about one row in a hundred has
a group. Where every row has some, τ still lies between the rows that differ. Groups of more than k rows whose distances show no gap
are no groups: they are what the data looks like at that scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from scorescope import seeds
from scorescope.rows.bank import Bank
from scorescope.search.nearest import distances, neighbours, rows_of

NEAREST = 50  # rows whose distances are compared
ROWS = 200  # real rows that τ is taken from: with fewer the percentile is the closest of them, which only makes groups smaller
PERCENTILE = 0.01
GAP = 1 / 3  # as for a copy
ROUNDING = 1e-5  # of floats: solvers end within it, and points of one dimension still lie apart
WIDER = (8 * NEAREST, 64 * NEAREST)  # looked through where all nearest rows are of one group


@dataclass(frozen=True)
class Closeness:
    """What "close" means in a bank; the same whoever asks.

    Attributes:
        near: τ, in model space; 0 where no two rows differ.
        low, high: Of the values: those of 8-bit 0 and 255, else of some rows.
        step: What values are rounded to: one of 255 grey levels for rows of 8 bits, else `ROUNDING` of the range of some rows.
    """

    near: float
    step: float
    low: float
    high: float


_known: WeakKeyDictionary[Bank, Closeness] = WeakKeyDictionary()


def closeness(bank: Bank, device: torch.device | str = "cpu") -> Closeness:
    """τ and the step of a bank, from the same rows each time; found once for an opened bank."""
    if bank not in _known:
        index = np.unique(seeds.choose(0, "null", range(ROWS), len(bank.rows)))
        rows = bank[index].to(device)
        byte = bank.rows.dtype == np.uint8
        low, high = (bank.low, bank.high) if byte else (float(rows.min()), float(rows.max()))
        distance = neighbours(bank, rows, NEAREST, without=torch.from_numpy(index))[1].cpu().numpy()
        _known[bank] = Closeness(_near(distance), (high - low) * (1 / 255 if byte else ROUNDING), low, high)
    return _known[bank]


def _near(distance: np.ndarray) -> float:
    """τ from ascending distances (n, k) of rows to others."""
    if not distance.shape[1]:
        return 0.0
    gap = distance[:, :-1] < GAP * distance[:, 1:]
    place = np.where(gap.any(1), gap.shape[1] - gap[:, ::-1].argmax(1), 0) if gap.shape[1] else np.zeros(len(distance), int)
    behind = distance[np.arange(len(distance)), place]
    behind = behind[behind > 0]
    return float(np.quantile(behind, PERCENTILE, method="lower")) if len(behind) else 0.0


def group_of_first(bank: Bank, index: Tensor, near: float) -> Tensor:
    """Which of rows (B, k) are in the group of the first of their line, (B, k); −1 names no row."""
    first = index[:, :1].expand_as(index)
    point, place = ((index >= 0) & (first >= 0)).nonzero(as_tuple=True)
    i, j = index[point, place], first[point, place]
    found = distances(len(i), bank.d, i.device, lambda some: rows_of(bank, i[some]) - rows_of(bank, j[some]))
    member = torch.zeros_like(index, dtype=torch.bool)
    member[point, place] = (found < near) | (found == 0) | ((i - j) % len(bank.rows) == 0)
    return _with_mirrors(bank, index, member)


def _with_mirrors(bank: Bank, index: Tensor, member: Tensor) -> Tensor:
    """Members (B, k), and mirror images of members."""
    if not bank.flips:
        return member
    stored, wider = torch.where(index < 0, -1, index % len(bank.rows)), member.clone()
    for line in member.any(1).nonzero().flatten().tolist():
        wider[line] = torch.isin(stored[line], stored[line][member[line]])
    return wider


def without_own(bank: Bank, index: Tensor, distance: Tensor, near: float) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbours (B, k) of rows, those of the row's own group taken out: indices, distances, and how many rows the group has.

    What is left moves to the front; −1 and infinite distances fill the end.
    """
    own = _with_mirrors(bank, index, (distance < near) | (distance == 0))
    size = 1 + _stored_rows(bank, index, own)
    order = own.to(torch.uint8).argsort(dim=1, stable=True)
    index, distance = index.masked_fill(own, -1), distance.masked_fill(own, torch.inf)
    return index.gather(1, order), distance.gather(1, order), size


def second_distance(bank: Bank, x: Tensor, index: Tensor, distance: Tensor, near: float) -> tuple[Tensor, Tensor]:
    """Distance (B,) of points x (B, *shape) to the nearest row outside the group of their nearest row, and the group's size (B,).

    Args:
        bank: Whose rows.
        x: Points in model space.
        index: (B, k) their nearest rows, nearest first.
        distance: (B, k) their distances.
        near: τ.

    Returns:
        The distance, infinite where all rows are of one group; the size counts stored rows.
    """
    second, size = _second(bank, index, distance, near)
    for k in WIDER:
        left = second.isinf().nonzero().flatten()
        if not len(left) or index.shape[1] >= len(bank):
            break
        index, distance = neighbours(bank, x[left], k)
        second[left], size[left] = _second(bank, index, distance, near)
    return second, size


def _second(bank: Bank, index: Tensor, distance: Tensor, near: float) -> tuple[Tensor, Tensor]:
    member = group_of_first(bank, index, near)
    return first_outside(distance, member), _stored_rows(bank, index, member)


def first_outside(distance: Tensor, member: Tensor) -> Tensor:
    """The smallest distance (B,) of ascending ones (B, k) that are not a member's; infinite where there is none."""
    left = distance.masked_fill(member, torch.inf)
    return left.amin(1) if left.shape[1] else torch.full_like(left.sum(1), torch.inf)


def _stored_rows(bank: Bank, index: Tensor, member: Tensor) -> Tensor:
    """How many different stored rows the members (B, k) are, (B,)."""
    stored = torch.where(member, index % len(bank.rows), -1).sort(dim=1)[0]
    fresh = torch.ones_like(stored, dtype=torch.bool)
    fresh[:, 1:] = stored[:, 1:] != stored[:, :-1]
    return (fresh & (stored >= 0)).sum(1)
