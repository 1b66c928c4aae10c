"""Return to origin (Experiment 4.2, Fig. 4, C.4): noise a training row to t, denoise it, and see whether the row comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from scorescope import regions
from scorescope.probes.base import ROW, Subject, Variable, WholeProbe, squared
from scorescope.sampler import start_time, trajectory
from scorescope.search import neighbours

TIMES = np.round(np.linspace(0.0, 1.0, 21), 2)  # C.4
STRIP = 3  # rows whose outputs are kept as pictures


def measure(subject: Subject) -> Mapping[str, Any]:
    """`returned` by the paper's criterion: the nearest row of the output is the original (its exact duplicates count as it)."""
    setting, bank = subject.setting, subject.bank
    origins = regions.supervision(bank, setting.sizes["origins"], setting.seed, setting.classes, purpose="origin ")
    assert origins.row is not None
    returned, distance, pictures = [], [], []
    for time in TIMES.tolist():
        start = min(time, start_time(subject.model))
        z = origins.at(start).to(subject.truth.device)
        label = None if origins.label is None else origins.label.to(subject.truth.device)
        end = z if start == 0 else trajectory(subject.model, z, [0.0], label, start=start, seed=setting.seed, **setting.solver)[:, 0]
        index, nearest = neighbours(bank, end, 1)
        original = squared(end.double().cpu() - origins.x.double()).sqrt()
        same = (index[:, 0].cpu().numpy() == origins.row) | (original <= nearest[:, 0].cpu()).numpy()
        returned.append(same.astype(np.int8))
        distance.append((original / end[0].numel() ** 0.5).numpy())
        pictures.append(end[:STRIP].float().cpu())
        subject.tick(len(z))
    return {
        "origin_time": TIMES,
        "returned": np.stack(returned, 1),
        "return_distance": np.stack(distance, 1),
        "origin_row": origins.row,
        "return_image": torch.stack(pictures, 1).numpy(),
    }


def work(subject: Subject) -> int:
    """One unit for each origin and time."""
    return len(TIMES) * subject.setting.sizes["origins"]


def rows(results: xr.Dataset) -> Sequence[np.ndarray]:
    """The origins whose outputs are kept."""
    return [results["origin_row"].values[: results.sizes["strip"]]] if "origin_row" in results else ()


PROBE = WholeProbe(
    "return-to-origin",
    "return to the noised training row",
    {
        "returned": Variable("whether the nearest row of the output is the original", "1", ("origin", "origin_time"), "int8"),
        "return_distance": Variable("distance of the output from the original, per √dimension", "data units", ("origin", "origin_time")),
        "origin_row": Variable("the rows that were noised", "row", ("origin",), "int64", of_bank=True),
        "return_image": Variable("outputs of the first few", "data units", ("strip", "origin_time", ROW), "float32"),
    },
    measure,
    work,
    rows=rows,
)
