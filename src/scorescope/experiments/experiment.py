"""What an experiment is: a question, cells to compute, one figure, and claims beside what the paper found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import xarray as xr

from scorescope.charts.grammar import Drawing
from scorescope.claims import Claim
from scorescope.experiments.cost import Training

if TYPE_CHECKING:
    from scorescope.experiments.store import Store

SCALES = ("smoke", "desk", "paper")


@dataclass(frozen=True)
class Cell:
    """One thing to compute, alone.

    Attributes:
        name: Of its file.
        about: Plain values that its numbers depend on; a cell that was computed of other values is computed again.
        compute: From the store to its dataset. The second argument tells how far it is, from 0 to 1.
        minutes: How long it takes on two cores, with the networks that it has trained; roughly.
    """

    name: str
    about: Mapping[str, Any]
    compute: Callable[[Store, Callable[[float], None]], xr.Dataset]
    minutes: float = 1.0


@dataclass(frozen=True)
class Reading:
    """A claim of the paper.

    Attributes:
        claim: How it is judged here, on the experiment's dataset.
        paper: What the paper reports, in words and numbers.
    """

    claim: Claim
    paper: str


@dataclass(frozen=True)
class Experiment:
    """An experiment.

    Attributes:
        name: Of its file: what it is asked for by.
        order: Place among the others.
        title: In a few words.
        question: That it answers.
        expected: What should come out, and why.
        setting: What a scale runs, in words: data, networks, how many states and seeds.
        cells: Of a scale.
        gather: From the cells' datasets, by name, to one.
        draw: From that to its figure.
        caption: What the figure shows, in a sentence or two.
        readings: Claims.
        settled: What did not come out, and what was tried; by scale. Empty where there is nothing to say.
        trainings: The networks that a scale trains, for their cost.
    """

    name: str
    order: int
    title: str
    question: str
    expected: str
    setting: Mapping[str, str]
    cells: Callable[[str], Sequence[Cell]]
    gather: Callable[[Mapping[str, xr.Dataset]], xr.Dataset]
    draw: Callable[[xr.Dataset], Drawing]
    caption: str
    readings: tuple[Reading, ...]
    settled: Mapping[str, str] = field(default_factory=dict)
    trainings: Callable[[str], Sequence[Training]] = lambda scale: ()
