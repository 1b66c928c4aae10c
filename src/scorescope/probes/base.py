"""What a probe is and what it sees.

A `StateProbe` measures at single states, and gives one array a variable; a `WholeProbe` makes states of its own. Both declare their
variables, with dimensions, type and unit, and the rows of the bank whose pictures a report may want beside them: nothing outside a
probe's file knows its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from scorescope.sampler import Solver

BATCH = 256  # states that go through a network together
ROW = "row axes"  # stands for the axes of one row among a variable's dimensions: axis_0, axis_1, …


@dataclass(frozen=True)
class Variable:
    """One variable of the results.

    Attributes:
        long_name: What it is.
        unit: Of its values.
        dims: Its dimensions in the results, beside `model`; `ROW` for those of one row.
        dtype: Of its values. What was not measured is NaN, or −1 where the type has none.
        of_bank: Whether it belongs to the bank, whatever the model: then it has no dimension `model`.
    """

    long_name: str
    unit: str
    dims: tuple[str, ...] = ("region", "path", "time")
    dtype: str = "float64"
    of_bank: bool = False


Variables = Mapping[str, Variable]
Arrays = Mapping[str, Tensor]
Rows = Callable[[xr.Dataset], Sequence[np.ndarray]]


def no_rows(results: xr.Dataset) -> Sequence[np.ndarray]:
    """The rows of a probe that points at none."""
    return ()


@dataclass
class Exact:
    """The exact posteriors of the states of one region at one time, each computed when it is first asked for.

    Attributes:
        rows: Rows of the bank (B, *shape) by index (B,).
        read: Computes posteriors: conditional ones, or those among all rows.
        labelled: Whether the paths have classes.
    """

    rows: Callable[[Tensor], Tensor]
    read: Callable[[bool], Posterior]
    labelled: bool

    @cached_property
    def whole(self) -> Posterior:
        """Among all rows of the bank."""
        return self.read(False)

    @cached_property
    def conditional(self) -> Posterior:
        """Among the rows of each path's class; among all rows for unlabelled paths."""
        return self.read(True) if self.labelled else self.whole


@dataclass
class View:
    """The states of P paths of one region at one time t, on the paper's axis, with everything that can be known about them.

    Attributes:
        region: One of `regions.REGIONS`.
        t: Linear time, above 0.
        z: (P, *shape) states.
        label: (P,) classes, or None.
        model: The model, on the linear axis.
        truth: Exact posteriors of the same states.
        source: Clean points and noise behind noised states; None for trajectories.
        baseline: A simple denoiser to compare with, the Gaussian of the bank; None for none.
    """

    region: str
    t: float
    z: Tensor
    label: Tensor | None
    model: Denoiser
    truth: Exact
    source: Noised | None
    baseline: Denoiser | None = None

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

    @cached_property
    def baseline_mean(self) -> Tensor:
        """The baseline's posterior mean (P, *shape), conditional on the path's class if it has one; float64."""
        assert self.baseline is not None
        return self.baseline(self.z, self.t, self.label if self.baseline.classes else None).double()

    def _ask(self, label: Tensor | None) -> Tensor:
        parts = [
            self.model(z, self.t, None if label is None else label[k * BATCH : k * BATCH + len(z)])
            for k, z in enumerate(self.z.split(BATCH))
        ]
        means = torch.cat(parts).double()
        bad = (~means.isfinite().flatten(1).all(1)).nonzero().flatten()
        if len(bad):
            where = f"at t = {self.t:.4f} in the {self.region} region, path {int(bad[0])} ({len(bad)} of {len(means)} states)"
            raise InputError(f"{self.model.name} returned NaN or Inf {where}", "a sound checkpoint, or other --times")
        return means


def squared(x: Tensor) -> Tensor:
    """‖x‖² of each of (P, *), float64 (P,)."""
    return x.double().flatten(1).square().sum(1)


@dataclass(frozen=True)
class StateProbe:
    """A measurement at single states.

    Attributes:
        name: What the command line calls it.
        title: What a progress row calls it.
        variables: What it gives.
        measure: From a view to one array a variable, in the variable's dimensions without `region` and `time`.
        regions: Where it is measured.
        needs_guidance: Whether it needs class-conditional and unconditional predictions.
        rows: From the results to the rows that it points at.
        of_states: Whether it looks at states and samples alone, and not at what a model answers there.
    """

    name: str
    title: str
    variables: Variables
    measure: Callable[[View], Arrays]
    regions: Sequence[str] = REGIONS
    needs_guidance: bool = False
    rows: Rows = no_rows
    of_states: bool = False


@dataclass(frozen=True)
class Setting:
    """What a run is: times, sizes and streams, the same for all its models.

    Attributes:
        times: (T,) linear times.
        sizes: How much to measure, by name: paths, origins, nulls.
        seed: Names every random stream.
        classes: The classes that states are given; empty for an unconditional run.
        solver: How paths are integrated.
        shared: A place to keep what is the same for every model of a run.
        returns: How return to origin is measured: "search", or "grid" for all of C.4's times.
        copier: Whether the exact score's path from the same noise means something: it does where the models' target is E[x | z_t].
    """

    times: np.ndarray
    sizes: Mapping[str, int]
    seed: int
    classes: Sequence[int]
    solver: Solver
    shared: dict[Any, Any]
    returns: str = "search"
    copier: bool = True


@dataclass
class Subject:
    """One model, the exact score and the finished samples, for probes that make their own states.

    Attributes:
        model: On the linear axis.
        truth: The exact empirical score on the linear axis.
        bank: The training set.
        samples: (P, *shape) ends of the extrapolation paths; none for a probe of the bank.
        labels: (P,) their classes, or None.
        setting: Of the run.
        held_out: Rows that training never saw, or None.
        states: From k to the states (P, *shape) of the extrapolation paths at time k of the setting.
        r_star: (P, T) of these, where it was measured.
        tick: Call with a number of finished units of work.
    """

    model: Denoiser
    truth: EmpiricalScore
    bank: Bank
    samples: Tensor
    labels: Tensor | None
    setting: Setting
    held_out: Bank | None = None
    states: Callable[[int], Tensor] = lambda k: torch.zeros(0)
    r_star: np.ndarray | None = None
    tick: Callable[[int], None] = lambda units: None


@dataclass(frozen=True)
class WholeProbe:
    """A measurement of a whole model or bank.

    Attributes:
        name: What the command line calls it.
        title: What a progress row calls it.
        variables: What it gives.
        measure: From a subject to one array a variable, in the variable's dimensions, and coordinates, by name.
        work: Units of work that `measure` will tick, from the subject.
        of_bank: Whether the answer belongs to the bank, whatever the model; it is then measured once.
        rows: From the results to the rows that it points at.
        cost: Roughly how often `measure` asks the model, and the exact score, about one state; None where that is not what takes time.
        of_states: Whether it looks at states and samples alone, and not at what a model answers there.
    """

    name: str
    title: str
    variables: Variables
    measure: Callable[[Subject], Mapping[str, Any]]
    work: Callable[[Subject], int]
    of_bank: bool = False
    rows: Rows = no_rows
    cost: Callable[[Subject], tuple[float, float]] | None = None
    of_states: bool = False


def of_variables(*names: str) -> Rows:
    """The rows that these variables hold; those that were not measured are passed over."""
    return lambda results: [results[name].values for name in names if name in results]
