"""Where to look: the states of a region, for all times along each path (appendix C.1), on the paper's axis.

    supervision    z_t = α x + σ ε, one (x, ε) for all t: what training shows the model
    extrapolation  the states of sampling trajectories: what the model meets at inference
    renoised       finished samples noised again: off the training set, yet on shells; the fair control between the two

Path k has the same row, noise and label for every model and every number of paths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorescope import seeds
from scorescope.rows import Bank

REGIONS = ("supervision", "extrapolation", "renoised")


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


def noise(seed: int, paths: int, shape: tuple[int, ...], purpose: str) -> Tensor:
    """ε of paths 0 … paths − 1, (paths, *shape)."""
    return seeds.normal(seed, purpose, range(paths), shape)


def supervision(bank: Bank, paths: int, seed: int, classes: Sequence[int]) -> Noised:
    """Training pairs: uniformly chosen rows (mirrored ones included), each with its own noise.

    With `classes` only their rows are chosen, and the pairs carry their labels; without, the pairs carry none.
    """
    if not classes or bank.labels is None:
        rows = seeds.choose(seed, "row", range(paths), len(bank))
        return Noised(bank[rows], noise(seed, paths, bank.shape, "pair"), None, rows)
    allowed = np.flatnonzero(np.isin(np.tile(bank.labels, len(bank) // len(bank.rows)), list(classes)))
    rows = allowed[seeds.choose(seed, "row", range(paths), len(allowed))]
    label = torch.from_numpy(bank.labels[rows % len(bank.rows)])
    return Noised(bank[rows], noise(seed, paths, bank.shape, "pair"), label, rows)


def renoised(samples: Tensor, label: Tensor | None, seed: int) -> Noised:
    """Finished samples (P, *shape) with fresh noise."""
    return Noised(samples, noise(seed, len(samples), tuple(samples.shape[1:]), "renoise"), label)


def path_labels(classes: list[int], paths: int) -> Tensor | None:
    """The class of each sampling path: the wanted classes in turn; None for an unconditional run."""
    return torch.tensor([classes[k % len(classes)] for k in range(paths)]) if classes else None
