"""Sampling trajectories without a trained model: those of the Gaussian that fits the bank, in closed form.

The probability flow of N(m, Σ) on the linear schedule is z_t = α m + Σ_i √(α² λ_i + σ²) ⟨q_i, ε⟩ q_i for the principal axes q_i of Σ
with variances λ_i: every state comes straight from the noise it started at. Beyond the leading axes the variance is shared evenly.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope import seeds
from scorescope.bench.workloads import Trajectories, times
from scorescope.rows import Bank

ROWS, AXES, ROUNDS = 16384, 1024, 3


def principal_axes(bank: Bank, seed: int) -> tuple[Tensor, Tensor, float]:
    """Leading axes (d, r), their variances (r,) and the mean variance of the rest, from evenly spaced rows, by subspace iteration."""
    wanted = torch.linspace(0, len(bank) - 1, min(len(bank), ROWS), dtype=torch.float64).round().long()
    rows = bank[wanted].reshape(len(wanted), -1)
    rows = rows - bank.mean.float().flatten()
    rank = min(AXES, *rows.shape)
    axes = seeds.normal(seed, "bench axes", range(rank), (bank.d,)).T
    for _ in range(ROUNDS):
        axes = torch.linalg.qr(rows.T @ (rows @ axes)).Q
    seen = rows @ axes
    variance, turn = torch.linalg.eigh((seen.T @ seen).double() / len(rows))
    rest = max(float(rows.double().square().sum()) / len(rows) - float(variance.clamp(min=0).sum()), 0.0)
    return axes @ turn.float(), variance.clamp(min=0), rest / max(bank.d - rank, 1)


def trajectories(bank: Bank, count: int, steps: int, seed: int, device: torch.device) -> Trajectories:
    """The trajectory workload: `count` draws of noise and where the flow takes them."""
    asked = times(steps)
    axes, variance, rest = principal_axes(bank, seed)
    eps = seeds.normal(seed, "bench path", range(count), bank.shape).reshape(count, -1)
    inside = eps @ axes
    states = torch.empty(count, steps, bank.d)
    for k, t in enumerate(asked.tolist()):
        outer = ((1 - t) ** 2 * rest + t**2) ** 0.5
        scale = ((1 - t) ** 2 * variance + t**2).sqrt() - outer
        states[:, k] = (1 - t) * bank.mean.float().flatten() + outer * eps + (inside * scale.float()) @ axes.T
    return Trajectories("trajectory", states.reshape(count, steps, *bank.shape).to(device), asked)
