"""What to measure, one probe a file: a module of this package with `PROBE`, which is a `StateProbe` or a `WholeProbe` (see `base`).

A variable that no chart names is drawn by a general one, so that a new probe is one file and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from scorescope.errors import unknown
from scorescope.probes.base import StateProbe, Subject, Variable, View, WholeProbe
from scorescope.registry import every

__all__ = ["StateProbe", "Subject", "Variable", "View", "WholeProbe", "all_probes", "chosen"]

Probe = StateProbe | WholeProbe


def all_probes() -> dict[str, Probe]:
    """Every probe in this package by name, in alphabetical order of their files."""
    return {probe.name: probe for probe in every(__name__, "PROBE").values()}


def chosen(names: Sequence[str] | None) -> list[Probe]:
    """The probes of these names, or all.

    Raises:
        InputError: A name that no probe has; the nearest one is suggested.
    """
    known = all_probes()
    for name in names or ():
        if name not in known:
            raise unknown("probe", name, known)
    return [probe for name, probe in known.items() if not names or name in names]
