"""REPA (Yu et al. 2024): SiT's names and shapes, projectors beside them, and time the paper's way (v = ε − x, t = 0 is data)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from scorescope.adapters.families import Checkpoint, Weights, checked, chosen
from scorescope.adapters.families.sit import MARK, SHAPE, network
from scorescope.adapters.parts import Velocity
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.schedule import CosineSchedule, LinearSchedule, Schedule

PROJECTORS = "projectors."
OPTIONS = SHAPE | {"path_type": "linear (as usual) or cosine: --path-type of its training"}
PATHS: dict[str, Schedule] = {"linear": LinearSchedule(), "cosine": CosineSchedule(0.0)}

__all__ = ["MARK", "OPTIONS", "belongs", "build"]


def belongs(checkpoint: Checkpoint) -> bool | None:
    """By its projectors, which some leave out."""
    return checkpoint.has(MARK) and (checkpoint.has(PROJECTORS) or None)


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model; its network keeps the projectors as `net.projectors`, each a perceptron on the tokens of a block."""
    weights = checkpoint.weights
    own = {name: value for name, value in weights.items() if not name.startswith(PROJECTORS)}
    told = checked(options, OPTIONS, "repa")
    schedule = PATHS[chosen(told, "path_type", PATHS, "repa", "linear")]
    net, classes, null = network(own, told, "repa")
    net.projectors = projectors({name[len(PROJECTORS) :]: value for name, value in weights.items() if name.startswith(PROJECTORS)})
    turned = net if isinstance(schedule, LinearSchedule) else Velocity(net, schedule)
    return NetworkDenoiser(turned, schedule, "v", classes=classes, null_label=null, shape=net.config.shape, name="repa")


def projectors(weights: Weights) -> nn.ModuleList:
    """`projectors.k.{0,2,4}`: linear layers with SiLU between them."""
    count = 1 + max((int(name.split(".")[0]) for name in weights), default=-1)
    made = nn.ModuleList()
    for k in range(count):
        last = max(int(name.split(".")[1]) for name in weights if name.startswith(f"{k}."))
        layers: list[nn.Module] = []
        for index in range(0, last + 1, 2):
            out, into = weights[f"{k}.{index}.weight"].shape
            layers += [nn.Linear(into, out), nn.SiLU()]
        made.append(nn.Sequential(*layers[:-1]))
    made.load_state_dict(weights)
    return made
