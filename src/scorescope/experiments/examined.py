"""Experiments that are an examination: some networks, a bank, one of the report's figures and some of its claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import xarray as xr

from scorescope import claims, registry
from scorescope.charts.grammar import Drawing
from scorescope.claims import Judged
from scorescope.denoiser import Denoiser
from scorescope.experiments.experiment import Cell, Reading
from scorescope.experiments.store import Store
from scorescope.results import largest


@dataclass(frozen=True)
class Look:
    """What is examined.

    Attributes:
        bank: Name of the bank, as `Store.bank` knows it.
        held_out: Of the rows that training never saw; empty for none.
        models: Names, as the experiment's own function makes networks of them.
        probes: What to measure.
        paths, times, origins, solver, steps, shared_states: As `scorescope.examine` takes them.
        minutes: How long it takes.
    """

    bank: str
    held_out: str
    models: tuple[str, ...]
    probes: tuple[str, ...]
    paths: int = 100
    times: int = 100
    origins: int = 100
    solver: str = "dopri5"
    steps: int = 50
    shared_states: str | None = None
    minutes: float = 10.0


def cell(look: Look, make: Callable[[Store, str], Denoiser], variables: Sequence[str], about: Mapping[str, Any]) -> Cell:
    """The cell of an examination, which keeps some variables of its results.

    Args:
        look: What is examined.
        make: From the store and a name to the network; trained there, if need be.
        variables: To keep, where they were measured.
        about: What else the numbers depend on: recipes.
    """

    def compute(store: Store, tell: Callable[[float], None]) -> xr.Dataset:
        models = []
        for k, name in enumerate(look.models):
            model = make(store, name)
            model.name = name
            models.append(model)
            tell(0.5 * (k + 1) / len(look.models))
        plan = {name: getattr(look, name) for name in ("probes", "paths", "times", "origins", "solver", "steps", "shared_states")}
        found = store.examined(models, look.bank, look.held_out, plan)
        kept = found[[name for name in variables if name in found]]
        plain = kept.drop_vars([name for name in kept.coords if name not in kept.dims])
        return plain.map(lambda values: values.astype("float32") if values.dtype == "float64" else values, keep_attrs=True)

    said = {key: value for key, value in asdict(look).items() if key != "minutes"}
    return Cell("examined", {**said, **about}, compute, look.minutes)


def only(found: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """The dataset of an experiment of one cell."""
    return next(iter(found.values()))


def figure(chart: str) -> Callable[[xr.Dataset], Drawing]:
    """One of the report's figures, by the name of its file."""

    def draw(results: xr.Dataset) -> Drawing:
        drawing = registry.module("scorescope.charts", chart, "chart").draw(results)
        assert isinstance(drawing, Drawing)
        return drawing

    return draw


def caption(chart: str) -> str:
    """What you see in one of the report's figures."""
    return str(registry.module("scorescope.charts", chart, "chart").CAPTION[0])


def reading(name: str, paper: str) -> Reading:
    """One of the report's claims, about the largest model where it is about one."""
    claim = next(one for one in claims.every() if one.name == name)

    def judge(results: xr.Dataset, model: str) -> Judged:
        return claim.judge(results, largest(results) if claim.about == "model" else "")

    return Reading(replace(claim, judge=judge), paper)
