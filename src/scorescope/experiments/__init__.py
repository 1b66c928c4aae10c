"""The paper's experiments, one a file: a module whose `EXPERIMENT` says what is asked, what it costs, what is computed and what is claimed.

    scorescope reproduce NAME… --scale smoke|desk

An experiment is a list of cells. A cell computes one small dataset, alone, from what `Store` gives it: banks of real data and trained
networks, which experiments share. What a cell has computed is kept; a run that was killed goes on with the next one. From all cells an
experiment makes one dataset, of which it draws one figure and judges claims by rules that were fixed before.
"""

from __future__ import annotations

from scorescope import registry
from scorescope.errors import unknown
from scorescope.experiments.experiment import Experiment


def experiments() -> dict[str, Experiment]:
    """All experiments by name, in their order."""
    found = registry.every(__name__, "EXPERIMENT").values()
    return {one.name: one for one in sorted(found, key=lambda one: one.order)}


def chosen(names: list[str]) -> list[Experiment]:
    """The experiments of these names, in their order; "all" is every one.

    Raises:
        InputError: No such experiment; the nearest name is suggested.
    """
    known = experiments()
    for name in names:
        if name not in (*known, "all"):
            raise unknown("experiment", name, [*known, "all"])
    return list(known.values()) if "all" in names else [known[name] for name in known if name in names]
