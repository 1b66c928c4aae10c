"""Exact nearest rows and closest pairs: float32 products nominate, float64 differences decide."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorescope.bank import Bank
from scorescope.empirical.score import full_precision
from scorescope.empirical.shelf import Shelf

SPARE = 8  # nominated beyond the k that are asked for


def nearest_rows(shelf: Shelf, x: Tensor, k: int, *, without: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k nearest rows of every point x (B, *shape): indices (B, k) and Euclidean distances (B, k) float64, nearest first.

    Mirrored rows count where the bank has flips. Ties go to the smaller index. `without` (B,) names a stored row that each point must
    not find (its own, and that row's mirror image). k is cut to the number of rows there are.
    """
    bank, flat = shelf.bank, x.to(shelf.device, torch.float64).reshape(len(x), -1)
    n = len(bank.rows)
    k = min(k, len(bank) - (0 if without is None else len(bank) // n))
    best = torch.full((len(x), 0), torch.inf, dtype=torch.float64, device=shelf.device)
    index = torch.zeros((len(x), 0), dtype=torch.int64, device=shelf.device)
    with full_precision(shelf.device):
        centred = flat - shelf.mean.double()
        sides = [centred.float()] + ([shelf.mirror(centred).float()] if bank.flips else [])
        for rows in shelf.rows(None):
            for mirrored, side in enumerate(sides):
                square = rows.square - 2 * (side @ rows.centred(torch.float32).T).double()
                if without is not None:
                    square = torch.where(rows.index == without[:, None].to(shelf.device), torch.inf, square)
                best = torch.cat([best, square], 1)
                index = torch.cat([index, (rows.index + n * mirrored).expand(len(x), -1)], 1)
                keep = min(k + SPARE, best.shape[1])
                best, place = best.topk(keep, dim=1, largest=False)
                index = index.gather(1, place)
    distance = torch.empty_like(best)
    for j in range(0, len(x), 64):
        part = slice(j, j + 64)
        rows64 = shelf.fetch(index[part].flatten()).reshape(*index[part].shape, -1)
        distance[part] = torch.where(best[part].isinf(), torch.inf, (flat[part, None] - rows64).norm(dim=2))
    order = np.lexsort((index.cpu().numpy(), distance.cpu().numpy()), axis=1)[:, :k]
    chosen = torch.from_numpy(order).to(shelf.device)
    return index.gather(1, chosen), distance.gather(1, chosen)


@dataclass(frozen=True)
class Pair:
    """Two different rows and their Euclidean distance; index −1 and an infinite distance where there is no such pair."""

    first: int
    second: int
    distance: float


def closest_pair(shelf: Shelf, label: int | None, *, distinct: bool = False) -> Pair:
    """The closest pair of stored rows of one class, or of all; with `distinct`, of rows that are not exact copies of each other.

    With flips a row may also be close to another row's mirror image; then the second index is N + i.
    """
    bank = shelf.bank
    wanted = bank.indices(label)
    best = Pair(-1, -1, float("inf"))
    x = bank[wanted].reshape(len(wanted), -1).to(shelf.device) - shelf.mean
    square = x.double().square().sum(1)
    # The float32 products are off by at most this much in the squared distance, so nothing nearer is missed.
    slack = 4 * (bank.d + 8) * 2.0**-24 * float(square.max())
    sides = [(x, 0)] + ([(shelf.mirror(x), len(bank.rows))] if bank.flips else [])
    with full_precision(shelf.device):
        for start in range(0, len(x), 512):
            mine = x[start : start + 512]
            for side, offset in sides:
                apart = square[start : start + 512, None] + square[None, start:] - 2 * (mine @ side[start:].T).double()
                apart = torch.where(torch.ones_like(apart, dtype=torch.bool).triu(1), apart, torch.inf)
                best = _closer(best, apart, start, wanted, offset, slack, bank, distinct)
    return best


def _closer(best: Pair, apart: Tensor, start: int, wanted: np.ndarray, offset: int, slack: float, bank: Bank, distinct: bool) -> Pair:
    """The better of `best` and what a block of approximate squared distances holds, settled in float64."""
    flat = apart.flatten()
    looked = 0
    while looked < len(flat):
        more = min(max(64, 8 * looked), len(flat))
        values, order = flat.topk(more, largest=False)
        for value, place in zip(values[looked:].tolist(), order[looked:].tolist(), strict=True):
            if value == float("inf") or value - slack > best.distance**2:
                return best
            i, j = divmod(place, apart.shape[1])
            first, second = int(wanted[start + i]), int(wanted[start + j]) + offset
            distance = float((bank[first].double() - bank[second].double()).norm())
            if distance < best.distance and not (distinct and distance == 0):
                best = Pair(first, second, distance)
        looked = more
    return best


def duplicates(bank: Bank) -> int:
    """How many stored rows repeat an earlier row exactly."""
    seen: set[bytes] = set()
    for start in range(0, len(bank.rows), 1024):
        for row in np.ascontiguousarray(bank.rows[start : start + 1024]).reshape(-1, int(np.prod(bank.shape))):
            seen.add(hashlib.blake2b(row.tobytes(), digest_size=16).digest())
    return len(bank.rows) - len(seen)
