"""What a probe sees: one block of states with everything that can be known about it, computed once and only when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scorescope.denoiser import Denoiser
from scorescope.empirical import EmpiricalScore, Posterior
from scorescope.errors import InputError
from scorescope.regions import REGIONS, Noised
from scorescope.rows import Bank

BATCH = 256  # states that go through a network together


class Truths:
    """The exact posteriors of the states of one region, timestep by timestep; shared by every model that is asked about the same states.

    A sweep is begun when a probe first asks for it, and read on to the timestep that is asked about.

    Args:
        score: The exact empirical score.
        sweep: From a label, or None, to (k, posterior) for k = 0, 1, …
        label: (P,) classes of the paths, or None.
    """

    def __init__(
        self, score: EmpiricalScore, sweep: Callable[[Tensor | None], Iterator[tuple[int, Posterior]]], label: Tensor | None
    ) -> None:
        self.score, self.sweep, self.label = score, sweep, label
        self._running: dict[bool, Iterator[tuple[int, Posterior]]] = {}

    def at(self, k: int) -> Truth:
        """Those of timestep k; timesteps are asked about in order."""
        return Truth(self, k)

    def read(self, k: int, conditional: bool) -> Posterior:
        """The posterior of timestep k, among all rows or those of each path's class."""
        if conditional not in self._running:
            self._running[conditional] = self.sweep(self.label if conditional else None)
        return next(posterior for found, posterior in self._running[conditional] if found == k)


class Truth:
    """The exact posteriors of the states of one region at one time."""

    def __init__(self, truths: Truths, k: int) -> None:
        self.score, self._truths, self._k = truths.score, truths, k

    @cached_property
    def whole(self) -> Posterior:
        """Among all rows of the bank."""
        return self._truths.read(self._k, conditional=False)

    @cached_property
    def conditional(self) -> Posterior:
        """Among the rows of each path's class; among all rows for unlabelled paths."""
        return self.whole if self._truths.label is None else self._truths.read(self._k, conditional=True)


@dataclass
class View:
    """The states of P paths of one region at one time t, on the paper's axis.

    Attributes:
        region: "supervision", "extrapolation" or "renoised".
        t: Linear time, above 0.
        z: (P, *shape) states.
        label: (P,) classes, or None.
        model: The model, on the linear axis.
        truth: Exact posteriors of the same states.
        source: Clean points and noise behind noised states; None for trajectories.
    """

    region: str
    t: float
    z: Tensor
    label: Tensor | None
    model: Denoiser
    truth: Truth
    source: Noised | None

    @property
    def d(self) -> int:
        """Dimensions of a state."""
        return self.z[0].numel()

    @cached_property
    def model_mean(self) -> Tensor:
        """The model's posterior mean (P, *shape), conditional on the path's class if it has one; float64."""
        return self._ask(self.label)

    @cached_property
    def model_free(self) -> Tensor:
        """The model's unconditional posterior mean (P, *shape); float64."""
        return self.model_mean if self.label is None else self._ask(None)

    def _ask(self, label: Tensor | None) -> Tensor:
        parts = [
            self.model(z, self.t, None if label is None else label[k * BATCH : k * BATCH + len(z)])
            for k, z in enumerate(self.z.split(BATCH))
        ]
        means = torch.cat(parts).double()
        bad = (~means.isfinite().flatten(1).all(1)).nonzero().flatten()
        if len(bad):
            where = f"at t = {self.t:.4f} in the {self.region} region, path {int(bad[0])} ({len(bad)} of {len(means)} states)"
            raise InputError(
                f"{self.model.name} returned NaN or Inf {where}",
                "a sound checkpoint, or other --times",
            )
        return means


def squared(x: Tensor) -> Tensor:
    """‖x‖² of each of (P, *), float64 (P,)."""
    return x.double().flatten(1).square().sum(1)


Arrays = Mapping[str, Tensor]


@dataclass(frozen=True)
class StateProbe:
    """A measurement at single states.

    Attributes:
        name: What the command line calls it.
        title: What a progress row calls it.
        variables: For each array: (long name, unit).
        measure: From a view to one (P,) tensor a variable.
        regions: Where it is measured.
        needs_guidance: Whether it needs class-conditional and unconditional predictions.
    """

    name: str
    title: str
    variables: Mapping[str, tuple[str, str]]
    measure: Callable[[View], Arrays]
    regions: Sequence[str] = REGIONS
    needs_guidance: bool = False


@dataclass
class Subject:
    """One model, the exact score and the finished samples, for probes that make their own states.

    Attributes:
        model: On the linear axis.
        truth: The exact empirical score on the linear axis.
        bank: The training set.
        samples: (P, *shape) ends of the extrapolation paths.
        labels: (P,) their classes, or None.
        times: (T,) the run's linear times.
        seed: Of the run.
        sizes: The run's sizes, by name.
        classes: The classes that states are given; empty for an unconditional run.
        solver: Keyword arguments for `trajectory`.
        tick: Call with a number of finished units of work.
        shared: A place to keep what is the same for every model of a run.
    """

    model: Denoiser
    truth: EmpiricalScore
    bank: Bank
    samples: Tensor
    labels: Tensor | None
    times: np.ndarray
    seed: int
    sizes: Mapping[str, int]
    classes: Sequence[int]
    solver: Mapping[str, Any]
    tick: Callable[[int], None]
    shared: dict[Any, Any]


@dataclass(frozen=True)
class WholeProbe:
    """A measurement of a whole model or bank.

    Attributes:
        name: What the command line calls it.
        title: What a progress row calls it.
        measure: From a subject to a dataset of one model, in the variables and dimensions of `results`.
        work: Units of work that `measure` will tick, from the subject.
        of_bank: Whether the answer belongs to the bank, whatever the model; it is then measured once.
    """

    name: str
    title: str
    measure: Callable[[Subject], xr.Dataset]
    work: Callable[[Subject], int]
    of_bank: bool = False
