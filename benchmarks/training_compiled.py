"""What torch.compile gives a step of training and of sampling, ours and diffusers': CPU seconds of one thread.

python benchmarks/training_compiled.py sit-desk unet-desk

All four (ours and theirs, compiled and not) take turns, and medians are shown. CPU seconds do not count what other processes take of the
machine; so they hold on one that is busy, for one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from scorescope.bench.training import SIDES, Case, Runner
from scorescope.training.compiling import check_compiler

KINDS = ("train", "sample")
EACH = 2  # steps of a turn


def spent(runner: Runner, kind: str, count: int) -> float:
    """CPU seconds of a step, by so many."""
    begun = time.process_time()
    for _ in range(count):
        getattr(runner, kind)()
    return (time.process_time() - begun) / count


def main() -> None:
    """Print a table for each preset."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("presets", nargs="+")
    told.add_argument("--batch", type=int, default=8)
    told.add_argument("--repeats", type=int, default=5)
    asked = told.parse_args()
    torch.set_num_threads(1)
    check_compiler("cpu")
    for name in asked.presets:
        ways = [(side, compiled) for compiled in (True, False) for side in SIDES]
        runners = {way: Runner(Case(name, asked.batch, "cpu", "float32", 1, way[1]), way[0]) for way in ways}
        for runner in runners.values():
            for kind in KINDS:
                spent(runner, kind, EACH)  # compiles
        found: dict[tuple[str, bool], dict[str, list[float]]] = {way: {kind: [] for kind in KINDS} for way in ways}
        for turn in range(asked.repeats):
            for way in ways if turn % 2 else reversed(ways):
                for kind in KINDS:
                    found[way][kind].append(spent(runners[way], kind, EACH))
        for (side, compiled), times in found.items():
            mid = {kind: f"{statistics.median(times[kind]):.3f} ({min(times[kind]):.3f}–{max(times[kind]):.3f})" for kind in KINDS}
            print(f"{name:<12}{side:<12}{'compiled' if compiled else 'plain':<10}train {mid['train']}  sample {mid['sample']}")


if __name__ == "__main__":
    main()
