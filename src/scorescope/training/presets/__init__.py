"""Presets: recipes as plain values, in files by family; each module has a dictionary `PRESETS`."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from scorescope.errors import unknown
from scorescope.training.recipe import Recipe


def presets() -> dict[str, Recipe[Any, Any]]:
    """All presets by name, in the order of their files."""
    found: dict[str, Recipe[Any, Any]] = {}
    for module in pkgutil.iter_modules(__path__):
        found |= importlib.import_module(f"{__name__}.{module.name}").PRESETS
    return found


def preset(name: str) -> Recipe[Any, Any]:
    """The recipe of that name.

    Raises:
        InputError: No such preset; the nearest name is suggested.
    """
    known = presets()
    if name not in known:
        raise unknown("preset", name, known)
    return known[name]
