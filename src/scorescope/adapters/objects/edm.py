"""An EDM network (Karras et al. 2022), or EDM2's: called as net(x, σ, class_labels) it answers E[x | x + σ ε]; classes are one-hot.

Zeros ask for "no class", which a network knows if it was trained with dropped labels (`label_dropout`), or where `null_label` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scorescope.adapters.objects.levels import COMMON, LEVELS, at_levels, clipped
from scorescope.denoiser import Denoiser
from scorescope.networks import Conditioned

WHAT = "an EDM network"
OPTIONS = {**COMMON, **LEVELS}


def accepts(thing: Any) -> bool:
    """By the number of its classes and what it says of its levels: EDM its rounding, EDM2 the data's standard deviation."""
    return callable(thing) and isinstance(getattr(thing, "label_dim", None), int) and (hasattr(thing, "round_sigma") or _second(thing))


def _second(thing: Any) -> bool:
    return all(hasattr(thing, name) for name in ("sigma_data", "img_resolution", "img_channels"))


def wrap(thing: Any, options: Mapping[str, Any]) -> Denoiser:
    """The network at the levels at which its own sampler asks it."""
    width, low, high = thing.label_dim, getattr(thing, "sigma_min", 0.0), getattr(thing, "sigma_max", float("inf"))
    side, channels = getattr(thing, "img_resolution", None), getattr(thing, "img_channels", None)
    net: nn.Module = Asked(thing)
    facts: dict[str, Any] = {"name": type(thing).__name__}
    if isinstance(side, int) and isinstance(channels, int):
        facts["shape"] = (channels, side, side)
    if width:
        net = Conditioned(net, torch.eye(width), torch.zeros(width))
        facts |= {"classes": width, "null_label": null_of(thing)}
    return at_levels(net, clipped(float(low), float(high)), options, **facts)


def null_of(net: Any) -> int | None:
    """The label of zeros, where the network was trained with it."""
    dropped = float(getattr(getattr(net, "model", None), "label_dropout", 0.0)) > 0
    return net.label_dim if dropped else None


class Asked(nn.Module):
    """The network with its own names of arguments; levels stay as they are, since `round_sigma` is its own to use."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """D(x; σ, c); EDM2's may answer in half precision, and takes one level for each state."""
        found: Tensor = self.net(x, level, label)
        return found.to(x.dtype)
