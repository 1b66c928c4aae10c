"""Where the time of the exact score goes: seconds of each part of the engine, on the workloads of `scorescope bench empirical`.

python benchmarks/parts.py cifar10.bank
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from typing import Any

import torch

from scorescope import process
from scorescope.bench import gaussian, workloads
from scorescope.empirical import EmpiricalScore, compiled, dense, engine, products, sweep
from scorescope.rows import Bank

PARTS: dict[str, list[tuple[Any, str]]] = {
    "products of states with rows": [(products, "product")],
    "sums of rows, as products of digits": [(dense, "product")],
    "loops over logits": [(compiled, "nominate"), (compiled, "weigh"), (compiled, "cut")],
    "few rows and some, one by one": [(engine, "settle"), (engine, "listed"), (engine, "ratios")],
    "digits of states": [(engine, "alone"), (sweep, "pairs"), (sweep, "trajectories")],
    "pairs that walk": [(sweep.PairSweep, "_walked")],
}


def timed(function: Callable[..., Any], spent: dict[str, float], part: str) -> Callable[..., Any]:
    """The function, whose time is added to its part's."""

    @wraps(function)
    def measured(*given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        try:
            return function(*given, **named)
        finally:
            spent[part] += time.perf_counter() - begun

    return measured


def main() -> None:
    """Print a table for each workload."""
    process.keep_memory()  # as the command line does
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("bank")
    told.add_argument("--pairs", type=int, default=256)
    told.add_argument("--times", type=int, default=100)
    asked = told.parse_args()
    bank, device = Bank.open(asked.bank), torch.device("cpu")
    truth, spent = EmpiricalScore(bank), defaultdict[str, float](float)
    for part, functions in PARTS.items():
        for home, name in functions:
            setattr(home, name, timed(getattr(home, name), spent, part))
    for work in (
        workloads.pairs(bank, asked.pairs, asked.times, 0, device),
        gaussian.trajectories(bank, asked.pairs, asked.times, 0, device),
        workloads.batches(bank, asked.pairs, 0, device),
    ):
        for _ in work.narrow(8, slice(None, None, 10)).sweep(truth):
            pass  # what is made once
        spent.clear()
        begun = time.perf_counter()
        for _ in work.sweep(truth):
            pass
        whole = time.perf_counter() - begun
        print(f"{work.name}, {work.states} x {work.steps}: {whole:.2f} s, {torch.get_num_threads()} threads; {truth.path}")
        for part, seconds in sorted(spent.items(), key=lambda found: -found[1]):
            print(f"  {seconds / whole:4.0%}  {part}")
        print(f"  {1 - sum(spent.values()) / whole:4.0%}  the rest: moments to means and bounds, copies", flush=True)


if __name__ == "__main__":
    main()
