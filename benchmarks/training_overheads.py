"""What region-controlled training and the microscope add to a training step, on one bank.

python benchmarks/training_overheads.py cifar10.bank --preset sit-desk

All kinds of runs take turns, and medians over their steps are shown.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from scorescope.monitor import Microscope
from scorescope.nets import build
from scorescope.rows import Bank
from scorescope.training.loop import Hooks, Snapshot, train
from scorescope.training.objectives.region import Region
from scorescope.training.presets import preset

STEPS, FIRST = 25, 5  # steps of a run; those before `FIRST` are not counted


class Clock:
    """A watcher that notes when every step ends."""

    every = 1

    def __init__(self) -> None:
        self.ends: list[float] = []

    def __call__(self, snapshot: Snapshot) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())


def run(recipe: Any, bank: Bank) -> float:
    """Median seconds of a step of a new run."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        train(replace(recipe, steps=STEPS), bank, folder, hooks=Hooks(save_every=1e9, watchers=[clock]))
    ends = clock.ends[FIRST:]
    return statistics.median(end - begun for begun, end in pairwise(ends))


def main() -> None:
    """Print a line for each kind of step, and one for the microscope."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("bank")
    told.add_argument("--preset", default="sit-desk")
    told.add_argument("--score-rows", type=int, nargs="*", default=[10_000, 50_000])
    told.add_argument("--repeats", type=int, default=3)
    asked = told.parse_args()
    bank, plain = Bank.open(asked.bank), preset(asked.preset)
    kinds = {"dsm": plain}
    for rows in asked.score_rows:
        kinds[f"region, |D_score| = {rows:,}"] = replace(plain, objective=Region(score_rows=rows, region_rows=len(bank.rows)))
    spent: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(asked.repeats):
        for name, recipe in kinds.items():
            spent[name].append(run(recipe, bank))
    step = statistics.median(spent["dsm"])
    for name, times in spent.items():
        ratio = statistics.median(own / other for own, other in zip(times, spent["dsm"], strict=True))
        print(f"{name:<28}{statistics.median(times):.3f} s a step of {plain.batch}, {ratio:.3f} of plain DSM")
    network = build(plain.net.on(bank.shape, bank.classes)).eval()
    watcher = Microscope(bank, plain, 500)
    with tempfile.TemporaryDirectory() as folder:
        watcher(Snapshot(0, network, 0.0, Path(folder)))  # what is found once
        looks = []
        for k in range(asked.repeats):
            begun = time.perf_counter()
            watcher(Snapshot(500 * (k + 1), network, 0.0, Path(folder)))
            looks.append(time.perf_counter() - begun)
    look = statistics.median(looks)
    share = look / (watcher.every * step)
    print(f"a look {look:.1f} s, every {watcher.every} steps: {share:.1%} of the time; {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
