"""Run experiments cell by cell, and publish what came out: small NetCDF, SVG, PNG, CSV, and one table of verdicts.

RUNS/SCALE/NAME/run.json      the experiment that the folder belongs to
RUNS/SCALE/NAME/CELL.nc       what a cell computed, with the values that it depends on
RUNS/networks/…               trained networks, shared
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from scorescope import __version__, results, runs
from scorescope.errors import InputError
from scorescope.experiments.experiment import Cell, Experiment
from scorescope.experiments.store import Store
from scorescope.progress import Board, span

KIND = runs.Kind("an experiment", ("*.nc",))
NETWORKS, ABOUT, SECONDS = "networks", "cell", "seconds"


def folder_of(experiment: Experiment, scale: str, root: str | Path) -> Path:
    """Where an experiment's cells are kept."""
    return Path(root) / scale / experiment.name


def known(cell: Cell, folder: Path) -> xr.Dataset | None:
    """What a cell computed, if it did, of the same values."""
    try:
        found = results.load(folder / f"{cell.name}.nc")
    except InputError:
        return None
    return found if json.loads(found.attrs.get(ABOUT, "null")) == _about(cell) else None


def plan(experiments: Sequence[Experiment], scale: str, root: str | Path) -> list[tuple[str, str, bool, float]]:
    """What there is to do: experiment, cell, whether it is done, and its minutes."""
    found = []
    for one in experiments:
        folder = folder_of(one, scale, root)
        found += [(one.name, cell.name, known(cell, folder) is not None, cell.minutes) for cell in one.cells(scale)]
    return found


def run(experiment: Experiment, scale: str, root: str | Path, store: Store, board: Board) -> xr.Dataset:
    """Compute the cells that are left, and gather all.

    Raises:
        InputError: The folder holds something else, or a cell lacks a bank.
    """
    folder, cells, found = folder_of(experiment, scale, root), experiment.cells(scale), {}
    with runs.claimed(folder, KIND, {"experiment": experiment.name, "scale": scale}, hint="another --runs"):
        for cell in cells:
            there = known(cell, folder)
            if there is None:
                there = _computed(cell, store, board, experiment.name)
                results.save(there, folder / f"{cell.name}.nc")
            found[cell.name] = there
    gathered = experiment.gather(found)
    took = {name: float(one.attrs[SECONDS]) for name, one in found.items()}
    record = {"experiment": experiment.name, "scale": scale, "version": __version__, "seconds": took}
    return gathered.assign_attrs(reproduced=json.dumps(record))


def _computed(cell: Cell, store: Store, board: Board, name: str) -> xr.Dataset:
    begun = time.monotonic()
    with board.row(f"{name} {cell.name} (about {span(60 * cell.minutes)})", 1000) as row:

        def tell(share: float) -> None:
            row(max(0, int(1000 * share) - row.done))

        found = cell.compute(store, tell)
        tell(1.0)
    return found.assign_attrs({ABOUT: json.dumps(_about(cell)), SECONDS: time.monotonic() - begun})


def _about(cell: Cell) -> dict[str, object]:
    return dict(json.loads(json.dumps({**cell.about, "version": __version__})))
