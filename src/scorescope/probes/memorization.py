"""Memorization of finished samples by the three criteria in use, with the nearest rows.

    ratio_second       nearest over second-nearest distance; below 1/3 a copy (Yoon et al. 2023; Gu et al. 2023)
    ratio_calibrated   squared nearest distance over the mean of the n = 50 nearest squared ones (Carlini et al. 2023, C.7)
    copier_row         C.4's "the nearest row is the original": a sample's original is the row at which the exact empirical score, a
                       perfect copier, ends from the same noise

Real rows are measured the same way against all other rows, so that "close" has a scale.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scorescope import regions, seeds
from scorescope.probes.base import Subject, WholeProbe
from scorescope.sampler import start_time, trajectory
from scorescope.search import neighbours

NEAREST = 50  # C.7's n
SHOWN = 3
COPIER_STEPS = 50  # Heun steps of the copier; it falls onto one row early, so more change nothing but the time


def ratios(distance: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(nearest/second, nearest²/mean of squares) of ascending distances (B, n); a distance of 0 is a copy by both."""
    second = distance[:, 1] if distance.shape[1] > 1 else torch.full_like(distance[:, 0], torch.inf)
    calibrated = distance[:, 0].square() / distance.square().mean(1)
    return (distance[:, 0] / second).nan_to_num(0.0).numpy(), calibrated.nan_to_num(0.0).numpy()


def measure(subject: Subject) -> xr.Dataset:
    """The samples, the null, and where a copier would have ended."""
    bank, device = subject.bank, subject.truth.device
    index, distance = (part.cpu() for part in neighbours(bank, subject.samples.to(device), NEAREST))
    second, calibrated = ratios(distance)
    subject.tick(len(subject.samples))
    null = np.unique(seeds.choose(subject.seed, "null", range(subject.sizes["nulls"]), len(bank.rows)))
    null_index, null_distance = (part.cpu() for part in neighbours(bank, bank[null].to(device), NEAREST, without=torch.from_numpy(null)))
    null_second, null_calibrated = ratios(null_distance) if len(bank.rows) > 1 else (np.full(len(null), np.nan),) * 2
    shown = {"near": np.arange(1, min(SHOWN, index.shape[1]) + 1)}
    kept = len(shown["near"])
    null_kept = min(kept, null_index.shape[1])
    data = {
        "nearest_index": (("path", "near"), index[:, :kept].numpy()),
        "nearest_distance": (("path", "near"), distance[:, :kept].numpy()),
        "ratio_second": (("path",), second),
        "ratio_calibrated": (("path",), calibrated),
        "copier_row": (("path",), copier_rows(subject)),
        "null_row": (("null",), null),
        "null_index": (("null", "near"), _pad(null_index[:, :null_kept].numpy(), kept, -1)),
        "null_distance": (("null", "near"), _pad(null_distance[:, :null_kept].numpy(), kept, np.nan)),
        "null_second": (("null",), null_second),
        "null_calibrated": (("null",), null_calibrated),
    }
    return xr.Dataset(data, coords=shown)


def _pad(values: np.ndarray, width: int, fill: float) -> np.ndarray:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=fill)


def copier_rows(subject: Subject) -> np.ndarray:
    """The row at which the exact empirical score ends from each sample's noise, (P,); the same for all models of a run."""
    start = start_time(subject.model)
    labels = None if subject.labels is None else tuple(subject.labels.tolist())
    known = subject.shared.get(("copier", start, labels))
    if known is not None:
        subject.tick(len(subject.samples))
        return known
    noise = start * regions.noise(subject.seed, len(subject.samples), subject.bank.shape, "path").to(subject.truth.device)
    ends = trajectory(subject.truth, noise, [0.0], subject.labels, start=start, method="heun", steps=COPIER_STEPS, tick=subject.tick)[:, 0]
    found = neighbours(subject.bank, ends, 1)[0][:, 0].cpu().numpy()
    subject.shared["copier", start, labels] = found
    return found


def work(subject: Subject) -> int:
    """One unit for each sample looked up, one for each copy made."""
    return 2 * len(subject.samples)


PROBE = WholeProbe("memorization", "samples against their nearest rows", measure, work)
