"""A k-diffusion denoiser (`layers.Denoiser`, `external.*`): D(x, σ) = E[x | x + σ ε], around a network and its scalings.

Discrete ones say their levels; others answer at any, and are asked at those of Karras et al. (2022) unless told. Its configurations give a
network one class more than the data have, for "no class".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from scorescope.adapters.objects.levels import COMMON, KARRAS, LEVELS, at_levels, parameters_of, whole
from scorescope.denoiser import Denoiser

WHAT = "a k-diffusion denoiser"
OPTIONS = {**COMMON, **LEVELS}
NAMES = ("class_cond", "y", "class_labels", "label")  # what networks call the class


def accepts(thing: Any) -> bool:
    """By its network and its scalings."""
    return isinstance(thing, nn.Module) and hasattr(thing, "inner_model") and callable(getattr(thing, "get_scalings", None))


def wrap(thing: Any, options: Mapping[str, Any]) -> Denoiser:
    """The denoiser, with the classes that its network has."""
    inner = thing.inner_model
    rows = whole(getattr(getattr(inner, "class_emb", None), "num_embeddings", None))
    count = rows - 1 if rows else whole(getattr(inner, "num_classes", None))
    facts: dict[str, Any] = {"classes": count, "null_label": count if rows else None, "name": type(inner).__name__}
    span = (float(getattr(thing, "sigma_min", KARRAS[0])), float(getattr(thing, "sigma_max", KARRAS[1])))
    named = next((name for name in NAMES if name in parameters_of(inner)), NAMES[0])
    return at_levels(Asked(thing, named), span, options, **facts)


class Asked(nn.Module):
    """The denoiser, with the class under the name that its network has for it."""

    def __init__(self, denoiser: nn.Module, named: str) -> None:
        super().__init__()
        self.denoiser, self.named = denoiser, named

    def forward(self, x: Tensor, level: Tensor, label: Tensor | None = None) -> Tensor:
        """D(x, σ)."""
        found: Tensor = self.denoiser(x, level, **({} if label is None else {self.named: label}))
        return found
