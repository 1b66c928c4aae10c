"""What a method is: a name, what it needs, and a function that makes it ready to answer workloads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.bench.workloads import Workload
from scorescope.rows import Bank
from scorescope.schedule import LinearSchedule

Means = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Posterior means (B, d) of flat states z (B, d) at α and σ, each (B,) float64."""


@dataclass(frozen=True)
class Ready:
    """A method made ready for one bank.

    Attributes:
        answers: Yields (k, posterior means) for every step of a workload.
        path: Says by which way the last answers were found, where there is more than one.
    """

    answers: Callable[[Workload], Iterator[tuple[int, Tensor]]]
    path: Callable[[], str] = lambda: ""


def nothing_lacks(device: torch.device) -> str:
    """For methods that run wherever the package does."""
    return ""


@dataclass(frozen=True)
class Method:
    """One way to the posterior mean.

    Attributes:
        name: What tables and charts call it.
        order: Its place in them.
        about: What it does, in a few words.
        prepare: Makes it ready, given the bank, the device and the bytes that may hold rows (None where nobody said).
        lacking: Why it can't run on a device, or nothing.
        ours: Whether it is the package's own; its times are never scaled.
        resident: Bytes that it keeps for each value of the bank; 0 where it keeps to a budget of its own.
        steps: Timesteps of a sweep that are timed, unless all are asked for; the rest is taken to cost the same.
        states: States of each step that are timed; None for all.
    """

    name: str
    order: int
    about: str
    prepare: Callable[[Bank, torch.device, int | None], Ready]
    lacking: Callable[[torch.device], str] = nothing_lacks
    ours: bool = False
    resident: int = 0
    steps: int = 10
    states: int | None = None


def stepwise(means: Means) -> Ready:
    """A method that knows batches of states and no sweeps."""
    schedule = LinearSchedule()

    def answers(workload: Workload) -> Iterator[tuple[int, Tensor]]:
        for k in range(workload.steps):
            z, t = workload.step(k)
            yield k, means(z.reshape(len(z), -1), *schedule(t.to(z.device))[:2])

    return Ready(answers)


def all_rows(bank: Bank, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Every row, mirrored ones included, (N, d) on a device."""
    rows = torch.empty(len(bank), bank.d, dtype=dtype, device=device)
    start = 0
    for block in bank.blocks(8192):
        rows[start : start + len(block.x)] = block.x.to(device)
        start += len(block.x)
    return rows
