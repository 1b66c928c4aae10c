"""One measuring function: from a model, the exact score and states of regions to one table; the examination, the monitor and
experiments call it, and it writes nothing.

    measure(model, truth, states, probes) -> Dataset      dims (region, path, time) and what probes declare beside them

Inside, a cell is what all probes say of one model, region and time. A run that wants to keep cells as they are made asks for `cells`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
import xarray as xr

from scorescope.denoiser import Denoiser
from scorescope.empirical import Posterior
from scorescope.probes.base import ROW, Exact, StateProbe, Subject, Variable, View, WholeProbe
from scorescope.regions import States, Truth
from scorescope.results import image_dims

Cell = Mapping[str, np.ndarray]
Reader = Callable[[str, str, int], Cell | None]  # from model, region and time to a cell, or None where nothing was measured


def measure(
    model: Denoiser, truth: Truth, states: States | Sequence[States], probes: Sequence[StateProbe], baseline: Denoiser | None = None
) -> xr.Dataset:
    """What probes say of a model at states.

    Args:
        model: On the linear axis (`on_linear_axis`).
        truth: The exact score on the linear axis.
        states: Of one region, or of several with the same paths and times.
        probes: What to measure; each at the regions that it names.
        baseline: A simple denoiser on the linear axis to compare with, by custom the Gaussian of the bank.

    Returns:
        Each probe's variables in the dimensions that it declares, without `model`. What was not measured is NaN, or −1.

    Raises:
        InputError: The model returns NaN or Inf (the time and the path are named).
    """
    several = [states] if isinstance(states, States) else list(states)
    found: dict[tuple[str, str, int], Cell] = {}
    for part in several:
        here = [probe for probe in probes if part.region in probe.regions]
        found |= {(name, part.region, k): cell for k, name, cell in cells({model.name: model}, truth, part, here, baseline=baseline)}
    regions, times = [part.region for part in several], several[0].times
    return table(probes, [model.name], regions, times, lambda *key: found.get(key)).isel(model=0, drop=True)


def cells(
    models: Mapping[str, Denoiser],
    truth: Truth,
    states: States,
    probes: Sequence[StateProbe],
    which: Sequence[int] | None = None,
    baseline: Denoiser | None = None,
) -> Iterator[tuple[int, str, Cell]]:
    """Cells as (time, model, arrays), from noise to data; exact posteriors are found once for all models.

    Args:
        models: By name, on the linear axis.
        truth: The exact score.
        states: Of one region.
        probes: What to measure there.
        which: Indices of the times; all unless given.
        baseline: As `measure` takes it.
    """
    wanted = sorted(range(len(states.times)) if which is None else which, key=lambda k: -states.times[k])
    sweep = _Sweep(truth, states, wanted)
    for step, k in enumerate(wanted):
        exact = Exact(truth.rows, partial(sweep.read, step), states.label is not None)
        for name, model in models.items():
            view = View(states.region, float(states.times[k]), states.at(k), states.label, model, exact, states.source, baseline)
            with torch.inference_mode():
                yield k, name, {key: value.cpu().numpy() for probe in probes for key, value in probe.measure(view).items()}


def table(probes: Sequence[StateProbe], models: Sequence[str], regions: Sequence[str], times: np.ndarray, read: Reader) -> xr.Dataset:
    """Cells as one dataset, with the dimension `model`."""
    about = {name: variable for probe in probes for name, variable in probe.variables.items()}
    coordinates: dict[str, Any] = {"model": list(models), "region": list(regions), "time": times}
    values: dict[str, np.ndarray] = {}
    for model, region, k in product(models, regions, range(len(times))):
        place = {"model": list(models).index(model), "region": list(regions).index(region), "time": k}
        for name, value in (read(model, region, k) or {}).items():
            dims = _dims(about[name], value.ndim, place)
            if name not in values:
                inner = iter(value.shape)
                shape = [len(coordinates[dim]) if dim in place else next(inner) for dim in dims]
                dtype = np.dtype(about[name].dtype)
                values[name] = np.full(shape, np.nan if dtype.kind == "f" else -1, dtype)
            values[name][tuple(place.get(dim, slice(None)) for dim in dims)] = value
    data = {name: _variable(about[name], value) for name, value in values.items()}
    return xr.Dataset(data, coords=coordinates)


def _variable(variable: Variable, value: np.ndarray, model: bool = True) -> xr.Variable:
    """An array as the variable that was declared, with the dimension `model` or without."""
    about = {"long_name": variable.long_name, "units": variable.unit}
    return xr.Variable(_dims(variable, value.ndim, (), model), value.astype(variable.dtype), about)


def _dims(variable: Variable, ndim: int, fixed: Container[str], model: bool = True) -> tuple[str, ...]:
    """A variable's dimensions, where an array of `ndim` axes has all but the `fixed` ones; `ROW` takes up what the others leave."""
    dims = ("model", *variable.dims) if model and not variable.of_bank else variable.dims
    row = image_dims((1,) * (ndim - sum(dim not in fixed for dim in dims) + 1)) if ROW in dims else ()
    return tuple(one for dim in dims for one in (row if dim == ROW else (dim,)))


class _Sweep:
    """The exact posteriors of one region at some times; begun when a probe first asks, and read on from there."""

    def __init__(self, truth: Truth, states: States, which: Sequence[int]) -> None:
        self.truth, self.states, self.which = truth, states, which
        self._running: dict[bool, Iterator[tuple[int, Posterior]]] = {}
        self._ahead: dict[tuple[bool, int], Posterior] = {}

    def read(self, step: int, conditional: bool) -> Posterior:
        """Those of step `step`, asked for once, among all rows or those of each path's class."""
        if conditional not in self._running:
            label = self.states.label if conditional else None
            self._running[conditional] = self.states.sweep(self.truth, self.which, label)
        while (conditional, step) not in self._ahead:
            found, posterior = next(self._running[conditional])
            self._ahead[conditional, found] = posterior
        return self._ahead.pop((conditional, step))


def measure_whole(probe: WholeProbe, subject: Subject) -> xr.Dataset:
    """What a probe that makes its own states says of one model, in the dimensions that it declares, without `model`."""
    with torch.inference_mode():
        return as_dataset(probe, probe.measure(subject))


def as_dataset(probe: WholeProbe, found: Mapping[str, Any]) -> xr.Dataset:
    """What a whole probe gave, in the dimensions that it declares, without `model`."""
    data = {name: _variable(probe.variables[name], np.asarray(found[name]), model=False) for name in probe.variables if name in found}
    return xr.Dataset(data, coords={name: value for name, value in found.items() if name not in probe.variables})


def together(probe: WholeProbe, parts: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """What a probe said of several models, by name, as one dataset; what belongs to the bank is the first's."""
    first = next(iter(parts.values()))
    of_bank = [name for name in first.data_vars if probe.variables[str(name)].of_bank]
    if probe.of_bank:
        return first
    own = xr.concat([part.drop_vars(of_bank) for part in parts.values()], xr.IndexVariable("model", list(parts)), combine_attrs="override")
    return own.merge(first[of_bank], combine_attrs="override")
