"""Nearest rows and closest pairs beside plain PyTorch in float32, in seconds of CPU time on one thread.

    python benchmarks/search.py photos.bank synthetic:latents:20000 noise:10000     500 points, 50 rows each; pairs of 10,000 rows

Points are rows with noise of a tenth of the radius, so none is a row. Plain PyTorch has all rows in memory, as float32 or as stored (and
makes float32 of a block at a time), and answers in float32 alone: product and topk, a block at a time; for pairs product and min.
The first question includes the making of sketches.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

import scorescope as ss
from scorescope.bench.synthetic import PREFIX, synthetic

BLOCK, TILE = 8192, 2048


def opened(name: str) -> ss.Bank:
    """A bank in memory: a folder, synthetic:KIND:ROWS, or noise:ROWS, which no sketch helps with."""
    if name.startswith("noise:"):
        return ss.Bank.from_arrays(np.random.default_rng(0).standard_normal((int(name[6:]), 3, 32, 32)).astype(np.float32))
    if name.startswith(PREFIX):
        return synthetic(name)
    bank = ss.Bank.open(name)
    return ss.Bank.from_arrays(np.asarray(bank.rows[:]), bank.labels, low=bank.low, high=bank.high)


def plain_neighbours(read: Callable[[slice], Tensor], count: int, x: Tensor, k: int) -> Tensor:
    """Indices (B, k) of the nearest of so many rows, by float32 alone; `read` gives some of them (n, d)."""
    value, index = torch.empty(len(x), 0), torch.empty(len(x), 0, dtype=torch.int64)
    for start in range(0, count, BLOCK):
        some = read(slice(start, min(start + BLOCK, count)))
        near, place = (x @ some.T).mul_(-2).add_(some.square().sum(1)).topk(min(k, len(some)), dim=1, largest=False)
        value, index = torch.cat([value, near], 1), torch.cat([index, place + start], 1)
        value, place = value.topk(min(k, value.shape[1]), dim=1, largest=False)
        index = index.gather(1, place)
    return index


def plain_pair(rows: Tensor) -> float:
    """The least squared distance of two of rows (N, d), by float32 alone."""
    square, best = rows.square().sum(1), float("inf")
    for a in range(0, len(rows), TILE):
        for b in range(a, len(rows), TILE):
            one, other = slice(a, a + TILE), slice(b, b + TILE)
            found = (rows[one] @ rows[other].T).mul_(-2).add_(square[other]).add_(square[one, None])
            if a == b:
                found.fill_diagonal_(float("inf"))
            best = min(best, float(found.min()))
    return best


def seconds(work: Callable[[], object]) -> float:
    """CPU time of a call."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main() -> None:
    """Measure the banks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("banks", nargs="+", help="bank folders, synthetic:KIND:ROWS, noise:ROWS")
    parser.add_argument("--points", type=int, default=500)
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=10_000, help="rows whose closest pair is sought; 0 for none")
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print("| bank | nearest: plain float32 | plain stored | ours first | ours later | pairs: plain float32 | ours |")
    print("|---|---|---|---|---|---|---|")
    for name in asked.banks:
        bank = opened(name)
        rows, n = bank[np.arange(len(bank.rows))].flatten(1), len(bank.rows)
        some = bank[np.linspace(0, n - 1, asked.points).astype(np.int64)]
        x = some + 0.1 * bank.radius / bank.d**0.5 * torch.randn(some.shape, generator=torch.Generator().manual_seed(0))

        def read(part: slice, bank: ss.Bank = bank) -> Tensor:
            return torch.from_numpy(bank.decode(bank.stored(part.start, part.stop))).flatten(1)

        ways = (
            partial(plain_neighbours, rows.__getitem__, n, x.flatten(1), asked.k),
            partial(plain_neighbours, read, n, x.flatten(1), asked.k),
            partial(ss.neighbours, bank, x, asked.k),
        )
        first = seconds(ways[2])
        taken = [[seconds(way) for way in ways] for _ in range(asked.repeats)]
        plain, stored, later = (statistics.median(column) for column in zip(*taken, strict=True))
        line = [name, plain, stored, first, later]
        if asked.pairs:
            labels = None if bank.labels is None else bank.labels[: asked.pairs]
            small = ss.Bank.from_arrays(np.asarray(bank.rows[: asked.pairs]), labels, low=bank.low, high=bank.high)
            line += [small.radius and seconds(partial(plain_pair, rows[: asked.pairs])), seconds(partial(ss.closest_pairs, small))]
        print("| " + " | ".join(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in line) + " |", flush=True)


if __name__ == "__main__":
    main()
