"""When sampling leaves the training shells (Experiment 3.3), to a finer t than the grid: each path is asked again where it crosses.

A path leaves where r* is for the first time outside the exact 99 % χ band, above or below. The grid gives a bracket; from the state at
its upper end the sampler is run once more, through `FINER` times of the bracket.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from scorescope.probes.base import Subject, Variable, WholeProbe
from scorescope.sampler import trajectory
from scorescope.statistics import chi_band, leaving_bracket

FINER = 8  # parts of a bracket


def measure(subject: Subject) -> Mapping[str, np.ndarray]:
    """The refined bracket of every path."""
    times, band = subject.setting.times, chi_band(subject.bank.d)
    asked = [_r_star(subject, subject.states(k), float(t)) for k, t in enumerate(times)] if subject.r_star is None else None
    r_star = np.stack(asked, 1) if asked is not None else np.asarray(subject.r_star)
    outside, inside = leaving_bracket(r_star, times, band)
    for upper in np.unique(inside[outside < inside]):
        own = np.flatnonzero((inside == upper) & (outside < inside))
        k = int(np.searchsorted(times, upper))
        lower = float(outside[own[0]])  # the same for all of them: neighbours on the grid
        finer = np.linspace(lower, upper, FINER + 1)[:-1] if lower else np.array([])
        if len(finer):
            outside[own], inside[own] = _refined(subject, subject.states(k)[own], own, np.append(finer, upper), band)
        subject.tick(len(own))
    return {"left_outside": outside, "left_inside": inside}


def _refined(subject: Subject, z: Tensor, own: np.ndarray, times: np.ndarray, band: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Brackets of paths whose states z (P, *shape) at the last of the ascending times are inside; they are outside at the first."""
    label = None if subject.labels is None else subject.labels[torch.from_numpy(own).to(subject.labels.device)]
    asked, start, setting = times[:-1].tolist(), float(times[-1]), subject.setting
    states = trajectory(
        subject.model, z, asked, label, start=start, solver=setting.solver, seed=setting.seed, items=own.tolist()
    )  # fmt: skip
    r_star = np.stack([_r_star(subject, states[:, k], float(t)) for k, t in enumerate(times[:-1])] + [np.ones(len(z))], 1)
    r_star[:, 0] = np.inf  # as the grid found it; a stochastic path may come back between
    return leaving_bracket(r_star, times, band)


def _r_star(subject: Subject, z: Tensor, t: float) -> np.ndarray:
    return subject.truth.posterior(z, t).r_star.cpu().numpy()


def work(subject: Subject) -> int:
    """One unit for each path."""
    return len(subject.samples)


PROBE = WholeProbe(
    "leaving",
    "when sampling leaves the shells",
    {
        "left_outside": Variable("first t at which a path is off the shells", "1", ("path",)),
        "left_inside": Variable("last t before it", "1", ("path",)),
    },
    measure,
    work,
)
