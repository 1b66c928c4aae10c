"""The class-conditional sweep of appendix C.5 on a bank of any size, within a memory budget: seconds and peak resident memory.

python benchmarks/class_sweep.py latents.bank --pairs 200 --memory 8e9
"""

from __future__ import annotations

import argparse
import resource
import time

import torch

from scorescope import seeds
from scorescope.empirical import EmpiricalScore
from scorescope.rows import Bank


def main() -> None:
    """Run the sweep and print what it took."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("bank")
    told.add_argument("--pairs", type=int, default=1000)
    told.add_argument("--times", type=int, default=100)
    told.add_argument("--memory", type=float, default=8e9, help="bytes for rows")
    asked = told.parse_args()
    bank = Bank.open(asked.bank)
    truth = EmpiricalScore(bank, memory=int(asked.memory))
    rows = seeds.choose(0, "row", range(asked.pairs), len(bank))
    eps = seeds.normal(0, "pair", range(asked.pairs), bank.shape)
    label = None if bank.labels is None else torch.from_numpy(bank.labels[rows % len(bank.rows)])
    times = (torch.arange(asked.times, dtype=torch.float64) + 0.5) / asked.times
    begun = time.perf_counter()
    for done, (k, post) in enumerate(truth.supervision_sweep(bank[rows], eps, times, label), 1):
        size = post.mean.flatten(1).norm(dim=1)
        print(
            f"{done} of {len(times)}: t = {times[k]:.3f}, error at most {float((post.error_bound / size).max()):.1e} of the mean", end="\r"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"\n{time.perf_counter() - begun:.1f} s, peak {peak / 1e9:.2f} GB resident; {truth.path}")


if __name__ == "__main__":
    main()
