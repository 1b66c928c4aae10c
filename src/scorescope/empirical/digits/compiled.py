"""The engine's passes over logits as machine code: one visit to each product where PyTorch would make ten.

Logits of some states and the rows of a tile are made in a cache's worth of memory and used there: for nominations, for the sums of a
softmax, for the digits of its weights. States are shared among as many threads as PyTorch may use, and none of them depends on another.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorescope.search.quantize import BASE

try:
    from scorescope.empirical.digits import kernels
except ImportError:  # no numba for this Python or machine: the engine of floats does without
    HERE = False
else:
    HERE = True

DEPTH, LEFT = (kernels.DEPTH, kernels.LEFT) if HERE else (0, 0.0)
SMALL = 1 << 19  # logits that one thread does as soon


def usable(device: torch.device) -> bool:
    """Whether these passes can run where the states are."""
    return HERE and device.type == "cpu"


def shared(count: int, each: int, work: Callable[[int, int], object]) -> None:
    """`work(first, last)` for all of `count` states, `each` logits a state, by several threads."""
    threads = torch.get_num_threads() if count * each > SMALL else 1
    if threads == 1 or count == 1:
        work(0, count)
        return
    size = max(1, math.ceil(count / (4 * threads)))
    for done in [_pool(threads).submit(work, first, min(first + size, count)) for first in range(0, count, size)]:
        done.result()


def evenly(sizes: Tensor, work: Callable[[int, int], object]) -> None:
    """`work(first, last)` for all states, by as many threads as PyTorch may use, each with a like share of the `sizes` (Q,)."""
    threads, ends = torch.get_num_threads(), sizes.cumsum(0)
    if threads == 1 or len(sizes) < 2 or int(ends[-1]) < SMALL:
        work(0, len(sizes))
        return
    cuts = torch.searchsorted(ends, ends[-1] * torch.arange(1, threads) // threads).tolist()
    bounds = [0, *(cut + 1 for cut in cuts), len(sizes)]
    parts = [(first, last) for first, last in itertools.pairwise(bounds) if first < last]
    for done in [_pool(threads).submit(work, *part) for part in parts]:
        done.result()


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "scorescope")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of its parent's threads


def apart(shelf: Any, index: Tensor, z: Tensor, alpha: Tensor, which: Tensor) -> Tensor:
    """‖z_which − α_which x‖² (M,) of 8-bit rows in memory, by index (M,)."""
    out = torch.empty(len(index), dtype=torch.float64)
    rows, own = _digits(shelf, index), (z.numpy(), alpha.numpy(), which.numpy())
    shared(len(index), z.shape[1], lambda first, last: kernels.apart(*rows, *own, first, last, out.numpy()))
    return out


def fetch(shelf: Any, index: Tensor) -> Tensor:
    """8-bit rows in memory (n, d) float64, by index (n,)."""
    out = torch.empty(len(index), shelf.bank.d, dtype=torch.float64)
    rows = _digits(shelf, index)
    shared(len(index), shelf.bank.d, lambda first, last: kernels.fetch(*rows, first, last, out.numpy()))
    return out


def _digits(shelf: Any, index: Tensor) -> tuple[Any, ...]:
    """Rows by index as the kernels take them."""
    place, mirrored = shelf.found(index)
    arrays = [value.numpy() for value in (shelf.in_memory[0].q, place, mirrored)]
    return (*arrays, shelf.bank.shape[-1], shelf.table.numpy(), shelf.zero, shelf.step)


def shape(z: Tensor, unit: Tensor, lot: Tensor, bits: Tensor, back: Tensor, share: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Digits (B, d) int8 of states z (B, d) in their `unit` (B,) with shaped errors, and the norms (B,) of what these leave."""
    digits, left = torch.empty(z.shape, dtype=torch.int8), torch.empty(len(z), dtype=torch.float64)
    own = [value.numpy() for value in (z, unit, lot, bits, back, share, inside, digits, left)]
    groups = -(-len(z) // kernels.LANES) if len(z) else 0
    shared(groups, kernels.LANES * z.shape[1] * len(bits), lambda first, last: kernels.shape(*own, first, last))
    return digits, left


def nominate(nominator: Any, exact: Tensor, square: Tensor, vague: Tensor | None, index: Tensor) -> None:
    """`Nominator`'s pass over one tile."""
    n = nominator
    none = np.zeros(0, np.float32)
    blur, off = (none, none) if vague is None else (n.blur.numpy(), vague.float().numpy())
    rows = (square.float().numpy(), index.numpy(), blur, n.most_blur.numpy(), off)
    fixed = (*rows, n.shell.numpy(), n.steep.numpy(), n.margin.numpy(), n.off.numpy(), n.d)
    state = (n.peak.numpy(), n.best.numpy(), n.many.numpy(), n.many_near.numpy(), *n.lists.arrays, *n.near_lists.arrays)
    place, columns, products = n.family.place.numpy(), n.columns.numpy(), exact.numpy()
    shared(len(n.peak), exact.shape[2], lambda first, last: kernels.nominate(products, place, columns, first, last, *fixed, *state))


def prune(lists: Any, least: Tensor, most: Tensor) -> None:
    """Leave in the lists of all states what is within the limits."""
    limits = (least.numpy(), most.numpy())
    rows = lists.arrays[:3]
    shared(len(lists.used), lists.row.shape[1], lambda first, last: kernels.prune(*rows, first, last, *limits))


def thin(lists: Any, which: Tensor, may: Tensor) -> None:
    """Drop the least rows of the lists `which`, as many as have no more than a share `may` of the weight of all."""
    rows, chosen, share = lists.arrays[:3], which.numpy(), may.numpy()
    shared(len(which), lists.row.shape[1], lambda first, last: kernels.thin(*rows, chosen, first, last, share))


def listed(z: Tensor, lists: Any, which: Tensor, known: tuple[Tensor, ...], shelf: Any) -> tuple[Tensor, ...]:
    """What `listed.listed` sums over the rows of the lists `which`, of states z (sides, B, d): six numbers and moments (sides, B, d)."""
    sums = [torch.zeros(len(which), dtype=torch.float64) for _ in range(5)]
    top, moment = torch.full((len(which),), torch.iinfo(torch.int64).max), torch.zeros_like(z)
    into = [value.numpy() for value in (sums[0], top, *sums[1:], moment)]
    rows, place, own, stored = shelf.in_memory
    fixed = [value.numpy() for value in (*known, rows.q, place, rows.square)]
    states, arrays, chosen = z.numpy(), lists.arrays[:3], which.numpy()

    def work(first: int, last: int) -> None:
        kernels.listed(states, *arrays, chosen, first, last, *fixed, own, stored, shelf.zero, shelf.step, *into)

    evenly(lists.used[which] * z.shape[2], work)
    return (sums[0], top, *sums[1:], moment)


def differences(states: Any, z: Tensor, lists: Any, which: Tensor, shelf: Any) -> Tensor:
    """Logits minus the shell's of the listed rows of `which`, exactly; they are the lists' values then.

    The `states` (Q, 1, d) are those of `which`, and z (sides, Q, d) they and their mirror images, centred.

    Returns:
        (2, Q) float64 how far above and below 0 the nearest are, infinite where there is none.
    """
    away = torch.full((2, len(which)), torch.inf, dtype=torch.float64)
    rows, place, own, stored = shelf.in_memory
    fixed = [value.numpy() for value in (states.slope[:, 0], states.curve[:, 0], states.shell[:, 0], rows.q, place, rows.square)]
    arrays, chosen = lists.arrays[:3], which.numpy()

    def work(first: int, last: int) -> None:
        kernels.differences(z.numpy(), *arrays, chosen, first, last, *fixed, own, stored, shelf.step, away.numpy())

    shared(len(which), int(lists.used[which].sum()) * z.shape[2] // len(which), work)
    return away


def highest(columns: Tensor, exact: Tensor, square: Tensor, index: Tensor, best: Tensor, top: Tensor) -> None:
    """Bring `best` and `top` up to date with a tile's products (B, n): the largest logit without what digits left, and its row."""
    own = [value.numpy() for value in (columns, exact, square, index, best, top)]
    shared(len(best), exact.shape[1], lambda first, last: kernels.highest(*own, first, last))


def above(
    columns: Tensor, exact: Tensor, known: tuple[Tensor, Tensor], index: Tensor, floor: Tensor, row: Tensor, used: Tensor
) -> None:  # fmt: skip
    """Add the rows of a tile whose logit may be as large as `floor` to the lists (B, few); `used` counts on when they are full.

    Of the rows their squared norms and what is lost of them are `known`, (n,) float32 each.
    """
    own = [value.numpy() for value in (columns, exact, *known, index, floor, row, used)]
    shared(len(floor), exact.shape[1], lambda first, last: kernels.above(*own, first, last))


def draw(candidates: Any, part: slice, exact: Tensor, square: Tensor, index: Tensor) -> None:
    """`Candidates`' pass over one tile of products with the states of `part`."""
    c = candidates
    own = [value[part].numpy() for value in (c.columns, c.key, c.steep, c.wide, c.best)]
    (columns, *state), lists = own, [values[part] for values in c.lists.arrays]
    rows, products = (square.numpy(), index.numpy()), exact.numpy()
    shared(len(columns), exact.shape[2], lambda first, last: kernels.draw(products, columns, first, last, *rows, *state, *lists))


def weigh(dense: Any, exact: Tensor, square: Tensor, index: Tensor) -> None:
    """`Dense`'s first pass over one tile."""
    own = (dense.family.place.numpy(), dense.columns.numpy(), dense.group.numpy(), dense.which.numpy())
    rows = (square.numpy(), square.float().numpy(), index.numpy(), dense.start.numpy(), dense.shell.numpy(), dense.levels.numpy())
    found = [dense.sums, dense.high, dense.top, dense.nearest.best, dense.nearest.row, dense.below, dense.above]
    state, products = [value.numpy() for value in found], exact.numpy()
    shared(len(dense.wanted), exact.shape[2], lambda first, last: kernels.weigh(products, *own, first, last, *rows, *state))


def cut(dense: Any, exact: Tensor, square: Tensor, q: Tensor, dither: Tensor, digits: Tensor, moment: Tensor) -> None:
    """`Dense`'s second pass over one tile: digits (M, n) of the states that have planes, and the sums of single rows."""
    own = (dense.family.place.numpy(), dense.columns.numpy(), dense.group.numpy(), dense.which.numpy())
    held = (dense.planes.numpy(), BASE, dither.numpy(), dense.slot.numpy(), digits.numpy(), q.numpy())
    how = (dense.deep.numpy(), dense.unit.numpy(), *held)
    state = [value.numpy() for value in (dense.whole, dense.mass, dense.lost, moment)]
    products, fixed = exact.numpy(), (square.numpy(), dense.start.numpy())
    shared(len(dense.wanted), exact.shape[2], lambda first, last: kernels.cut(products, *own, first, last, *fixed, *how, *state))
