"""How long an examination will take, from a few evaluations timed on this machine, and what could be left out of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from scorescope.denoiser import Denoiser
from scorescope.progress import span

ADAPTIVE = 70  # evaluations of dopri5 on one path: 60 to 80 for trained networks
SHORT = 3.0  # seconds of a cell up to which some are timed; in longer ones the network takes nearly all
COMPILED = 1.0  # seconds of a timed part from which on it is timed again: on a new machine loops may have been compiled in it
LARGE = 0.3  # share of the whole from which on a stage is worth leaving out


def seconds_each(model: Denoiser, z: Tensor, t: float, label: Tensor | None) -> float:
    """Seconds that a model takes for one of the states z (B, *shape) at time t, when it is asked a second time."""
    model(z, t, label)
    return timed(lambda: model(z, t, label).sum().item()) / len(z)


def timed(work: Callable[[], object]) -> float:
    """Seconds that some work takes."""
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def evaluations(solver: str, steps: int) -> int:
    """How often a solver asks about one path."""
    return ADAPTIVE if solver == "dopri5" else steps * (2 if solver == "heun" else 1) + 1


def words(stages: Mapping[str, float], leave_out: Mapping[str, Sequence[str]]) -> str:
    """The line that says it.

    Args:
        stages: Seconds by name, in order.
        leave_out: For stages that are one probe alone, the other probes.
    """
    total = sum(stages.values())
    parts = ", ".join(f"{name} {span(seconds)}" for name, seconds in stages.items() if seconds >= 0.05 * total)
    line = f"this will take about {span(total)}: {parts}"
    largest = max(stages, key=lambda name: stages[name])
    share = stages[largest] / total if total else 0.0
    if total < 10 or share < LARGE:
        return line
    others = leave_out.get(largest, ())
    without = f"--probes {' '.join(others)} leaves it out" if others else "fewer --paths or --times make it shorter"
    return f"{line}\n{largest} is {100 * share:.0f} % of it: {without}"
