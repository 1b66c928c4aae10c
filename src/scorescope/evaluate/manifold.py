"""Improved precision and recall (Kynkäänniemi et al. 2019, k = 3).

A set's manifold is the union of balls around its features, each reaching to that feature's k-th nearest neighbour in the same set.
Precision is the share of samples inside the manifold of the real features, recall the share of real features inside that of the samples.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scorescope.errors import InputError

K = 3
BLOCK = 1024


class PrecisionRecall(NamedTuple):
    """Shares in [0, 1]."""

    precision: float
    recall: float


def precision_recall(samples: Tensor, real: Tensor, k: int = K) -> PrecisionRecall:
    """Of features (n, d) and (m, d); distances in float64.

    Raises:
        InputError: k below 1, or no more than k features on one side.
    """
    if k < 1:
        raise InputError(f"k = {k} asks for no neighbours", "k = 3")
    for name, found in (("samples", samples), ("real rows", real)):
        if len(found) <= k:
            raise InputError(f"{len(found)} {name} are too few: {k} nearest neighbours need at least {k + 1}", f"{k + 1} or more")
    centre = real.mean(0, dtype=torch.float64)
    fake, true = samples.double() - centre, real.double() - centre
    return PrecisionRecall(_inside(fake, true, radii(true, k)), _inside(true, fake, radii(fake, k)))


def _squared(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances (n, m) of float64 rows."""
    return (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * (a @ b.T)).clamp_(min=0)


def radii(x: Tensor, k: int) -> Tensor:
    """Squared distance of each row (n, d) to its k-th nearest other row, (n,)."""
    found = []
    for start in range(0, len(x), BLOCK):
        square = _squared(x[start : start + BLOCK], x)
        own = torch.arange(len(square), device=x.device)
        square[own, start + own] = torch.inf
        found.append(square.kthvalue(k, dim=1).values)
    return torch.cat(found)


def _inside(points: Tensor, centres: Tensor, radius: Tensor) -> float:
    """Share of points (n, d) that lie in a ball around a centre (m, d)."""
    return sum(int((_squared(part, centres) <= radius).any(1).sum()) for part in points.split(BLOCK)) / len(points)
