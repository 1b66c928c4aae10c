"""DiCo (Ai et al. 2025) as its authors publish it: DiT's process, ε at 1,000 steps of linear β, on SD-VAE latents times 0.18215."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scorescope.adapters.families import Checkpoint, Weights, checked, counted, filled, whole
from scorescope.adapters.families.adm import discrete
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.nets.dico import DiCo, DiCoConfig

MARK = "t_embedder_3.mlp.0.weight"
OPTIONS = {
    "classes": "number of classes, where no row is the null label",
    "size": "side of the latents, where it shall be fixed",
}
LEVELS = ("encoder_level_1", "encoder_level_2", "latent", "decoder_level_2", "decoder_level_1")


def belongs(checkpoint: Checkpoint) -> bool | None:
    """By its three embedders of time, and by its levels."""
    return checkpoint.has(MARK, *(f"{level}.0." for level in LEVELS))


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model."""
    told = checked(options, OPTIONS, "dico")
    config = shape_of(checkpoint.weights)
    classes = counted(told, "classes", config.rows - 1)
    if classes not in (config.rows, config.rows - 1):
        known = f"classes={config.rows - 1} or classes={config.rows}"
        raise InputError(f"classes={classes} does not fit the {config.rows} rows of the label tables", known)
    size = counted(told, "size")
    if size % 4:
        raise InputError(f"size={size} is not divisible by 4, the last factor of a DiCo", "the size it was trained with")
    net = filled(DiCo, config, checkpoint.weights)
    return NetworkDenoiser(
        net, discrete("linear"), "eps", time="steps", classes=classes,
        null_label=classes if classes < config.rows else None, shape=(config.channels, size, size) if size else None, name="dico",
    )  # fmt: skip


def shape_of(weights: Weights) -> DiCoConfig:
    """What names and shapes say."""
    with whole("DiCo"):
        width, channels = weights["x_embedder.proj.weight"].shape[:2]
        depths = [1 + max(int(name.split(".")[1]) for name in weights if name.startswith(f"{level}.")) for level in LEVELS]
        hidden = len(weights["encoder_level_1.0.conv4.weight"])
        rows = len(weights["y_embedder.embedding_table_0.weight"])
        doubled = len(weights["final_layer.out_proj.weight"]) == 2 * channels
    return DiCoConfig(channels, width, tuple(depths), hidden / width, rows, doubled)
