"""Exact nearest rows and closest pairs: float32 products nominate, float64 differences decide.

A float32 product is off by less than a proven bound. Where the bound leaves room for a row that was not nominated (many near-ties, many
copies), the question is asked again of all rows in float64, so that the answer never depends on blocks, batches or rounding.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorescope.bank import Bank
from scorescope.empirical.engine import U32, U64
from scorescope.empirical.score import full_precision
from scorescope.empirical.shelf import Shelf

SPARE = 8  # nominated beyond the k that are asked for
VALUES = 1 << 22  # float64 values of one step of direct differences


def nearest_rows(shelf: Shelf, x: Tensor, k: int, *, without: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest rows of every point x (B, *shape): indices (B, k) and Euclidean distances (B, k) float64, nearest first.

    Mirrored rows count where the bank has flips. Ties go to the smaller index. `without` (B,) names a stored row that each point must
    not find (its own, and that row's mirror image). k is cut to the number of rows there are.
    """
    bank, flat = shelf.bank, x.to(shelf.device, torch.float64).reshape(len(x), shelf.bank.d)
    banned = None if without is None else without.to(shelf.device)
    k = min(k, len(bank) - (0 if banned is None else len(bank) // len(bank.rows)))
    if not k or not len(x):
        nothing = torch.zeros((len(x), k), dtype=torch.float64, device=shelf.device)
        return nothing.long(), nothing
    with full_precision(shelf.device):
        nominated, floor = _nominate(shelf, flat, k, banned)
        index, distance = _settle(shelf, flat, nominated, banned, k)
        # No row that was not nominated is nearer than `floor`.
        doubtful = (~(distance[:, -1] < floor)).nonzero().flatten()
        if len(doubtful):
            index[doubtful], distance[doubtful] = _search(shelf, flat[doubtful], k, None if banned is None else banned[doubtful])
    return index, distance


def _nominate(shelf: Shelf, flat: Tensor, k: int, banned: Tensor | None) -> tuple[Tensor, Tensor]:
    """Indices of the k + SPARE rows nearest by float32 products, and the distance (B,) below which every row is among them."""
    bank, n = shelf.bank, len(shelf.bank.rows)
    centred = flat - shelf.mean.double()
    sides = [centred.float()] + ([shelf.mirror(centred).float()] if bank.flips else [])
    best = torch.full((len(flat), 0), torch.inf, dtype=torch.float64, device=shelf.device)
    index = torch.zeros((len(flat), 0), dtype=torch.int64, device=shelf.device)
    for rows in shelf.rows(None):
        for mirrored, side in enumerate(sides):
            square = rows.square - 2 * (side @ rows.centred(torch.float32).T).double()
            if banned is not None:
                square = torch.where(rows.index == banned[:, None], torch.inf, square)
            best = torch.cat([best, square], 1)
            index = torch.cat([index, (rows.index + n * mirrored).expand(len(flat), -1)], 1)
            best, place = best.topk(min(k + SPARE, best.shape[1]), dim=1, largest=False)
            index = index.gather(1, place)
    if best.shape[1] == len(bank):
        return index, torch.full((len(flat),), torch.inf, dtype=torch.float64, device=shelf.device)
    norm, terms = centred.norm(dim=1), (bank.d + 8) * U32
    off = 2 * norm * shelf.reach * terms / (1 - terms) + (bank.d + 8) * U64 * (norm + shelf.reach) ** 2
    return index, (best[:, -1] + norm**2 - off).clamp(min=0).sqrt()


def _settle(shelf: Shelf, flat: Tensor, index: Tensor, banned: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The nominated rows in order of their distance in float64, then of their index; the first k."""
    distance = torch.empty(index.shape, dtype=torch.float64, device=shelf.device)
    step = max(1, VALUES // (index.shape[1] * shelf.bank.d))
    for start in range(0, len(flat), step):
        part = slice(start, start + step)
        rows = shelf.fetch(index[part].flatten()).reshape(*index[part].shape, -1)
        distance[part] = (flat[part, None] - rows).norm(dim=2)
    if banned is not None:
        distance = torch.where(index % len(shelf.bank.rows) == banned[:, None], torch.inf, distance)
    return _first(index, distance, k)


def _search(shelf: Shelf, flat: Tensor, k: int, banned: Tensor | None) -> tuple[Tensor, Tensor]:
    """The same from direct differences in float64 with every row."""
    n = len(shelf.bank.rows)
    best = torch.zeros((len(flat), 0), dtype=torch.float64, device=shelf.device)
    index = torch.zeros((len(flat), 0), dtype=torch.int64, device=shelf.device)
    for rows in shelf.rows(None):
        x = rows.x.double()
        for mirrored, side in enumerate([x, shelf.mirror(x)] if shelf.bank.flips else [x]):
            distance = torch.cdist(flat, side, compute_mode="donot_use_mm_for_euclid_dist")
            if banned is not None:
                distance = torch.where(rows.index == banned[:, None], torch.inf, distance)
            joined = torch.cat([index, (rows.index + n * mirrored).expand(len(flat), -1)], 1)
            index, best = _first(joined, torch.cat([best, distance], 1), k)
    return index, best


def _first(index: Tensor, distance: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k smallest distances of every line, ties in order of the index."""
    order = np.lexsort((index.cpu().numpy(), distance.cpu().numpy()), axis=1)[:, :k]
    chosen = torch.from_numpy(order).to(index.device)
    return index.gather(1, chosen), distance.gather(1, chosen)


@dataclass(frozen=True, order=True)
class Pair:
    """Two different rows and their Euclidean distance; index −1 and an infinite distance where there is no such pair."""

    distance: float
    first: int
    second: int


NO_PAIR = Pair(float("inf"), -1, -1)


def closest_pair(shelf: Shelf, label: int | None, *, distinct: bool = False) -> Pair:
    """The closest pair of stored rows of one class, or of all; with `distinct`, of rows that are not exact copies of each other.

    With flips a row may also be close to another row's mirror image; then the second index is N + i. Ties go to the smaller indices.
    """
    bank = shelf.bank
    wanted = bank.indices(label)
    original = _originals(bank, wanted)
    copies = wanted[original != wanted]
    if len(copies) and not distinct:
        return min(Pair(0.0, int(first), int(second)) for first, second in zip(original[original != wanted], copies, strict=True))
    wanted = wanted[original == wanted]
    x = bank[wanted].reshape(len(wanted), -1).to(shelf.device) - shelf.mean
    square = x.double().square().sum(1)
    # The float32 products are off by at most this much in the squared distance, so nothing nearer is missed.
    slack = 4 * (bank.d + 8) * U32 * float(square.max())
    sides = [(x, 0)] + ([(shelf.mirror(x), len(bank.rows))] if bank.flips else [])
    best = NO_PAIR
    with full_precision(shelf.device):
        for start in range(0, len(x), 512):
            mine = x[start : start + 512]
            for side, offset in sides:
                apart = square[start : start + 512, None] + square[None, start:] - 2 * (mine @ side[start:].T).double()
                apart = torch.where(torch.ones_like(apart, dtype=torch.bool).triu(1), apart, torch.inf)
                best = _closer(best, apart, wanted[start:], offset, slack, bank, distinct)
    return best


def _closer(best: Pair, apart: Tensor, index: np.ndarray, offset: int, slack: float, bank: Bank, distinct: bool) -> Pair:
    """The better of `best` and what a block of approximate squared distances holds, settled in float64."""
    flat = apart.flatten()
    near = (flat.isfinite() & (flat <= best.distance**2 + slack)).nonzero().flatten()
    for part in near[flat[near].argsort()].split(max(16, VALUES // (2 * bank.d))):
        if not len(part) or float(flat[part[0]]) - slack > best.distance**2:
            break
        i, j = np.divmod(part.cpu().numpy(), apart.shape[1])
        first, second = index[i], index[j] + offset
        distance = (bank[first].double() - bank[second].double()).flatten(1).norm(dim=1).numpy()
        found = np.flatnonzero(distance > 0) if distinct else np.arange(len(distance))
        if len(found):
            least = found[np.lexsort((second[found], first[found], distance[found]))[0]]
            best = min(best, Pair(float(distance[least]), int(first[least]), int(second[least])))
    return best


def _originals(bank: Bank, index: np.ndarray) -> np.ndarray:
    """For each of these stored rows, the first of them that is exactly equal to it (perhaps itself)."""
    seen: dict[bytes, int] = {}
    original = []
    for start in range(0, len(index), 1024):
        part = index[start : start + 1024]
        # Adding zero turns the negative zero of floats, which is equal to zero, into it.
        for row, values in zip(part, np.asarray(bank.rows[part]) + bank.rows.dtype.type(0), strict=True):
            key = hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).digest()
            original.append(seen.setdefault(key, int(row)))
    return np.array(original, dtype=np.int64)


def duplicates(bank: Bank) -> int:
    """How many stored rows repeat an earlier row exactly."""
    index = np.arange(len(bank.rows))
    return int((_originals(bank, index) != index).sum())
