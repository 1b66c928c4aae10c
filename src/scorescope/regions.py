"""Where to look: the states of a region, for all times along each path (appendix C.1), on the paper's axis.

    supervision    z_t = α x + σ ε, one (x, ε) for all t: what training shows the model
    extrapolation  the states of sampling trajectories: what the model meets at inference
    renoised       finished samples noised again: off the training set, yet on shells; the fair control between the two
    held-out       rows that training never saw, each with the noise and of the class of a training pair: what generalizing alone gives

Path k has the same row, noise and label for every model and every number of paths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scorescope import seeds
from scorescope.denoiser import Label
from scorescope.empirical import Posterior
from scorescope.rows import Bank
from scorescope.sampler import PURE
from scorescope.schedule import Time

REGIONS = ("supervision", "extrapolation", "renoised", "held-out")


class Truth(Protocol):
    """What measurements ask the exact score for; an `EmpiricalScore` has it, and so has anything in its place.

    Times are linear, t; states are on the linear path.
    """

    def posterior(self, z: Tensor, t: Time, label: Label = None) -> Posterior:
        """Of states z (B, *shape) at t."""

    def supervision_sweep(self, x: Tensor, eps: Tensor, times: Tensor, label: Label = None) -> Iterator[tuple[int, Posterior]]:
        """Of z_t = (1 − t) x + t ε for each time, as (k, posterior), once for each k, from noise to data."""

    def trajectory_sweep(self, z: Tensor, times: Tensor, label: Label = None) -> Iterator[tuple[int, Posterior]]:
        """Of states z (P, T, *shape) for each time, likewise."""

    def rows(self, index: Tensor) -> Tensor:
        """Rows (B, *shape) by index."""


@dataclass(frozen=True)
class Noised:
    """Clean points and their noise; the states follow. x, eps (P, *shape); label (P,) or None; row (P,) of the bank, or None."""

    x: Tensor
    eps: Tensor
    label: Tensor | None
    row: np.ndarray | None = None

    def at(self, t: float) -> Tensor:
        """z_t = (1 − t) x + t ε for every path, (P, *shape)."""
        return ((1 - t) * self.x.double() + t * self.eps.double()).to(self.x.dtype)

    def to(self, device: torch.device | str) -> Noised:
        """The same on a device."""
        return Noised(self.x.to(device), self.eps.to(device), None if self.label is None else self.label.to(device), self.row)


@dataclass(frozen=True)
class States:
    """The states of one region: of noised points (`source`), or of trajectories (`along`).

    Attributes:
        region: Its name.
        times: (T,) linear times, ascending.
        label: (P,) classes of the paths, or None.
        source: Clean points and noise.
        along: From k to the states (P, *shape) of trajectories at time k; they may lie on the disk.
    """

    region: str
    times: np.ndarray
    label: Tensor | None
    source: Noised | None = None
    along: Callable[[int], Tensor] | None = None

    @classmethod
    def noised(cls, region: str, times: np.ndarray, source: Noised) -> States:
        """Those of noised points."""
        return cls(region, times, source.label, source)

    def at(self, k: int) -> Tensor:
        """States at time k, (P, *shape)."""
        if self.source is not None:
            return self.source.at(float(self.times[k]))
        assert self.along is not None
        return self.along(k)

    def sweep(self, truth: Truth, which: Sequence[int], label: Tensor | None) -> Iterator[tuple[int, Posterior]]:
        """Exact posteriors at the times `which`, as (place among `which`, posterior), from noise to data."""
        times = torch.from_numpy(np.asarray(self.times)[list(which)])
        if self.source is not None:
            return truth.supervision_sweep(self.source.x, self.source.eps, times, label)
        return truth.trajectory_sweep(torch.stack([self.at(k) for k in which], 1), times, label)


def noise(seed: int, paths: int, shape: tuple[int, ...], purpose: str) -> Tensor:
    """ε of paths 0 … paths − 1, (paths, *shape)."""
    return seeds.normal(seed, purpose, range(paths), shape)


def supervision(bank: Bank, paths: int, seed: int, classes: Sequence[int], purpose: str = "") -> Noised:
    """Training pairs: uniformly chosen rows (mirrored ones included), each with its own noise.

    With `classes` only their rows are chosen, and the pairs carry their labels; without, the pairs carry none. Pairs for another
    `purpose` are others.
    """
    eps = noise(seed, paths, bank.shape, f"{purpose}pair")
    if not classes or bank.labels is None:
        rows = seeds.choose(seed, f"{purpose}row", range(paths), len(bank))
        return Noised(bank[rows], eps, None, rows)
    allowed = np.flatnonzero(np.isin(np.tile(bank.labels, len(bank) // len(bank.rows)), list(classes)))
    rows = allowed[seeds.choose(seed, f"{purpose}row", range(paths), len(allowed))]
    return Noised(bank[rows], eps, torch.from_numpy(bank.labels[rows % len(bank.rows)]), rows)


def path_starts(bank: Bank, paths: int, seed: int, label: Tensor | None, start: float) -> Tensor:
    """Where sampling paths 0 … paths − 1 begin, (paths, *shape) at linear time `start`: noise times `start`, from 0.9 on.

    A model whose noise ends earlier can't begin from noise alone: its states still show the data there. Its paths begin as training rows,
    of their class, noised to `start`.
    """
    eps = noise(seed, paths, bank.shape, "path")
    if start >= PURE:
        return start * eps
    known = None if label is None or bank.labels is None else np.tile(bank.labels, len(bank) // len(bank.rows))
    rows = np.empty(paths, dtype=np.int64)
    for k in range(paths):
        allowed = np.arange(len(bank)) if known is None or label is None else np.flatnonzero(known == int(label[k]))
        rows[k] = allowed[seeds.choose(seed, "start row", [k], len(allowed))[0]]
    return Noised(bank[rows], eps, label).at(start)


def renoised(samples: Tensor, label: Tensor | None, seed: int) -> Noised:
    """Finished samples (P, *shape) with fresh noise."""
    return Noised(samples, noise(seed, len(samples), tuple(samples.shape[1:]), "renoise"), label)


def held_out(held: Bank, pairs: Noised, seed: int) -> Noised:
    """Rows of a held-out bank with the noise of training pairs, each of its pair's class; `row` counts in the held-out bank."""
    paths = len(pairs.x)
    if pairs.label is None:
        rows = seeds.choose(seed, "held-out row", range(paths), len(held))
    else:
        rows = np.empty(paths, dtype=np.int64)
        for label in np.unique(pairs.label):
            own, mine = np.flatnonzero(pairs.label == label), held.indices(int(label))
            allowed = np.concatenate([mine + k * len(held.rows) for k in range(len(held) // len(held.rows))])
            rows[own] = allowed[seeds.choose(seed, "held-out row", own.tolist(), len(allowed))]
    return Noised(held[rows], pairs.eps, pairs.label, rows)


def path_labels(classes: list[int], paths: int) -> Tensor | None:
    """The class of each sampling path: the wanted classes in turn; None for an unconditional run."""
    return torch.tensor([classes[k % len(classes)] for k in range(paths)]) if classes else None
