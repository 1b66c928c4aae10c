"""Shell overlap C(t) (B.2, Fig. 4 right): the largest Bhattacharyya coefficient of two shells.

It is exp(−α²‖x_i − x_j‖²/(8σ²)) of the closest pair of rows.
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from scorescope.neighbours import Pair, closest_pair, duplicates
from scorescope.probes.base import Subject, WholeProbe


def coefficient(distance: float | np.ndarray, time: np.ndarray) -> np.ndarray:
    """C(t) of pairs at a distance; 0 where there is no pair. The covariance is σ²I (B.2 prints σ I)."""
    ratio = np.divide(1 - time, time, out=np.full_like(time, np.inf), where=time > 0)
    with np.errstate(invalid="ignore"):
        exponent = np.square(ratio * np.expand_dims(distance, -1)) / 8
    return np.where(np.isinf(np.expand_dims(distance, -1)), 0.0, np.exp(-np.nan_to_num(exponent, nan=0.0)))


def measure(subject: Subject) -> xr.Dataset:
    """Over all pairs and within each class, with exact duplicates and without."""
    shelf, bank, time = subject.truth.shelf, subject.bank, subject.times
    repeated = duplicates(bank)

    def pairs(label: int | None) -> tuple[Pair, Pair]:
        nearest = closest_pair(shelf, label)
        subject.tick(1)
        return nearest, closest_pair(shelf, label, distinct=True) if nearest.distance == 0 else nearest

    whole, whole_distinct = pairs(None)
    data = {
        "overlap": (("time",), coefficient(whole.distance, time)),
        "overlap_distinct": (("time",), coefficient(whole_distinct.distance, time)),
        "closest_pair": (("two",), np.array([whole_distinct.first, whole_distinct.second])),
        "closest_distance": ((), whole_distinct.distance),
        "duplicates": ((), repeated),
    }
    present = [] if bank.labels is None else np.unique(bank.labels).tolist()
    if present:
        found = [pairs(label) for label in present]
        distance = np.array([[a.distance, b.distance] for a, b in found])
        data |= {
            "overlap_class": (("class", "time"), coefficient(distance[:, 0], time)),
            "overlap_class_distinct": (("class", "time"), coefficient(distance[:, 1], time)),
            "closest_pair_class": (("class", "two"), np.array([[b.first, b.second] for _, b in found])),
            "closest_distance_class": (("class",), distance[:, 1]),
        }
    return xr.Dataset(data, coords={"time": time} | ({"class": present} if present else {}))


def work(subject: Subject) -> int:
    """One unit for each set of rows."""
    labels = subject.bank.labels
    return 1 + (0 if labels is None else len(np.unique(labels)))


PROBE = WholeProbe("shell-overlap", "overlap of the training shells", measure, work, of_bank=True)
