"""What several kinds share: a model that is asked for E[x | x + s ε] at a noise level s = σ/α, whatever its own schedule.

Every schedule is this one seen through other coordinates, z = α (x + s ε): a kind says how to answer at a level, and which levels it
covers.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from scorescope.denoiser import NetworkDenoiser
from scorescope.errors import InputError
from scorescope.schedule import VESchedule

KARRAS = (0.002, 80.0)  # the levels at which Karras et al. (2022) sample, of models that answer at any
COMMON = {
    "classes": "number of classes",
    "null_label": "label that stands for no class",
    "shape": "shape of one state",
    "clip": "whether, or to which range, posterior means are cut",
    "name": "what reports call it",
}
LEVELS = {"sigma_min": "least noise level it was trained at", "sigma_max": "largest noise level it was trained at"}


def at_levels(net: nn.Module, span: tuple[float, float], options: Mapping[str, Any], **facts: Any) -> NetworkDenoiser:
    """A network that answers `net(x + s ε, s, label)` with E[x | x + s ε].

    Args:
        net: The network.
        span: Its least and largest level; `sigma_min` and `sigma_max` of the options go before them.
        options: As the user gave them.
        **facts: Further arguments of `NetworkDenoiser`; the user's go before them.
    """
    told = dict(options)
    low, high = (_number(told.pop(name, end), name) for name, end in zip(LEVELS, span, strict=True))
    clip = told.pop("clip", False)
    return NetworkDenoiser(net, VESchedule(low, high), "x", time="sigma", **{**facts, **told}).clipped(clip)


def _number(value: Any, name: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as problem:
        raise InputError(f"{name}={value!r} is no noise level", f"{name}={KARRAS[name == 'sigma_max']:g}") from problem


def clipped(low: float, high: float) -> tuple[float, float]:
    """Levels within those of Karras et al., as their sampler cuts those of a network that says 0 and infinity."""
    return max(KARRAS[0], low), min(KARRAS[1], high if math.isfinite(high) else KARRAS[1])


def like(level: Tensor, x: Tensor) -> Tensor:
    """Levels (B,) that multiply states (B, *)."""
    return level.reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)


def parameters_of(net: Any) -> tuple[str, ...]:
    """Names of the parameters of a network's call."""
    try:
        return tuple(inspect.signature(net.forward if isinstance(net, nn.Module) else net).parameters)
    except (TypeError, ValueError):
        return ()


def whole(value: Any) -> int:
    """An attribute that counts something, as a whole number; 0 for what does not."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) else 0
