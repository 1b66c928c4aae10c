"""Return to origin (Experiment 4.2, Fig. 4, C.4): noise a training row to t, denoise it, and see whether the row comes back."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

from scorescope import regions
from scorescope.probes.base import Subject, WholeProbe, squared
from scorescope.results import image_dims
from scorescope.sampler import start_time, trajectory
from scorescope.search import neighbours

TIMES = np.round(np.linspace(0.0, 1.0, 21), 2)  # C.4
STRIP = 3  # rows whose outputs are kept as pictures


def measure(subject: Subject) -> xr.Dataset:
    """`returned` by the paper's criterion: the nearest row of the output is the original (its exact duplicates count as it)."""
    origins = regions.supervision(subject.bank, subject.sizes["origins"], subject.seed + 1, subject.classes)
    assert origins.row is not None
    returned, distance, pictures = [], [], []
    for time in TIMES.tolist():
        start = min(time, start_time(subject.model))
        z = origins.at(start).to(subject.truth.device)
        label = None if origins.label is None else origins.label.to(subject.truth.device)
        end = z if start == 0 else trajectory(subject.model, z, [0.0], label, start=start, seed=subject.seed, **subject.solver)[:, 0]
        index, nearest = neighbours(subject.bank, end, 1)
        original = squared(end.double().cpu() - origins.x.double()).sqrt()
        same = (index[:, 0].cpu().numpy() == origins.row) | (original <= nearest[:, 0].cpu()).numpy()
        returned.append(same.astype(np.int8))
        distance.append((original / end[0].numel() ** 0.5).numpy())
        pictures.append(end[:STRIP].float().cpu())
        subject.tick(len(z))
    strip = torch.stack(pictures, 1).numpy()
    return xr.Dataset(
        {
            "returned": (("origin", "origin_time"), np.stack(returned, 1)),
            "return_distance": (("origin", "origin_time"), np.stack(distance, 1)),
            "origin_row": (("origin",), origins.row),
            "return_image": (("strip", "origin_time", *image_dims(subject.bank.shape)), strip),
        },
        coords={"origin_time": TIMES},
    )


def work(subject: Subject) -> int:
    """One unit for each origin and time."""
    return len(TIMES) * subject.sizes["origins"]


PROBE = WholeProbe("return-to-origin", "return to the noised training row", measure, work)
