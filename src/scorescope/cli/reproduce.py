"""`scorescope reproduce NAME…`: the paper's experiments, run for real."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from scorescope.cli.parse import parse
from scorescope.errors import InputError, unknown

if TYPE_CHECKING:
    from scorescope.experiments.cost import Training
    from scorescope.experiments.experiment import Experiment

DESCRIPTION = """Run the paper's experiments; each ends in a figure like the paper's and a verdict on the claim that it serves.
Killed, the same command continues with the next cell. Networks are trained once and shared.

examples:
  scorescope reproduce fig10 --scale smoke            seconds: does all of it work?
  scorescope reproduce all --dry-run                  what there is to do, and how long it takes
  scorescope reproduce fig10 --out docs/results       figures, numbers and the table of verdicts
"""


@dataclass(frozen=True)
class Reproduce:
    """Arguments of `scorescope reproduce`."""

    names: Annotated[Positional[tuple[str, ...]], arg(metavar="NAME")]
    """Experiments, or all."""
    scale: str = "desk"
    """smoke (seconds), desk (hours, on two cores) or paper (its own data and networks, on GPUs)."""
    runs: Annotated[str, arg(metavar="FOLDER")] = "runs/reproduce"
    """Where cells and networks are kept; it goes on from there."""
    out: Annotated[str | None, arg(metavar="FOLDER")] = None
    """Where results go; RUNS/SCALE/results unless given."""
    banks: Annotated[tuple[str, ...], arg(metavar="BANK")] = ()
    """Folders of banks that experiments ask for by name."""
    files: Annotated[tuple[str, ...], arg(metavar="NAME=PATH")] = ()
    """What else they ask for by name at the paper's scale: inception=WEIGHTS autoencoder=FOLDER."""
    device: str = "cpu"
    """cpu or cuda."""
    dry_run: bool = False
    """Say what there is to do and how long it takes; do nothing."""


def main(argv: list[str]) -> int:
    """Run `scorescope reproduce` with the words after it."""
    told = parse(Reproduce, argv, "scorescope reproduce", DESCRIPTION, Reproduce(tyro.MISSING))
    from pathlib import Path

    from scorescope.cli.common import check_device
    from scorescope.experiments import chosen, experiments
    from scorescope.experiments.experiment import SCALES
    from scorescope.experiments.publish import publish
    from scorescope.experiments.run import NETWORKS, run
    from scorescope.experiments.store import Store
    from scorescope.progress import Board

    if told.scale not in SCALES:
        raise unknown("scale", told.scale, SCALES)
    if not told.names:
        raise InputError("no experiment is named", f"all, or some of {', '.join(experiments())}")
    check_device(told.device)
    wanted = [one for one in chosen(list(told.names)) if "all" not in told.names or told.scale in one.setting]
    for one in wanted:
        if told.scale not in one.setting:
            raise InputError(f"{one.name} has no scale {told.scale}", f"--scale {' or '.join(one.setting)}")
    if told.dry_run:
        print("\n".join(_planned(wanted, told)))
        return 0
    store = Store(Path(told.runs) / NETWORKS, told.device, told.banks, _files(told.files))
    out = Path(told.out or Path(told.runs) / told.scale / "results")
    with Board() as board:
        for one in wanted:
            for line in publish(one, told.scale, run(one, told.scale, told.runs, store, board), out):
                board.say(line)
    print(f"results  {out / 'README.md'}")
    return 0


def _files(words: tuple[str, ...]) -> dict[str, str]:
    """Paths by name."""
    found = {}
    for word in words:
        name, equal, path = word.partition("=")
        if not (name and equal and path):
            raise InputError(f"--files {word!r} is not of the form NAME=PATH", "--files inception=WEIGHTS autoencoder=FOLDER")
        found[name] = path
    return found


def _planned(wanted: list[Experiment], told: Reproduce) -> list[str]:
    """What there is to do: cells, and the networks that they need, with their cost; at the paper's scale the commands as well."""
    from scorescope.experiments.cost import table
    from scorescope.experiments.run import plan
    from scorescope.progress import span

    todo = plan(wanted, told.scale, told.runs)
    lines = [f"{name:<10}{cell:<24}{'done' if done else span(60 * minutes)}" for name, cell, done, minutes in todo]
    lines.append(f"left: {span(60 * sum(minutes for *_, done, minutes in todo if not done))} without the networks that experiments share")
    trainings = list({str(one.recipe.record()): one for experiment in wanted for one in experiment.trainings(told.scale)}.values())
    if trainings:
        lines += ["", *table(trainings, told.scale == "paper")]
    if told.scale == "paper":
        lines += ["", "trained on several devices, into the folders where experiments look for them:"]
        lines += [one.command(_folder(one, told)) for one in trainings]
    return lines


def _folder(training: Training, told: Reproduce) -> str:
    """Where a network is kept; known once its bank is there."""
    from pathlib import Path

    from scorescope.experiments.run import NETWORKS
    from scorescope.experiments.store import Store

    store = Store(Path(told.runs) / NETWORKS, told.device, told.banks)
    try:
        return str(store.place(training.recipe, store.bank(training.bank)))
    except InputError:
        return f"FOLDER (known once --banks names {training.bank}.bank)"
