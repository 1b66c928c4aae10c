"""Which runs are of one recipe: those whose records differ in size, length and seed alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.evaluate import flops

SIZE = ("width", "depth", "heads", "channels", "multipliers", "residual_blocks", "head_width")
LENGTH = ("steps", "seed", "accumulate", "precision", "compile", "features")
BACKWARD = 3
"""Operations of a step over those of its forward passes: backward passes take twice as many."""


def grouped(models: Mapping[str, Denoiser]) -> dict[str, str]:
    """The recipe of each model, by what records say that differs between them: "sit", or "unet, attention none".

    Raises:
        InputError: A model that brings no record.
    """
    kept = {name: _kept(name, model) for name, model in models.items()}
    keys = list(dict.fromkeys(key for one in kept.values() for key in one))
    differing = [key for key in keys if len({str(one.get(key)) for one in kept.values()}) > 1 and key != "family"]
    return {name: ", ".join([str(one["family"]), *_said(one, differing)]) for name, one in kept.items()}


def _kept(name: str, model: Denoiser) -> dict[str, Any]:
    record = dict(model.about.get("recipe") or {})
    if not record.get("family"):
        raise InputError(f"{name} does not say by what recipe it was trained", f"--recipe NAME={name},…")
    return {key: value for key, value in record.items() if key not in (*SIZE, *LENGTH) and not key.endswith(("_depth", "_width"))}


def _said(record: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    return [_words(key, record[key]) for key in keys if key in record]


def _words(key: str, value: Any) -> str:
    if key == "objective":
        return str(value)
    text = " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
    return f"{key.replace('_', ' ')} {text}"


def step_of(model: Denoiser) -> int | None:
    """After how many steps a model's weights were kept; None where its record does not say."""
    kept = re.fullmatch(r"step-(\d+)", Path(str(model.about.get("file", ""))).stem)
    whole = (model.about.get("recipe") or {}).get("steps")
    return int(kept[1]) if kept else whole


def compute(model: Denoiser) -> float:
    """Operations of a model's training, 3 × forward pass × batch × steps; NaN where its record does not say. Encoders are not counted."""
    step, batch = step_of(model), (model.about.get("recipe") or {}).get("batch")
    return float("nan") if step is None or batch is None else float(BACKWARD * flops(model).total * batch * step)
