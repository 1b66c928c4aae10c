"""The Gaussian (Wiener) denoiser: the best linear one, and what a network must beat before it can be called a fit.

For x ~ N(μ, Σ) and z = α x + σ ε, with Σ = V Λ Vᵀ,

    E[x | z] = μ + V diag(α λ / (α² λ + σ²)) Vᵀ (z − α μ),

the conditional mean of two jointly Gaussian vectors. μ and Σ are those of the bank, of each class where one is asked for. Σ is the rows'
own covariance, shrunk toward the isotropic one by as much as their number deserves (OAS; Chen, Wiesel, Eldar & Hero 2010, Eq. 23):
without it directions that few rows never took would have no variance, and the denoiser would be better on these rows than on any others.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.denoiser import Denoiser
from scorescope.rows import Bank
from scorescope.schedule import Schedule, as_schedule

EXACT = 4096  # side of the largest matrix whose eigenvectors are found; beyond it, of the leading ones
RANK = 512  # of which so many
SPARE, PASSES = 64, 3  # of the randomized range finder (Halko, Martinsson & Tropp 2011): directions beside those kept, passes over the rows
BLOCK = 4096  # rows of one product


@dataclass(frozen=True)
class Gaussian:
    """Mean (d,), leading eigenvalues (r,) and eigenvectors (d, r) of a covariance whose other eigenvalues are all `rest`; float64."""

    mean: Tensor
    values: Tensor
    vectors: Tensor
    rest: float

    @classmethod
    def of(cls, bank: Bank, label: int | None = None, device: torch.device | str = "cpu") -> Gaussian:
        """That of a bank's rows and their mirror images, or of a class of them."""
        d, sides = bank.d, 1 + bank.flips
        n = sides * len(bank.indices(label))
        mean = torch.zeros(d, dtype=torch.float64, device=device)
        for block in bank.blocks(BLOCK, label):
            mean += block.x.to(device).double().sum(0) / n

        def away() -> Iterator[Tensor]:
            """Rows relative to the mean, so scaled that C is the sum of their squares."""
            return ((block.x.to(device).double() - mean) / n**0.5 for block in bank.blocks(BLOCK, label))

        def covered(q: Tensor) -> Tensor:
            """C q (d, k), in one pass."""
            return sum((x.T @ (x @ q) for x in away()), torch.zeros_like(q))

        if n <= min(d, EXACT):
            x = torch.cat(list(away()))
            values, inner = torch.linalg.eigh(x @ x.T)
            kept = values > 1e-12 * values[-1].clamp(min=1e-300)
            values, vectors = values[kept], x.T @ inner[:, kept] / values[kept].sqrt()
            trace = float(x.square().sum())
        elif d <= EXACT:
            covariance = sum((x.T @ x for x in away()), torch.zeros(d, d, dtype=torch.float64, device=device))
            values, vectors = torch.linalg.eigh(covariance)
            values, trace = values.clamp(min=0), float(covariance.trace())
        else:
            generator = torch.Generator().manual_seed(0)
            q = torch.randn(d, RANK + SPARE, dtype=torch.float64, generator=generator).to(device)
            for _ in range(PASSES):
                q = torch.linalg.qr(covered(q))[0]
            inner_values, inner = torch.linalg.eigh(q.T @ covered(q))
            values, vectors = inner_values[SPARE:].clamp(min=0), q @ inner[:, SPARE:]
            trace = sum(float(x.square().sum()) for x in away())
        others = d - len(values)
        rest = max(trace - float(values.sum()), 0.0) / others if others else 0.0
        share = shrinkage(trace, float(values.square().sum()) + others * rest**2, n, d)
        return cls(mean, (1 - share) * values + share * trace / d, vectors, (1 - share) * rest + share * trace / d)

    def posterior_mean(self, z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """E[x | z] (B, d) of states z (B, d) with scales (B, 1), all float64."""

        def gain(values: Tensor) -> Tensor:
            """α λ / (α² λ + σ²); 1/α at σ = 0, whatever λ."""
            clean = 1 / alpha.clamp(min=1e-300)
            return torch.where(sigma > 0, alpha * values / (alpha**2 * values + sigma**2).clamp(min=1e-300), clean)

        away, flat = z - alpha * self.mean, gain(torch.full_like(alpha, self.rest))
        return self.mean + flat * away + ((away @ self.vectors) * (gain(self.values) - flat)) @ self.vectors.T


def shrinkage(trace: float, squares: float, n: int, d: int) -> float:
    """OAS's share of the isotropic covariance, from tr C, tr C², the number of rows and of dimensions."""
    apart = squares - trace**2 / d
    return min(1.0, ((1 - 2 / d) * squares + trace**2) / ((n + 1 - 2 / d) * apart)) if apart > 0 else 1.0


class GaussianScore(Denoiser):
    """The Gaussian denoiser of a bank; of each class where a label is given.

    Args:
        bank: Whose mean and covariance.
        schedule: α and σ of the states.
        device: Where to compute.
    """

    NOT_IDENTITY = (*Denoiser.NOT_IDENTITY, "device", "known")

    def __init__(self, bank: Bank, schedule: Schedule | None = None, device: torch.device | str = "cpu") -> None:
        self.bank, self.schedule, self.device = bank, as_schedule(schedule), torch.device(device)
        self.classes, self.shape, self.name = bank.classes, bank.shape, "Gaussian of the bank"
        self.known: dict[int | None, Gaussian] = {}

    def to(self, device: torch.device | str) -> GaussianScore:
        """The same on another device."""
        return GaussianScore(self.bank, self.schedule, device)

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Posterior mean, in the dtype of z."""
        alpha, sigma, *_ = self.schedule(t)
        flat, found = z.flatten(1).double(), torch.empty(len(z), self.bank.d, dtype=torch.float64, device=z.device)
        for tag in [None] if label is None else label.unique().tolist():
            own = torch.ones(len(z), dtype=torch.bool, device=z.device) if label is None else label == tag
            if tag not in self.known:
                self.known[tag] = Gaussian.of(self.bank, tag, self.device)
            found[own] = self.known[tag].posterior_mean(flat[own], alpha[own, None], sigma[own, None])
        return found.reshape(z.shape).to(z)


THEORY = GaussianScore
