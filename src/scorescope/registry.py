"""A new X is one file: the modules of a package, found by scanning it, each known by the name of its file."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from scorescope.errors import unknown


def names(package: str) -> list[str]:
    """Names of a package's modules, in alphabetical order; none of them is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__))


def module(package: str, name: str, kind: str) -> ModuleType:
    """One module of a package.

    Raises:
        InputError: There is none of that name; the nearest one is suggested. `kind` says what it would have been.
    """
    known = names(package)
    if name not in known:
        raise unknown(kind, name, known)
    return importlib.import_module(f"{package}.{name}")


def every(package: str, attribute: str) -> dict[str, Any]:
    """The `attribute` of each of a package's modules that has it, by the module's name, in alphabetical order."""
    found = {name: importlib.import_module(f"{package}.{name}") for name in names(package)}
    return {name: getattr(one, attribute) for name, one in found.items() if hasattr(one, attribute)}
