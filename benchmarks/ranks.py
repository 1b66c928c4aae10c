"""How the time of a query falls with the number of processes that share a bank's rows.

for n in 1 2 4; do torchrun --nproc-per-node $n benchmarks/ranks.py cifar10.bank; done

Each process has one thread; more processes than cores take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import torch

import scorescope as ss
from scorescope import process
from scorescope.bench import workloads


def main() -> None:
    """Print a line from the first process."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("bank")
    told.add_argument("--pairs", type=int, default=128)
    told.add_argument("--times", type=int, default=50)
    told.add_argument("--repeats", type=int, default=3)
    asked = told.parse_args()
    process.keep_memory()
    torch.set_num_threads(1)  # torchrun sees to that where it launches several
    bank, device = ss.Bank.open(asked.bank), torch.device("cpu")
    truth = ss.sharded_score(bank)
    said = []
    for work in (workloads.pairs(bank, asked.pairs, asked.times, 0, device), workloads.batches(bank, asked.pairs, 0, device)):
        spent = []
        for repeat in range(asked.repeats + 1):
            begun = time.perf_counter()
            for _ in work.sweep(truth):
                pass
            if repeat:  # the first makes what is made once
                spent.append(time.perf_counter() - begun)
        said.append(f"{work.name} {work.states} x {work.steps} {statistics.median(spent):.2f} s")
    if os.environ.get("RANK", "0") == "0":
        print(f"{os.environ.get('WORLD_SIZE', '1')} processes: {', '.join(said)}", flush=True)


if __name__ == "__main__":
    main()
