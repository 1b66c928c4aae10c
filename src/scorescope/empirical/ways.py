"""Who answers: the engine of floats, for any bank on any device; or, on a CPU, that of digits, faster for rows of 8 bits.

floats   rows in float32, float64 where that decides: PyTorch alone
digits   exact products of 8-bit integers, and loops as machine code (`digits`): 8-bit rows that stay in a CPU's memory
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import torch
from torch import Tensor

from scorescope.empirical import digits, draw, sweep
from scorescope.empirical.digits.draw import draw as draw_by_digits
from scorescope.empirical.digits.family import States as Grouped
from scorescope.empirical.engine import Engine
from scorescope.empirical.posterior import Posterior
from scorescope.empirical.ranks import Ranks
from scorescope.empirical.shelf import Shelf
from scorescope.empirical.states import States
from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.schedule import Schedule

NAMES = ("floats", "digits")


class Sweep(Protocol):
    """Posteriors of pairs or trajectories, chunk by chunk."""

    def run(self, part: slice, /) -> Posterior:
        """Posteriors of one chunk of timesteps, flat (P·T); chunks come in the order of falling σ."""

    def end(self) -> None:
        """No further chunk will be asked for."""


class Way(ABC):
    """How questions about a bank are answered: `engine`, which counts its `work`, and the `shelf` that its rows are read from."""

    name: str
    engine: Any
    shelf: Any

    @abstractmethod
    def single(self, z: Tensor, t: Tensor, schedule: Schedule, label: int | None) -> Posterior:
        """Posteriors of states (B, d) float64 at times (B,)."""

    @abstractmethod
    def pairs(self, schedule: Schedule, x: Tensor, eps: Tensor, times: Tensor, label: int | None) -> Sweep:
        """The sweep of training pairs (P, d) float64 at times (T,)."""

    @abstractmethod
    def trajectories(self, schedule: Schedule, z: Tensor, times: Tensor, label: int | None) -> Sweep:
        """The sweep of the states (P, T, d) of trajectories at times (T,)."""

    @abstractmethod
    def draw(self, z: Tensor, t: Tensor, schedule: Schedule, key: Tensor, parts: draw.Parts) -> Tensor:
        """One row (B,) of each state (B, d) float64, by (label, slice of states)."""


class Floats(Way):
    """For any bank on any device."""

    name = "floats"

    def __init__(self, bank: Bank, device: torch.device, memory: int, tolerance: float, ranks: Ranks) -> None:
        self.shelf = Shelf(bank, device, memory, ranks)
        self.engine = Engine(self.shelf, tolerance, ranks)

    def single(self, z: Tensor, t: Tensor, schedule: Schedule, label: int | None) -> Posterior:
        """As `Way` says."""
        return self.engine.alone(States.of(z, t, schedule, self.shelf.centre, self.shelf.reach), label)

    def pairs(self, schedule: Schedule, x: Tensor, eps: Tensor, times: Tensor, label: int | None) -> Sweep:
        """As `Way` says."""
        return sweep.PairSweep(self.engine, schedule, x, eps, times, label)

    def trajectories(self, schedule: Schedule, z: Tensor, times: Tensor, label: int | None) -> Sweep:
        """As `Way` says."""
        return sweep.TrajectorySweep(self.engine, schedule, z, times, label)

    def draw(self, z: Tensor, t: Tensor, schedule: Schedule, key: Tensor, parts: draw.Parts) -> Tensor:
        """As `Way` says."""
        return draw.draw(self.engine, States.of(z, t, schedule, self.shelf.centre, self.shelf.reach), key, parts)


class Digits(Way):
    """For rows of 8 bits that stay in a CPU's memory."""

    name = "digits"

    def __init__(self, bank: Bank, device: torch.device, memory: int, tolerance: float, ranks: Ranks) -> None:
        self.shelf = digits.shelf.Shelf(bank, device, memory, ranks)
        self.engine = digits.engine.Engine(self.shelf, tolerance, ranks)

    def single(self, z: Tensor, t: Tensor, schedule: Schedule, label: int | None) -> Posterior:
        """As `Way` says."""
        result = Posterior.empty(len(z), self.shelf.bank.shape, z.device)
        self.engine.alone(self._grouped(z, t, schedule), label, result, torch.arange(len(z), device=z.device))
        return result

    def _grouped(self, z: Tensor, t: Tensor, schedule: Schedule) -> Grouped:
        return Grouped.of(z[:, None], t[:, None], schedule, self.shelf.centre, self.shelf.reach)

    def pairs(self, schedule: Schedule, x: Tensor, eps: Tensor, times: Tensor, label: int | None) -> Sweep:
        """As `Way` says."""
        return digits.sweep.PairSweep(self.engine, schedule, x, eps, times, label)

    def trajectories(self, schedule: Schedule, z: Tensor, times: Tensor, label: int | None) -> Sweep:
        """As `Way` says."""
        return digits.sweep.TrajectorySweep(self.engine, schedule, z, times, label)

    def draw(self, z: Tensor, t: Tensor, schedule: Schedule, key: Tensor, parts: draw.Parts) -> Tensor:
        """As `Way` says."""
        return draw_by_digits(self.engine, self._grouped(z, t, schedule), key, parts)


def way_of(bank: Bank, device: torch.device, memory: int, tolerance: float, ranks: Ranks, name: str | None = None) -> Way:
    """The way that is asked for by name, or the faster one.

    Raises:
        InputError: There is no such way, or it can't answer for this bank.
    """
    if name not in (None, *NAMES):
        raise InputError(f"there is no arithmetic {name!r}", " or ".join(NAMES))
    able = digits.able(bank, device, memory, tolerance, ranks)
    if name == "digits" and not able:
        raise InputError(
            "digits are for rows of 8 bits that stay in a CPU's memory, and for tolerances from "
            f"{digits.FINEST:g} on, where numba is installed",
            "arithmetic='floats'",
        )
    digital = able and (name == "digits" or len(bank.rows) * bank.d > digits.SMALL)
    return (Digits if digital else Floats)(bank, device, memory, tolerance, ranks)
