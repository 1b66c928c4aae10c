"""What the networks of an experiment cost, before one is trained: operations, hours, memory and disk; and the command for each.

    operations   3 · forward pass · batch · steps: a backward pass takes two forward ones (encoders and exact scores are not counted)
    hours        operations / (peak of the device · the share of it that is reached)
    memory       20 bytes a parameter: weights, gradients, Adam's two moments, the average; what layers keep for the backward pass is not
                 counted
    disk         16 bytes a parameter for a checkpoint, 4 more for each set of weights that is kept

`python benchmarks/cost_model.py` times steps of the desk's networks against the first line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from scorescope import nets
from scorescope.evaluate import flops
from scorescope.evaluate.operations import si
from scorescope.progress import span
from scorescope.training.presets import presets
from scorescope.training.recipe import Recipe

BACKWARD = 3
PEAK, REACHED = 989e12, 0.35
"""An H100's bfloat16 operations a second (the paper has four, C.1), and the share that training is commonly said to reach; not measured
here."""
CORE = 25e9
"""What a processor's core does of the desk's networks: 11 to 36 G a second in two runs of `benchmarks/cost_model.py`."""
RANKS = 4
"""Devices of the paper (C.1)."""


@dataclass(frozen=True)
class Training:
    """A network that an experiment needs.

    Attributes:
        name: In a few words.
        recipe: Of it.
        bank: Name of the bank that it is trained on.
        shape, classes: Of the bank's rows.
        keep: Steps whose weights are kept.
    """

    name: str
    recipe: Recipe[Any, Any]
    bank: str
    shape: tuple[int, ...]
    classes: int
    keep: tuple[int, ...] = ()

    def counted(self) -> tuple[int, float]:
        """Parameters of the network, and operations of its training."""
        with torch.device("meta"):  # neither memory nor time, whatever the size
            net = nets.build(self.recipe.net.on(self.shape, self.classes))
        forward = flops(net, self.shape, 0 if self.classes else None).total
        return sum(p.numel() for p in net.parameters()), float(BACKWARD) * forward * self.recipe.batch * self.recipe.steps

    def command(self, out: str) -> str:
        """How it is trained on the paper's devices, into the folder `out`."""
        known = {name: one for name, one in presets().items() if one.family == self.recipe.family}
        wanted = self.recipe.record()
        others = {name: _differing(wanted, one.record()) for name, one in known.items()}
        nearest = min(others, key=lambda name: len(others[name]))
        words = [f"--{key.replace('_', '-')} {_words(value)}".strip() for key, value in others[nearest].items() if value not in ("", False)]
        start = f"torchrun --nproc-per-node {RANKS} -m scorescope train --preset {nearest} --bank {self.bank}.bank --device cuda"
        kept = f"--keep {' '.join(map(str, self.keep))}" if self.keep else ""
        return " ".join(part for part in (start, "--watch-every 0", *words, kept, f"--out {out}") if part)


def _differing(wanted: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in wanted.items() if known.get(key) != value and key != "family"}


def _words(value: Any) -> str:
    """An option's value; a flag has none."""
    return "" if value is True else " ".join(map(str, value)) if isinstance(value, list) else str(value)


def table(trainings: Sequence[Training], paper: bool) -> list[str]:
    """A line a network, and one for all; time is that of an H100 at the paper's scale, else that of a processor's core."""
    speed = PEAK * REACHED if paper else CORE
    counted = [one.counted() for one in trainings]
    lines = []
    for one, (size, work) in zip(trainings, counted, strict=True):
        state, kept = si(20 * size), si((16 + 4 * len(one.keep)) * size)
        lines.append(f"{one.name:<36}{si(size):>8} parameters{si(work):>9}FLOP{span(work / speed):>14}{state:>9}B{kept:>9}B")
    whole, on = sum(work for _, work in counted), "an H100 at 35 % of its bfloat16 peak" if paper else "one core of a processor"
    return [*lines, f"{len(lines)} networks: {si(whole)}FLOP, {span(whole / speed)} of {on}; then memory of the training's state, and disk"]
