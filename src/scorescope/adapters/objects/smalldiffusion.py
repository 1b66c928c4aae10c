"""A smalldiffusion model: ε̂ of x + σ ε, however it was trained to say it (`predict_eps`); or a flow, v = ε − x on the paper's path.

A model does not say at which σ it was trained: its schedule does, as the second of a pair (model, schedule).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from scorescope.adapters.objects.levels import COMMON, LEVELS, at_levels, like
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.schedule import LinearSchedule

WHAT = "a smalldiffusion model"
OPTIONS = {**COMMON, **LEVELS}
FLOW = "PredFlow"  # how the name of a class ends whose models are flows


def accepts(thing: Any) -> bool:
    """By its ε̂ and its input; alone, or with its schedule."""
    if isinstance(thing, tuple):
        return len(thing) == 2 and accepts(thing[0]) and isinstance(getattr(thing[1], "sigmas", None), Tensor)
    return isinstance(thing, nn.Module) and callable(getattr(thing, "predict_eps", None)) and callable(getattr(thing, "rand_input", None))


def wrap(thing: Any, options: Mapping[str, Any]) -> Denoiser:
    """The model, with the classes of its embedding."""
    model, schedule = thing if isinstance(thing, tuple) else (thing, None)
    null = getattr(getattr(model, "cond_embed", None), "null_cond", None)
    count = null if isinstance(null, int) else 0
    facts: dict[str, Any] = {"classes": count, "null_label": count or None, "name": type(model).__name__}
    if isinstance(getattr(model, "input_dims", None), tuple):
        facts["shape"] = model.input_dims
    if any(kind.__name__.endswith(FLOW) for kind in type(model).__mro__):
        for name in LEVELS:
            if name in options:
                raise InputError(f"{name} means nothing for a flow, whose time runs from 0 to 1", "leaving it out")
        told = {**facts, **options}
        clip = told.pop("clip", False)
        return NetworkDenoiser(Flow(model), LinearSchedule(), "v", **told).clipped(clip)
    span = (float("nan"), float("nan"))
    if schedule is not None:
        span = (float(schedule.sigmas.min()), float(schedule.sigmas.max()))
    elif missing := [name for name in LEVELS if name not in options]:
        said = f"{type(model).__name__} does not say at which noise levels it was trained ({', '.join(missing)})"
        raise InputError(said, "the pair (model, schedule), or ss.load(model, sigma_min=0.02, sigma_max=10)")
    return at_levels(Mean(model), span, options, **facts)


class Flow(nn.Module):
    """The velocity that a flow answers with."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """v(z, t) = ε − x; times (B, 1, …), as the library gives them."""
        found: Tensor = self.model(z, like(t, z), cond=label)
        return found


class Mean(nn.Module):
    """x̂ = x − σ ε̂ of states x + σ ε."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """E[x | x + σ ε] of states (B, *) at levels (B,)."""
        sigma = like(level, x)
        found: Tensor = x - sigma * self.model.predict_eps(x, sigma, cond=label)  # type: ignore[operator]
        return found
