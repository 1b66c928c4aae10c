"""Memorization of finished samples by the three criteria in use, with the nearest rows.

    ratio_second       nearest over second-nearest distance; below 1/3 a copy (Yoon et al. 2023; Gu et al. 2023)
    ratio_calibrated   squared nearest distance over the mean of the n = 50 nearest squared ones (Carlini et al. 2023, C.7)
    copier_row         C.4's "the nearest row is the original": a sample's original is the row at which the exact empirical score, a
                       perfect copier, ends from the same noise

Real rows are measured the same way against all other rows, so that "close" has a scale.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from scorescope import regions, seeds
from scorescope.probes.base import Subject, Variable, WholeProbe, of_variables
from scorescope.rows import Bank
from scorescope.sampler import END, start_time
from scorescope.search import neighbours

NEAREST = 50  # C.7's n
SHOWN = 3
COPIER_STEPS = 25  # Heun steps of the copier from noise to data; 100 end at the same rows
SETTLED = 1 - 1e-6  # weight of one row from which on a copier goes straight to it


def ratios(distance: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """(nearest/second, nearest²/mean of squares) of ascending distances (B, n); a distance of 0 is a copy by both."""
    second = distance[:, 1] if distance.shape[1] > 1 else torch.full_like(distance[:, 0], torch.inf)
    calibrated = distance[:, 0].square() / distance.square().mean(1)
    return (distance[:, 0] / second).nan_to_num(0.0).numpy(), calibrated.nan_to_num(0.0).numpy()


def nearest(bank: Bank, samples: Tensor) -> dict[str, np.ndarray]:
    """The nearest rows of samples (P, *shape), and both ratios."""
    index, distance = (part.cpu() for part in neighbours(bank, samples, NEAREST))
    second, calibrated = ratios(distance)
    shown = {"nearest_index": index[:, :SHOWN].numpy(), "nearest_distance": distance[:, :SHOWN].numpy()}
    return shown | {"ratio_second": second, "ratio_calibrated": calibrated}


def measure(subject: Subject) -> Mapping[str, np.ndarray]:
    """The samples, the null, and where a copier would have ended."""
    bank, device = subject.bank, subject.truth.device
    found = nearest(bank, subject.samples.to(device))
    subject.tick(len(subject.samples))
    return {**found, **_null(subject, found["nearest_index"].shape[1]), "copier_row": copier_rows(subject)}


def _null(subject: Subject, kept: int) -> dict[str, np.ndarray]:
    """Real rows beside their own nearest neighbours, of which `kept` are shown."""
    bank, setting = subject.bank, subject.setting
    null = np.unique(seeds.choose(setting.seed, "null", range(setting.sizes["nulls"]), len(bank.rows)))
    found = neighbours(bank, bank[null].to(subject.truth.device), NEAREST, without=torch.from_numpy(null))
    index, distance = (part.cpu() for part in found)
    second, calibrated = ratios(distance) if len(bank.rows) > 1 else (np.full(len(null), np.nan),) * 2
    return {
        "near": np.arange(1, kept + 1),
        "null_row": null,
        "null_index": _pad(index[:, :kept].numpy(), kept, -1),
        "null_distance": _pad(distance[:, :kept].numpy(), kept, np.nan),
        "null_second": second,
        "null_calibrated": calibrated,
    }


def _pad(values: np.ndarray, width: int, fill: float) -> np.ndarray:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=fill)


def copier_rows(subject: Subject) -> np.ndarray:
    """The row at which the exact empirical score ends from each sample's noise, (P,); the same for all models of a run."""
    start = start_time(subject.model)
    labels = None if subject.labels is None else tuple(subject.labels.tolist())
    setting = subject.setting
    known = setting.shared.get(("copier", start, labels))
    if known is not None:
        subject.tick(len(subject.samples))
        return known
    noise = regions.path_starts(subject.bank, len(subject.samples), setting.seed, subject.labels, start).to(subject.truth.device)
    found = neighbours(subject.bank, _copies(subject, noise, start), 1)[0][:, 0].cpu().numpy()
    setting.shared["copier", start, labels] = found
    return found


def _copies(subject: Subject, z: Tensor, start: float) -> Tensor:
    """Where the exact score ends from states z (P, *shape) at time `start`: each path by Heun's method until one row has all the weight.

    From there it goes straight: with u = (1 − t)/t, D = ‖x_k − x_j‖ and z = (1 − t) x_k + t n the log weight of row k over row j is
    u (u D²/2 + ⟨x_k − x_j, n⟩), which grows with u where it is above 0 and n stays.
    """
    ends, label, which = torch.empty_like(z), subject.labels, torch.arange(len(z), device=z.device)
    times = torch.linspace(start, END, max(1, round(COPIER_STEPS * start)) + 1, dtype=torch.float64).tolist()
    for now, then in zip(times, [*times[1:], None], strict=True):
        found = subject.truth.posterior(z, now, None if label is None else label[which])
        mean, done = found.mean.to(z.dtype), found.top_weight >= (SETTLED if then is not None else 0.0)
        ends[which[done]] = mean[done]
        subject.tick(int(done.sum()))
        which, z, mean = which[~done], z[~done], mean[~done]
        if then is None or not len(which):
            break
        slope = (z - mean) / now
        ahead = z + (then - now) * slope
        bend = (ahead - subject.truth.posterior(ahead, then, None if label is None else label[which]).mean.to(z.dtype)) / then
        z = z + (then - now) * 0.5 * (slope + bend)
    return ends


def work(subject: Subject) -> int:
    """One unit for each sample looked up, one for each copy made."""
    return 2 * len(subject.samples)


def cost(subject: Subject) -> tuple[float, float]:
    """What the copier asks, before most of its paths are settled."""
    return 0.0, COPIER_STEPS * len(subject.samples)


PROBE = WholeProbe(
    "memorization",
    "samples against their nearest rows",
    {
        "nearest_index": Variable("the nearest rows, nearest first", "row", ("path", "near"), "int64"),
        "nearest_distance": Variable("their distances", "data units", ("path", "near")),
        "ratio_second": Variable("nearest over second-nearest distance", "1", ("path",)),
        "ratio_calibrated": Variable("squared nearest distance over the mean of the 50 nearest", "1", ("path",)),
        "copier_row": Variable("the row at which a perfect copier ends", "row", ("path",), "int64"),
        "null_row": Variable("real rows", "row", ("null",), "int64", of_bank=True),
        "null_index": Variable("their nearest rows", "row", ("null", "near"), "int64", of_bank=True),
        "null_distance": Variable("their distances", "data units", ("null", "near"), of_bank=True),
        "null_second": Variable("nearest over second-nearest distance of real rows", "1", ("null",), of_bank=True),
        "null_calibrated": Variable("calibrated ratio of real rows", "1", ("null",), of_bank=True),
    },
    measure,
    work,
    cost=cost,
    rows=of_variables("nearest_index", "copier_row", "null_row", "null_index"),
)
