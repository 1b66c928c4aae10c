"""The Fréchet distance between two sets of features, as if both were Gaussian (Dowson & Landau 1982; Heusel et al. 2017).

    FD² = ‖μ₁ − μ₂‖² + tr Σ₁ + tr Σ₂ − 2 tr (Σ₁ Σ₂)^½

what FID is, squared as in all publications. With Σ = FᵀF the last trace is the nuclear norm of F₁F₂ᵀ, the sum of its singular values:
the eigenvalues of Σ₁Σ₂ are their squares. No root of a matrix is taken, so nothing depends on small negative eigenvalues, nothing is
added to the diagonal, and n ≤ d costs n² d: then F is the centred features themselves.

How one sample moves it is its influence, the derivative of FD² along its weight. With c = f − μ₁ and A the optimal map from the first
Gaussian to the second, A = Σ₂^½ (Σ₂^½ Σ₁ Σ₂^½)^−½ Σ₂^½,

    ψ = 2 (μ₁ − μ₂)·c + cᵀ(I − A)c − tr Σ₁(I − A)

and cᵀAc = (n − 1) Σ_k s_k ⟨q, u_k⟩², where F₁F₂ᵀ = U S Vᵀ and the centred features are √(n − 1) Q F₁, q a row of Q. To first order FD² of
a resample is FD² + mean ψ over it: a bootstrap without its bias, at the price of one distance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.errors import InputError


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of features, in float64.

    Attributes:
        n: How many features there were.
        mean: (d,)
        factor: (min(n, d), d); the covariance (with n − 1) is factorᵀ factor.
    """

    n: int
    mean: Tensor
    factor: Tensor

    @property
    def trace(self) -> float:
        """Of the covariance: tr Σ."""
        return float(self.factor.square().sum())

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Of features (n, d).

        Raises:
            InputError: Fewer than two.
        """
        if len(features) < 2:
            raise InputError(f"{len(features)} sample is too few for a covariance", "2 or more")
        n, d = features.shape
        mean = features.mean(0, dtype=torch.float64)
        scale = (n - 1) ** -0.5
        if n <= d:
            return cls(n, mean, (features.double() - mean) * scale)
        # The triangular factor of all rows is that of the factors of their blocks: never more than a block is held in float64.
        factor = torch.zeros(0, d, dtype=torch.float64, device=features.device)
        for block in _blocks(features, 4 * d):
            factor = torch.linalg.qr(torch.cat([factor, (block.double() - mean) * scale]), mode="r").R
        return cls(n, mean, factor)


def _blocks(features: Tensor, size: int) -> Iterable[Tensor]:
    return features.split(size)


def frechet_distance(a: Moments | Tensor, b: Moments | Tensor) -> float:
    """FD² of two sets of features (n, d), or of their moments; 0 for equal ones, never negative.

    Raises:
        InputError: Features of different length, or fewer than two of them.
    """
    one = a if isinstance(a, Moments) else Moments.of(a)
    two = b if isinstance(b, Moments) else Moments.of(b)
    if len(one.mean) != len(two.mean):
        raise InputError(f"features of {len(one.mean)} and {len(two.mean)} numbers can't be compared", "the same extractor for both")
    shared = float(torch.linalg.svdvals(one.factor @ two.factor.T).sum())
    return max(0.0, float((one.mean - two.mean).square().sum()) + one.trace + two.trace - 2 * shared)


def influence(features: Tensor, other: Moments) -> tuple[float, Tensor]:
    """FD² of features (n, d) from another set, and the influence of each of them (n,), whose mean is 0; float64.

    Raises:
        InputError: As for `frechet_distance`.
    """
    own = Moments.of(features)
    value = frechet_distance(own, other)
    away, scale = features.double() - own.mean, (len(features) - 1) ** 0.5
    u, s, _ = torch.linalg.svd(own.factor @ other.factor.T, full_matrices=False)
    # Rows of Q U: the features solved for their own factor, where that is no square of full rank by least squares.
    along = u if len(own.factor) == len(features) else torch.linalg.lstsq(own.factor.T, away.T / scale).solution.T @ u
    mapped = (len(features) - 1) * along.square() @ s
    found = 2 * away @ (own.mean - other.mean) + away.square().sum(1) - mapped
    return value, found - found.mean()
