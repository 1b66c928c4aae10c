"""Shell overlap C(t) (B.2, Fig. 4 right): the largest Bhattacharyya coefficient of two shells.

It is exp(−α²‖x_i − x_j‖²/(8σ²)) of the closest pair of rows.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from scorescope.probes.base import Subject, WholeProbe
from scorescope.search import closest_pairs

UNITS = 100


def coefficient(distance: float | np.ndarray, time: np.ndarray) -> np.ndarray:
    """C(t) of pairs at a distance; 0 where there is no pair. The covariance is σ²I (B.2 prints σ I)."""
    ratio = np.divide(1 - time, time, out=np.full_like(time, np.inf), where=time > 0)
    with np.errstate(invalid="ignore"):
        exponent = np.square(ratio * np.expand_dims(distance, -1)) / 8
    return np.where(np.isinf(np.expand_dims(distance, -1)), 0.0, np.exp(-np.nan_to_num(exponent, nan=0.0)))


def measure(subject: Subject) -> xr.Dataset:
    """Over all pairs and within each class, with exact duplicates and without."""
    bank, time, ticked = subject.bank, subject.times, 0

    def progress(stage: str, done: int, total: int) -> None:
        nonlocal ticked
        reached = UNITS * done // total if stage == "pairs" else 0
        if reached > ticked:
            subject.tick(reached - ticked)
            ticked = reached

    found = closest_pairs(bank, device=subject.truth.device, progress=progress)
    data = {
        "overlap": (("time",), coefficient(found.whole.distance, time)),
        "overlap_distinct": (("time",), coefficient(found.distinct.distance, time)),
        "closest_pair": (("two",), np.array([found.distinct.first, found.distinct.second])),
        "closest_distance": ((), found.distinct.distance),
        "duplicates": ((), len(found.duplicates)),
    }
    present = list(found.by_class)
    if present:
        distinct = list(found.by_class_distinct.values())
        nearest = np.array([pair.distance for pair in found.by_class.values()])
        nearest_distinct = np.array([pair.distance for pair in distinct])
        data |= {
            "overlap_class": (("class", "time"), coefficient(nearest, time)),
            "overlap_class_distinct": (("class", "time"), coefficient(nearest_distinct, time)),
            "closest_pair_class": (("class", "two"), np.array([[pair.first, pair.second] for pair in distinct])),
            "closest_distance_class": (("class",), nearest_distinct),
        }
    return xr.Dataset(data, coords={"time": time} | ({"class": present} if present else {}))


def work(subject: Subject) -> int:
    """Percents of the search."""
    return UNITS


PROBE = WholeProbe("shell-overlap", "overlap of the training shells", measure, work, of_bank=True)
