"""The float64 reference of a whole batch, and how far an answer is from it.

The same as `empirical.reference_posterior`, which asks one state at a time: direct differences in float64, summed by a streaming softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.progress import Row
from scorescope.rows import Bank
from scorescope.schedule import LinearSchedule

ROWS = 1024


def reference_means(bank: Bank, z: Tensor, t: Tensor, tick: Row | None = None) -> Tensor:
    """Posterior means (B, d) float64 of states z (B, *shape) at times t (B,) in (0, 1), on the device of z."""
    alpha, sigma = LinearSchedule()(t.to(z.device))[:2]
    # ‖z − α x‖² = α² ‖z/α − x‖²: one direct difference a row for states of any time.
    points = z.double().reshape(len(z), -1) / alpha[:, None]
    peak = torch.full((len(z),), -torch.inf, dtype=torch.float64, device=z.device)
    mass, total = torch.zeros_like(peak), torch.zeros_like(points)
    for block in bank.blocks(ROWS):
        x = block.x.to(z.device, torch.float64)
        logit = torch.cdist(points, x, compute_mode="donot_use_mm_for_euclid_dist").square() * (-((alpha / sigma) ** 2) / 2)[:, None]
        higher = torch.maximum(peak, logit.amax(1))
        weight, kept = (logit - higher[:, None]).exp(), (peak - higher).exp()
        mass, total, peak = mass * kept + weight.sum(1), total * kept[:, None] + weight @ x, higher
        if tick:
            tick(len(x))
    return total / mass[:, None]


def relative_errors(means: Tensor, reference: Tensor) -> list[float]:
    """‖mean − reference‖/‖reference‖ of every query (B, d); a reference of exactly 0 is compared as it is."""
    norm = reference.norm(dim=1)
    error = (means.to(reference).reshape(reference.shape) - reference).norm(dim=1)
    return [float(value) for value in error / torch.where(norm > 0, norm, 1.0)]
