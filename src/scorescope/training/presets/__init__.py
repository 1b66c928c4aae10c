"""Presets: recipes as plain values, in files by family; each module has a dictionary `PRESETS`."""

from __future__ import annotations

from typing import Any

from scorescope import registry
from scorescope.errors import unknown
from scorescope.training.recipe import Recipe


def presets() -> dict[str, Recipe[Any, Any]]:
    """All presets by name, in the order of their files."""
    return {name: recipe for family in registry.every(__name__, "PRESETS").values() for name, recipe in family.items()}


def preset(name: str) -> Recipe[Any, Any]:
    """The recipe of that name.

    Raises:
        InputError: No such preset; the nearest name is suggested.
    """
    known = presets()
    if name not in known:
        raise unknown("preset", name, known)
    return known[name]
