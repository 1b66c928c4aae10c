"""Who answers: methods to compare, found by scanning this package, so that adding one is adding a file.

A module here that defines `METHODS`, a tuple of `Method`, is found; there is no list to edit.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache

from scorescope.bench.methods.base import Method
from scorescope.errors import unknown


@cache
def all_methods() -> dict[str, Method]:
    """Every method by name, in their own order."""
    modules = (importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__))
    found = [method for module in modules for method in getattr(module, "METHODS", ())]
    return {method.name: method for method in sorted(found, key=lambda method: method.order)}


def chosen(names: Sequence[str]) -> list[Method]:
    """The methods of these names, or all, in their own order.

    Raises:
        InputError: A name that no method has; the nearest one is suggested.
    """
    known = all_methods()
    for name in names:
        if name not in known:
            raise unknown("method", name, known)
    return [method for name, method in known.items() if not names or name in names]
