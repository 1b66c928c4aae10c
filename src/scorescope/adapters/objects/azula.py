"""An azula denoiser: q(X | x_t) with x_t = α_t x + σ_t ε, whose mean is the posterior mean, and its own schedule t → (α_t, σ_t).

It is asked at level s at the t where σ_t/α_t = s, which azula lets grow with t from 0 to 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scorescope.adapters.objects.edm import null_of
from scorescope.adapters.objects.levels import COMMON, at_levels, like, whole
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.networks import Conditioned

WHAT = "an azula denoiser"
OPTIONS = COMMON
LEAST, MOST = 1e-4, 1e4  # levels at which a schedule that ends at σ = 0 or α = 0 is asked
HALVINGS = 50  # of [0, 1] until t is known to 1e-15


def accepts(thing: Any) -> bool:
    """A module with a schedule that gives two scales."""
    schedule = getattr(thing, "schedule", None)
    if not isinstance(thing, nn.Module) or not callable(schedule):
        return False
    try:
        scales = schedule(torch.tensor(0.5))
    except Exception:  # another library's schedule may be called with anything
        return False
    return isinstance(scales, tuple) and len(scales) == 2 and all(isinstance(one, Tensor) for one in scales)


def wrap(thing: Any, options: Mapping[str, Any]) -> Denoiser:
    """The denoiser, with the classes that it or its network names."""
    backbone = getattr(thing, "backbone", None)
    own, inner = whole(getattr(thing, "num_classes", None)), whole(getattr(backbone, "num_classes", None))
    facts: dict[str, Any] = {"classes": own or inner, "null_label": own or None, "name": type(thing).__name__}
    net: nn.Module = AtLevel(thing)
    width = getattr(backbone, "label_dim", None)
    if isinstance(width, int):  # an EDM network, which takes one-hot classes, and a tensor where there are none
        net = Conditioned(net, torch.eye(width), torch.zeros(width))
        facts |= {"classes": width, "null_label": null_of(backbone) if width else 0}
    span = (max(LEAST, level_at(thing.schedule, 0.0)), min(MOST, level_at(thing.schedule, 1.0)))
    return at_levels(net, span, options, **facts)


def level_at(schedule: Any, t: float) -> float:
    """σ/α at a time; infinite where α = 0."""
    alpha, sigma = (float(one) for one in schedule(torch.tensor(t, dtype=torch.float64)))
    return sigma / alpha if alpha > 0 else float("inf")


class AtLevel(nn.Module):
    """An azula denoiser asked at levels s in place of its times."""

    def __init__(self, denoiser: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.schedule: Any = denoiser.schedule
        self.together = hasattr(denoiser, "backbone")  # a closed form takes one time, not one for each state

    def time(self, level: Tensor) -> Tensor:
        """The t (B,) at which σ_t/α_t is a level (B,), float64, by bisection."""
        low, high = torch.zeros_like(level), torch.ones_like(level)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            alpha, sigma = self.schedule(middle)
            below = sigma < level * alpha
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """E[x | x + s ε] of states (B, *) at levels (B,)."""
        named = {} if label is None else {"label": label}
        known, which = level.double().unique(return_inverse=True)
        t = self.time(known)
        z = like(self.schedule(t)[0][which], x) * x
        if self.together:
            return self._mean(z, t[which].to(x.dtype), named)
        out = torch.empty_like(x)
        for k, one in enumerate(t):
            here = which == k
            out[here] = self._mean(z[here], one.to(x.dtype), {key: value[here] for key, value in named.items()})
        return out

    def _mean(self, z: Tensor, t: Tensor, named: Mapping[str, Tensor]) -> Tensor:
        found = getattr(self.denoiser(z, t, **named), "mean", None)
        if not isinstance(found, Tensor):
            raise InputError(f"{type(self.denoiser).__name__} answers without a mean", "a denoiser whose posterior has a mean")
        return found.to(z.dtype)
