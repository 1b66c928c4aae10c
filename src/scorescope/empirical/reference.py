"""The definition: Eq. 2 in float64 by direct differences, one state at a time. Every faster path is tested against it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorescope.empirical.posterior import Posterior
from scorescope.rows import Bank
from scorescope.schedule import Schedule, Time, as_time


def reference_posterior(bank: Bank, schedule: Schedule, z: Tensor, t: Time, label: int | None = None) -> Posterior:
    """Posterior of states z (B, *shape) at times t (a number or (B,)) among the rows of one class, or of all.

    At σ = 0 the weights are those of the limit: equal among the nearest rows. `error_bound` is 0: this is the definition.
    """
    times = as_time(t).expand(len(z)) if as_time(t).ndim == 0 else as_time(t)
    parts = []
    for state, time in zip(z.double().reshape(len(z), -1), times, strict=True):
        alpha, sigma = (float(value) for value in schedule(time)[:2])
        found = [((state - alpha * part.x.double()).square().sum(1), torch.from_numpy(part.index)) for part in bank.blocks(1024, label)]
        square, index = (torch.cat(part) for part in zip(*found, strict=True))
        if sigma > 0:
            logit = -square / (2 * sigma**2)
            density = torch.logsumexp(logit, 0) - math.log(len(square)) - 0.5 * bank.d * math.log(2 * math.pi * sigma**2)
            ratio = square.sqrt() / (sigma * math.sqrt(bank.d))
        else:
            logit = torch.where(square == square.min(), 0.0, -torch.inf).double()
            density = torch.where(square.min() == 0, torch.inf, -torch.inf).double()
            ratio = torch.where(square == 0, 1.0, torch.inf).double()
        weight = torch.softmax(logit, 0)
        mean = sum(w @ bank[j].double().reshape(len(j), -1) for w, j in zip(weight.split(1024), index.split(1024), strict=True))
        top = int(logit.argmax())
        entropy = -torch.special.xlogy(weight, weight).sum()
        nearest_to_one = ratio[(ratio - 1).abs().argmin()]
        values = (density, entropy, 1 / weight.square().sum(), index[top], weight[top], nearest_to_one, weight.new_zeros(()))
        parts.append(Posterior(torch.as_tensor(mean).reshape(1, *bank.shape), *(value.reshape(1) for value in values)))
    return Posterior.cat(parts)
