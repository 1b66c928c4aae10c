"""A diffusers pipeline, or a pair (network, scheduler): read as `adapters.diffusers_folder` reads their files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scorescope.denoiser import Denoiser

WHAT = "a diffusers model"
OPTIONS = {"null": "label that stands for no class", "clip": "whether posterior means are cut to the range of the data"}


def accepts(thing: Any) -> bool:
    """A pipeline by its components and its scheduler, a pair by the scheduler's configuration and step."""
    if isinstance(thing, tuple):
        return len(thing) == 2 and hasattr(thing[1], "config") and callable(getattr(thing[1], "step", None))
    return hasattr(thing, "components") and hasattr(thing, "scheduler")


def wrap(thing: Any, options: Mapping[str, Any]) -> Denoiser:
    """The model; what it needs of diffusers is imported only now."""
    from scorescope.adapters.diffusers_folder import of_parts, of_pipeline

    return of_parts(*thing, **options) if isinstance(thing, tuple) else of_pipeline(thing, **options)
