"""How the cost of a query grows with the bank: seconds a state on several banks of one kind, and the exponent that fits them.

for n in 10000 80000 320000 1281167; do python benchmarks/imagenet_latents.py --rows $n --out $n.bank; done
python benchmarks/scaling.py 10000.bank 80000.bank 320000.bank 1281167.bank --memory 8e9

States lie on the shells of random rows at random times, with and without a signal, among all rows (no labels). `--plain` asks plain
PyTorch too: two float32 products and a streaming softmax over the same rows, read from the disk a chunk at a time.
"""

from __future__ import annotations

import argparse
import math
import resource
import statistics
import time

import numpy as np
import torch

from scorescope import seeds
from scorescope.bench.methods.naive import CHUNK, means_of
from scorescope.empirical import EmpiricalScore
from scorescope.rows import Bank


def main() -> None:
    """Measure every bank, the smallest first, and print a line each."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("banks", nargs="+")
    told.add_argument("--states", type=int, default=64, help="of a batch")
    told.add_argument("--repeats", type=int, default=3)
    told.add_argument("--memory", type=float, default=8e9, help="bytes for rows")
    told.add_argument("--plain", action="store_true", help="plain float32 PyTorch beside it, once for each bank")
    asked = told.parse_args()
    found = []
    for bank in sorted((Bank.open(path) for path in asked.banks), key=len):
        truth = EmpiricalScore(bank, memory=int(asked.memory))
        rows = seeds.choose(0, "row", range(asked.states), len(bank))
        t = torch.tensor([seeds.generator(0, "time", k).uniform(1e-3, 1 - 1e-3) for k in range(asked.states)], dtype=torch.float64)
        at = t.view(-1, *[1] * len(bank.shape))
        z = (1 - at) * bank[rows].double() + at * seeds.normal(0, "pair", range(asked.states), bank.shape).double()
        truth.posterior(z[:2], t[:2])  # what is made once
        spent = []
        for _ in range(asked.repeats):
            begun = time.perf_counter()
            truth.posterior(z, t)
            spent.append((time.perf_counter() - begun) / asked.states)
        found.append((len(bank), statistics.median(spent)))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(
            f"{len(bank):>9,} rows with mirror images: {found[-1][1]:.4f} s a state, peak {peak / 1e9:.2f} GB resident; {truth.path}",
            flush=True,
        )
        if asked.plain:
            alpha, sigma = truth.schedule(t)[:2]
            chunks = ((block.x, block.x.square().sum(1) / 2) for block in bank.blocks(CHUNK))
            begun = time.perf_counter()
            means_of(z.flatten(1), alpha, sigma, chunks)
            plain = (time.perf_counter() - begun) / asked.states
            print(f"          plain float32 PyTorch: {plain:.4f} s a state, {plain / found[-1][1]:.2f} times as long", flush=True)
    if len(found) > 1:
        n, seconds = np.log(np.array(found).T)
        growth = math.log(found[-1][1] / found[0][1]) / math.log(found[-1][0] / found[0][0])
        print(f"exponent {np.polyfit(n, seconds, 1)[0]:.2f} by least squares, {growth:.2f} from the first to the last")


if __name__ == "__main__":
    main()
