"""DiT (Peebles & Xie 2023) and fast-DiT: SiT's names and shapes, and another meaning: ε at 1,000 steps of linear β.

The last layer has twice the channels of the data, a variance that is not used; the last row of the label table is the null label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scorescope.adapters.families import Checkpoint, checked
from scorescope.adapters.families.adm import discrete
from scorescope.adapters.families.sit import MARK, SHAPE, belongs, network
from scorescope.denoiser import Denoiser, NetworkDenoiser

OPTIONS = SHAPE

__all__ = ["MARK", "OPTIONS", "belongs", "build"]


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model: step k of its training sits at t = (k + 1)/1000."""
    net, classes, null = network(checkpoint.weights, checked(options, OPTIONS, "dit"), "dit")
    schedule = discrete("linear")
    return NetworkDenoiser(net, schedule, "eps", time="steps", classes=classes, null_label=null, shape=net.config.shape, name="dit")
