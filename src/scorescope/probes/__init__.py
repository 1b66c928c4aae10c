"""What to measure, one probe a file, found by scanning this package: adding a probe is adding a file.

A probe module defines `PROBE`, which is one of

    StateProbe(name, title, variables, measure)   measured at every state of the regions it names: `measure(view)` gives (P,) arrays
    WholeProbe(name, title, measure, ...)         measured once: `measure(subject)` gives an `xarray.Dataset` for one model

`variables` says what each array is (its long name and unit). A state variable that no chart claims is drawn by a general one.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache

from scorescope.errors import unknown
from scorescope.probes.base import StateProbe, Subject, View, WholeProbe

__all__ = ["StateProbe", "Subject", "View", "WholeProbe", "all_probes", "chosen"]


@cache
def all_probes() -> dict[str, StateProbe | WholeProbe]:
    """Every probe in this package by name, in alphabetical order of their files."""
    found: dict[str, StateProbe | WholeProbe] = {}
    for module in pkgutil.iter_modules(__path__):
        probe = getattr(importlib.import_module(f"{__name__}.{module.name}"), "PROBE", None)
        if probe is not None:
            found[probe.name] = probe
    return found


def chosen(names: Sequence[str] | None) -> list[StateProbe | WholeProbe]:
    """The probes of these names, or all.

    Raises:
        InputError: A name that no probe has; the nearest one is suggested.
    """
    known = all_probes()
    for name in names or ():
        if name not in known:
            raise unknown("probe", name, known)
    return [probe for name, probe in known.items() if not names or name in names]
