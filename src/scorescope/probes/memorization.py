"""Memorization of finished samples by the three criteria in use, with the nearest rows.

    ratio_second       nearest distance over that to the nearest row outside the nearest row's group of near-duplicates; below 1/3 a copy
                       (Yoon et al. 2023; Gu et al. 2023, who take the second-nearest row whatever it is: ratio_second_plain)
    ratio_calibrated   squared nearest distance over the mean of the n = 50 nearest squared ones (Carlini et al. 2023, C.7)
    copier_row         C.4's "the nearest row is the original": a sample's original is the row at which the exact empirical score, a
                       perfect copier, ends from the same noise

A sample that is its nearest row up to rounding (in 8 bits for rows of 8 bits) is an exact copy, and its first ratio is 0.
Real rows are measured the same way against all rows outside their own group, so that "close" has a scale.
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
from scorescope.search import groups, neighbours

NEAREST = 50  # C.7's n
SHOWN = 3
COPIER_STEPS = 25  # Heun steps of the copier from noise to data; 100 end at the same rows
SETTLED = 1 - 1e-6  # weight of one row from which on a copier goes straight to it


def over(nearest: Tensor, second: Tensor) -> Tensor:
    """nearest/second (B,); NaN where there is no second, 0 where both are 0."""
    return torch.where(second.isinf(), torch.nan, torch.where(nearest == 0, 0.0, nearest / second))


def calibrated(distance: Tensor) -> Tensor:
    """nearest²/mean of squares of ascending distances (B, n), infinite ones left out; a distance of 0 is a copy."""
    if not distance.shape[1]:
        return distance.new_full((len(distance),), torch.nan)
    known = distance.isfinite()
    mean = distance.square().where(known, 0.0).sum(1) / known.sum(1)
    return torch.where(known[:, 0] & (mean == 0), 0.0, distance[:, 0].square() / mean)


def nearest(bank: Bank, samples: Tensor) -> dict[str, np.ndarray]:
    """The nearest rows of samples (P, *shape), their groups, both ratios and whether they are exact copies."""
    close = groups.closeness(bank, samples.device)
    index, distance = neighbours(bank, samples, NEAREST)
    second, size = groups.second_distance(bank, samples, index, distance, close.near)
    exact = equal(bank[index[:, 0]].to(samples.device), samples, close.step)
    next_row = distance[:, 1] if distance.shape[1] > 1 else torch.full_like(second, torch.inf)
    found = {
        "nearest_index": index[:, :SHOWN],
        "nearest_distance": distance[:, :SHOWN],
        "ratio_second": over(distance[:, 0], second).masked_fill(exact, 0.0),
        "ratio_second_plain": over(distance[:, 0], next_row),
        "ratio_calibrated": calibrated(distance),
        "group_size": size,
        "exact_copy": exact.long(),
        "sample_outside": outside(samples, close.low, close.high),
    }
    return {name: value.cpu().numpy() for name, value in found.items()}


def equal(rows: Tensor, samples: Tensor, step: float) -> Tensor:
    """Whether every value of a sample (P, *shape) is within half a step of a row's, (P,)."""
    return ((samples.double() - rows.double()).abs() <= step / 2).flatten(1).all(1)


def outside(samples: Tensor, low: float, high: float) -> Tensor:
    """Share of the values of each sample (P, *shape) that are outside the rows' range by more than a tenth of it, (P,)."""
    values, margin = samples.double().flatten(1), (high - low) / 10
    return ((values < low - margin) | (values > high + margin)).double().mean(1)


def measure(subject: Subject) -> Mapping[str, np.ndarray]:
    """The samples, the null, and where a copier would have ended."""
    found = nearest(subject.bank, subject.samples.to(subject.truth.device))
    subject.tick(len(subject.samples))
    setting = subject.setting
    if "null" not in setting.shared:
        setting.shared["null"] = null(subject.bank, setting.sizes["nulls"], setting.seed, subject.truth.device)
    return {**found, **setting.shared["null"], **({"copier_row": copier_rows(subject)} if setting.copier else {})}


def null(bank: Bank, count: int, seed: int, device: torch.device) -> dict[str, np.ndarray]:
    """Real rows beside the nearest rows outside their own groups."""
    rows, close = np.unique(seeds.choose(seed, "null", range(count), len(bank.rows))), groups.closeness(bank, device)
    x, kept = bank[rows].to(device), min(SHOWN, len(bank))
    every = neighbours(bank, x, NEAREST, without=torch.from_numpy(rows))
    index, distance, size = groups.without_own(bank, *every, close.near)
    second = groups.first_outside(distance, groups.group_of_first(bank, index, close.near))
    first = distance[:, 0] if distance.shape[1] else torch.full_like(second, torch.inf)
    shown = distance[:, :kept].cpu().numpy()
    return {
        "near": np.arange(1, kept + 1),
        "near_duplicate_distance": np.array(close.near),
        "null_row": rows,
        "null_index": _pad(index[:, :kept].cpu().numpy(), kept, -1),
        "null_distance": _pad(np.where(np.isfinite(shown), shown, np.nan), kept, np.nan),
        "null_second": over(first, second).cpu().numpy(),
        "null_calibrated": calibrated(distance).cpu().numpy(),
        "null_group_size": size.cpu().numpy(),
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
    return (1 + subject.setting.copier) * len(subject.samples)


def cost(subject: Subject) -> tuple[float, float]:
    """What the copier asks, before most of its paths are settled."""
    return 0.0, subject.setting.copier * COPIER_STEPS * len(subject.samples)


PROBE = WholeProbe(
    "memorization",
    "samples against their nearest rows",
    {
        "nearest_index": Variable("the nearest rows, nearest first", "row", ("path", "near"), "int64"),
        "nearest_distance": Variable("their distances", "data units", ("path", "near")),
        "ratio_second": Variable("nearest distance over that to the nearest row outside the nearest row's group", "1", ("path",)),
        "ratio_second_plain": Variable("nearest over second-nearest distance", "1", ("path",)),
        "ratio_calibrated": Variable("squared nearest distance over the mean of the 50 nearest", "1", ("path",)),
        "group_size": Variable("rows in the nearest row's group of near-duplicates", "rows", ("path",), "int64"),
        "exact_copy": Variable("1 for a sample that is its nearest row, up to rounding", "1", ("path",), "int64"),
        "sample_outside": Variable("share of values outside the rows' range by more than a tenth of it", "1", ("path",)),
        "copier_row": Variable("the row at which a perfect copier ends", "row", ("path",), "int64"),
        "near_duplicate_distance": Variable("distance below which rows are near-duplicates", "data units", (), of_bank=True),
        "null_row": Variable("real rows", "row", ("null",), "int64", of_bank=True),
        "null_index": Variable("the nearest rows outside their groups", "row", ("null", "near"), "int64", of_bank=True),
        "null_distance": Variable("their distances", "data units", ("null", "near"), of_bank=True),
        "null_second": Variable("ratio_second of real rows", "1", ("null",), of_bank=True),
        "null_calibrated": Variable("calibrated ratio of real rows", "1", ("null",), of_bank=True),
        "null_group_size": Variable("rows in their own groups", "rows", ("null",), "int64", of_bank=True),
    },
    measure,
    work,
    cost=cost,
    of_states=True,
    rows=of_variables("nearest_index", "copier_row", "null_row", "null_index"),
)
