"""Training examples: item n of a run is the same (row, label, t, ε) whatever the batch size, the rank, or where the run was cut."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scorescope import seeds
from scorescope.rows import Bank


class Batch(NamedTuple):
    """x, eps (B, *shape); t (B,) uniform in [0, 1); item and row (B,), the example's number in the run and its index in the bank;
    label (B,), the null label where it was dropped, or None.
    """

    x: Tensor
    eps: Tensor
    t: Tensor
    item: Tensor
    row: Tensor
    label: Tensor | None

    def to(self, device: torch.device | str) -> Batch:
        """The same examples on a device."""
        return self._replace(**{name: value.to(device) for name, value in self._asdict().items() if value is not None})


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, rows: int) -> np.ndarray:
    return seeds.generator(seed, "epoch", epoch).permutation(rows)


def batch(bank: Bank, seed: int, start: int, size: int, class_dropout: float) -> Batch:
    """Items start … start + size − 1. Each epoch passes over every row of the bank once, in an order of its own."""
    rows, times, dropped, noise = [], [], [], []
    for item in range(start, start + size):
        epoch, place = divmod(item, len(bank))
        rng = seeds.generator(seed, "train", item)
        rows.append(_order(seed, epoch, len(bank))[place])
        times.append(rng.random())
        dropped.append(rng.random() < class_dropout)
        noise.append(rng.standard_normal(bank.shape, dtype=np.float32))
    index = np.array(rows)
    label = None
    if bank.labels is not None:
        label = torch.from_numpy(np.where(dropped, bank.classes, bank.labels[index % len(bank.rows)]))
    drawn = torch.from_numpy(np.stack(noise)), torch.tensor(times, dtype=torch.float64)
    return Batch(bank[index], *drawn, torch.arange(start, start + size), torch.from_numpy(index), label)


def unlabelled(bank: Bank) -> Bank:
    """The same bank, rows and fingerprint, to those who are not to see its labels."""
    other = copy.copy(bank)
    other.labels, other.class_names = None, None
    vars(other).pop("classes", None)
    vars(other)["fingerprint"] = bank.fingerprint
    return other


@contextmanager
def ahead(bank: Bank, seed: int, starts: Iterable[int], size: int, class_dropout: float, depth: int = 3) -> Iterator[Iterator[Batch]]:
    """The batches that begin at `starts`, made by another thread while the ones before are used; at most `depth` wait."""
    with ThreadPoolExecutor(1, thread_name_prefix="examples") as worker:

        def batches() -> Iterator[Batch]:
            left = iter(starts)
            waiting = [worker.submit(batch, bank, seed, start, size, class_dropout) for start in islice(left, depth)]
            while waiting:
                made = waiting.pop(0).result()
                waiting += [worker.submit(batch, bank, seed, start, size, class_dropout) for start in islice(left, 1)]
                yield made

        try:
            yield batches()
        finally:
            worker.shutdown(wait=False, cancel_futures=True)
