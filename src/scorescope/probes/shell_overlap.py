"""Shell overlap C(t) (B.2, Fig. 4 right): the largest Bhattacharyya coefficient of two shells.

It is exp(−α²‖x_i − x_j‖²/(8σ²)) of the closest pair of rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scorescope.probes.base import Subject, Variable, WholeProbe, of_variables
from scorescope.search import closest_pairs

UNITS = 100


def coefficient(distance: float | np.ndarray, time: np.ndarray) -> np.ndarray:
    """C(t) of pairs at a distance; 0 where there is no pair. The covariance is σ²I (B.2 prints σ I)."""
    ratio = np.divide(1 - time, time, out=np.full_like(time, np.inf), where=time > 0)
    with np.errstate(invalid="ignore"):
        exponent = np.square(ratio * np.expand_dims(distance, -1)) / 8
    return np.where(np.isinf(np.expand_dims(distance, -1)), 0.0, np.exp(-np.nan_to_num(exponent, nan=0.0)))


def measure(subject: Subject) -> Mapping[str, Any]:
    """Over all pairs and within each class, with exact duplicates and without."""
    bank, time, ticked = subject.bank, subject.setting.times, 0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal ticked
        reached = UNITS * done // total if stage == "pairs" else 0
        if reached > ticked:
            subject.tick(reached - ticked)
            ticked = reached

    found = closest_pairs(bank, device=subject.truth.device, progress=progress)
    data: dict[str, Any] = {
        "time": time,
        "overlap": coefficient(found.whole.distance, time),
        "overlap_distinct": coefficient(found.distinct.distance, time),
        "closest_pair": np.array([found.distinct.first, found.distinct.second]),
        "closest_distance": found.distinct.distance,
        "duplicates": len(found.duplicates),
    }
    if found.by_class:
        distinct = list(found.by_class_distinct.values())
        nearest = np.array([pair.distance for pair in found.by_class.values()])
        nearest_distinct = np.array([pair.distance for pair in distinct])
        data |= {
            "class": list(found.by_class),
            "overlap_class": coefficient(nearest, time),
            "overlap_class_distinct": coefficient(nearest_distinct, time),
            "closest_pair_class": np.array([[pair.first, pair.second] for pair in distinct]),
            "closest_distance_class": nearest_distinct,
        }
    return data


def work(subject: Subject) -> int:
    """Percents of the search."""
    return UNITS


def _variable(long_name: str, unit: str, dims: tuple[str, ...] = (), dtype: str = "float64") -> Variable:
    return Variable(long_name, unit, dims, dtype, of_bank=True)


PROBE = WholeProbe(
    "shell-overlap",
    "overlap of the training shells",
    {
        "overlap": _variable("overlap C(t) of the closest two shells", "1", ("time",)),
        "overlap_distinct": _variable("the same, exact duplicates counted once", "1", ("time",)),
        "closest_pair": _variable("the closest two distinct rows", "row", ("two",), "int64"),
        "closest_distance": _variable("their distance", "data units"),
        "duplicates": _variable("rows that repeat an earlier row exactly", "rows", (), "int64"),
        "overlap_class": _variable("overlap C(t) within each class", "1", ("class", "time")),
        "overlap_class_distinct": _variable("the same, exact duplicates counted once", "1", ("class", "time")),
        "closest_pair_class": _variable("the closest two distinct rows of each class", "row", ("class", "two"), "int64"),
        "closest_distance_class": _variable("their distances", "data units", ("class",)),
    },
    measure,
    work,
    of_bank=True,
    rows=of_variables("closest_pair", "closest_pair_class"),
)
