"""Who answers: methods to compare, found by scanning this package, so that adding one is adding a file.

A module here that defines `METHODS`, a tuple of `Method`, is found; there is no list to edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from scorescope.bench.methods.base import Method
from scorescope.errors import unknown
from scorescope.registry import every


@cache
def all_methods() -> dict[str, Method]:
    """Every method by name, in their own order."""
    found = [method for methods in every(__name__, "METHODS").values() for method in methods]
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
