"""LightningDiT (Yao et al. 2025) as its authors publish it: SiT's path, time from noise (0) to data (1), v = x − ε.

The states are latents of VA-VAE, each channel normalized: (latent − mean)/std · multiplier, with the `latents_stats.pt` and the
`latent_multiplier` of its training. No checkpoint holds these: the bank must.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from scorescope.adapters.families import Checkpoint, checked, counted, filled, whole
from scorescope.adapters.families.sit import MARK as SIT
from scorescope.adapters.parts import Velocity
from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.nets.modern import ModernConfig, ModernSiT
from scorescope.schedule import LinearSchedule

MARK = "blocks.0.mlp.w12.weight, blocks.0.norm1.weight or feat_rope.freqs_cos"
OPTIONS = {
    "heads": "attention heads, where neither rotary positions nor a norm of queries tells them and the width is none of the presets'",
    "classes": "number of classes, where no row is the null label",
}
OWN = ("blocks.0.mlp.w12.weight", "blocks.0.norm1.weight", "feat_rope.freqs_cos")  # any of which SiT has not
HEADS = {768: 12, 1024: 16, 1152: 16, 1536: 24, 1792: 28}  # of B, L, XL, 1p0B, 1p6B


def belongs(checkpoint: Checkpoint) -> bool | None:
    """By what SiT has not; with normed queries alone it might be a SiT of another code."""
    if not checkpoint.has(SIT, "x_embedder.proj.weight") or checkpoint.has("projectors."):
        return False
    if any(checkpoint.has(name) for name in OWN):
        return True
    return None if checkpoint.has("blocks.0.attn.q_norm.weight") else False


def build(checkpoint: Checkpoint, options: Mapping[str, Any]) -> Denoiser:
    """The model on the paper's axis."""
    told = checked(options, OPTIONS, "lightningdit")
    config = shape_of(checkpoint, told)
    classes = counted(told, "classes", config.rows - 1)
    if classes not in (config.rows, config.rows - 1):
        known = f"classes={config.rows - 1} or classes={config.rows}"
        raise InputError(f"classes={classes} does not fit the {config.rows} rows of the label table", known)
    turned = Velocity(filled(ModernSiT, config, checkpoint.weights), LinearSchedule(), backwards=True)
    null = classes if classes < config.rows else None
    return NetworkDenoiser(turned, LinearSchedule(), "v", classes=classes, null_label=null, shape=config.shape, name="lightningdit")


def shape_of(checkpoint: Checkpoint, options: Mapping[str, Any]) -> ModernConfig:
    """What names and shapes say."""
    weights = checkpoint.weights
    with whole("LightningDiT"):
        width, channels, patch, _ = weights["x_embedder.proj.weight"].shape
        swiglu, rope = checkpoint.has("blocks.0.mlp.w12."), checkpoint.has("feat_rope.")
        qk = "layer" if checkpoint.has("blocks.0.attn.q_norm.bias") else "rms" if checkpoint.has("blocks.0.attn.q_norm.") else ""
        hidden = weights["blocks.0.mlp.w3.weight"].shape[1] if swiglu else len(weights["blocks.0.mlp.fc1.weight"])
        depth = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))
        head = weights["feat_rope.freqs_cos"].shape[1] if rope else len(weights["blocks.0.attn.q_norm.weight"]) if qk else 0
        shift = len(weights["blocks.0.adaLN_modulation.1.weight"]) == 6 * width
        side = math.isqrt(weights["pos_embed"].shape[1])
        rows = len(weights["y_embedder.embedding_table.weight"])
        doubled = len(weights["final_layer.linear.weight"]) == 2 * channels * patch**2
    heads = counted(options, "heads", width // head if head else HEADS.get(width, 0))
    if not heads:
        raise InputError(f"the state dict of width {width} does not tell its attention heads", "heads=6, or as many as it was trained with")
    if width % heads or (head and width != heads * head):
        raise InputError(f"heads={heads} does not fit the width {width}", "the number it was trained with")
    return ModernConfig(
        channels, side * patch, patch, width, depth, heads, hidden, rows, doubled,
        rms=checkpoint.has("blocks.0.norm1.weight"), qk_norm=qk, rope=rope, swiglu=swiglu, shift=shift,
    )  # fmt: skip
