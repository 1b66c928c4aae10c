"""SiT as its authors publish it (Ma et al. 2024): time runs from noise (0) to data (1).

On the linear path v = x − ε, so that v_paper(z, t) = −v_SiT(z, 1 − t); the two other paths are variance preserving (`PATHS`). A last
layer with twice the channels of the data holds a second half that is not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scorescope.adapters.families import Checkpoint, Weights, checked, chosen, counted, filled
from scorescope.adapters.parts import Backwards, Velocity
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.nets.sit import SiT, SiTConfig
from scorescope.schedule import CosineSchedule, LinearSchedule, Schedule, VPSchedule

MARK = "blocks.0.adaLN_modulation.1.weight"
SHAPE = {
    "heads": "attention heads, where the width is none of the presets'",
    "classes": "number of classes, where no row is the null label",
}
OPTIONS = SHAPE | {
    "path_type": "Linear (as usual), GVP or VP: --path-type of its training",
    "prediction": "velocity (as usual), noise or score",
}
PATHS: dict[str, Schedule] = {"Linear": LinearSchedule(), "GVP": CosineSchedule(0.0), "VP": VPSchedule(0.1, 20.0)}
PREDICTIONS = {"velocity": "v", "noise": "eps", "score": "score"}
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # of S, B, L, XL


def belongs(checkpoint: Checkpoint) -> bool | None:
    """Its names are DiT's and REPA's, too, if no projector is among them."""
    return None if checkpoint.has(MARK) and not checkpoint.has("projectors.") else False


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model on the paper's axis."""
    told = checked(options, OPTIONS, "sit")
    schedule = PATHS[chosen(told, "path_type", PATHS, "sit", "Linear")]
    prediction = PREDICTIONS[chosen(told, "prediction", PREDICTIONS, "sit", "velocity")]
    net, classes, null = network(checkpoint.weights, told, "sit")
    turned = Velocity(net, schedule, backwards=True) if prediction == "v" else Backwards(net)
    return NetworkDenoiser(turned, schedule, prediction, classes=classes, null_label=null, shape=net.config.shape, name="sit")


def network(weights: Weights, options: Mapping[str, Any], family: str) -> tuple[SiT, int, int | None]:
    """The network of a state dict with SiT's names; its classes and its null label."""
    try:
        width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
        side = math.isqrt(weights["pos_embed"].shape[1])
        rows = len(weights["y_embedder.embedding_table.weight"]) if "y_embedder.embedding_table.weight" in weights else 0
        depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        ratio = len(weights["blocks.0.mlp.fc1.weight"]) / width
        doubled = len(weights["final_layer.linear.weight"]) == 2 * channels * patch**2
    except (KeyError, ValueError) as problem:
        raise InputError(f"the state dict lacks what every {family} has ({problem})", "the whole state dict") from problem
    heads = counted(options, "heads", HEADS.get(width, 0))
    if not heads:
        raise InputError(f"the state dict of width {width} does not tell its attention heads", "heads=6, or as many as it was trained with")
    if width % heads:
        raise InputError(f"heads={heads} does not divide the width {width}", "the number it was trained with")
    classes = counted(options, "classes", max(rows - 1, 0))
    if classes not in (rows, rows - 1):
        raise InputError(f"classes={classes} does not fit the {rows} rows of the label table", f"classes={rows - 1} or classes={rows}")
    config = SiTConfig(channels, side * patch, patch, width, depth, heads, max(rows - 1, 0), ratio, doubled)
    net = filled(SiT, config, weights)
    assert isinstance(net, SiT)
    return net, classes, classes if classes < rows else None
