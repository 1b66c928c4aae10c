"""`scorescope train`: train a diffusion model on a bank."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, Generic, TypeVar

import tyro
from tyro.conf import arg

from scorescope.cli.parse import parse
from scorescope.cli.presets import value_of
from scorescope.errors import InputError
from scorescope.training import objectives
from scorescope.training.presets import preset, presets
from scorescope.training.recipe import Recipe

Net = TypeVar("Net")
Aim = TypeVar("Aim", bound=objectives.Objective)

DESCRIPTION = """Train a diffusion model with the paper's objective; killed, the same command continues.

examples:
  scorescope train --preset demo-s --out runs/demo-s
  scorescope train --preset sit-s --patch 4 --bank photos.bank --steps 20000 --out runs/photos
  torchrun --nproc-per-node 4 -m scorescope train --preset unet-s --bank photos.bank --device cuda --out runs/unet

presets: {presets}; objectives: {objectives} (--objective NAME --help shows its options)
"""


@dataclass(frozen=True)
class Train(Generic[Net, Aim]):
    """Arguments of `scorescope train`."""

    preset: str
    """A recipe to start from, of those above."""
    out: str
    """Folder of the run."""
    bank: Annotated[str | None, arg(metavar="BANK")] = None
    """What to train on; the demo's digits for the demo presets."""
    held_out: Annotated[str, arg(metavar="BANK")] = "auto"
    """Rows never trained on; auto: those of BANK; or none."""
    objective: str = "dsm"
    """What is minimized, of those above; its options are below."""
    device: str = "cpu"
    """cpu, cuda, or cuda:1 for one process."""
    fork: Annotated[str | None, arg(metavar="FOLDER")] = None
    """Another run: begin where it stands."""
    force: bool = False
    """Begin again, in place of the training run in --out."""
    keep: Annotated[tuple[int, ...], arg(metavar="STEP")] = ()
    """Steps whose weights are kept; OUT@STEP names them."""
    watch_every: int = 500
    """Steps between looks through the microscope; 0 for none."""
    tensorboard: bool = False
    """Write what it sees for TensorBoard, too."""
    recipe: Recipe[Net, Aim] = field(default_factory=lambda: Recipe(None))  # type: ignore[arg-type]
    """What to train."""


def elsewhere(argv: list[str], chosen: str) -> InputError | None:
    """The error for an option of an objective that is not the chosen one, if one is there."""
    words = {word.partition("=")[0] for word in argv}
    homes: dict[str, list[str]] = {}
    for name in objectives.names():
        for own in fields(objectives.named(name)):
            homes.setdefault("--" + own.name.replace("_", "-"), []).append(name)
    for option, names in homes.items():
        if option in words and chosen not in names:
            those = " or ".join(names)
            return InputError(f"{option} belongs to the objective {those}, not to {chosen}", f"--objective {those}")
    return None


def main(argv: list[str]) -> int:
    """Run `scorescope train` with the words after it."""
    wanted, aim = value_of(argv, "--preset"), value_of(argv, "--objective")
    known = preset(wanted or "sit-s")  # its values are the defaults of all other options
    if aim:
        known = replace(known, objective=objectives.named(aim)())
    kind: Any = GenericAlias(Train, (type(known.net), type(known.objective)))
    name = objectives.name_of(known.objective)
    default = kind(preset=tyro.MISSING, out=tyro.MISSING, objective=name, recipe=known)
    description = DESCRIPTION.format(presets=", ".join(presets()), objectives=", ".join(objectives.names()))
    try:
        told: Train[Any, Any] = parse(kind, argv, "scorescope train", description, default)
    except InputError as problem:
        raise elsewhere(argv, name) or problem from None
    told.recipe.validate()
    if told.watch_every < 0:
        raise InputError(f"--watch-every {told.watch_every} is not a number of steps", "--watch-every 500, or 0 for never")
    from scorescope.cli.common import check_device
    from scorescope.demo import MODELS, held_out_of, named_bank
    from scorescope.distributed import leave
    from scorescope.monitor import Microscope
    from scorescope.progress import Board
    from scorescope.training.keep import Keep
    from scorescope.training.loop import Hooks, Progress, train

    if told.bank is None and told.preset not in MODELS:
        raise InputError(f"preset {told.preset} needs --bank", "scorescope bank build photos/ --out photos.bank, then --bank photos.bank")
    check_device(told.device)
    bank = named_bank(told.bank or "digits")
    steps = f"{told.recipe.steps:,} steps of {told.recipe.batch} examples{', compiled' if told.recipe.compile else ''}"
    first = os.environ.get("RANK", "0") == "0"  # of torchrun's processes one speaks for all
    with Board(quiet=not first) as board, board.row(f"training {told.preset}", told.recipe.steps) as row:
        folder = Path(told.out) / "tensorboard" if told.tensorboard else None
        watchers: list[Any] = [Keep(told.recipe, bank, told.keep)] if first and told.keep else []
        if first and told.watch_every and (told.force or not (Path(told.out) / "model.safetensors").exists()):
            unseen = held_out_of(bank, told.bank or "digits", told.held_out)
            watchers += [Microscope(bank, told.recipe, told.watch_every, told.device, held_out=unseen, tensorboard=folder)]

        def report(progress: Progress) -> None:
            if not progress.made:
                board.say(f"training {told.preset} on {bank.name}, {len(bank):,} rows of {bank.shape}: {steps}")
                board.say(f"run folder {told.out} (killed, the same command continues)")
                return row.skip(progress.step)
            seen = [watcher.said for watcher in watchers if watcher.said]
            pace = f"{progress.made / progress.seconds:.1f} it/s"
            row(progress.step - row.done, ", ".join([f"loss {progress.loss:.4f}", pace, memory(told.device), *seen]))

        try:
            weights = train(
                told.recipe, bank, told.out,
                device=told.device, hooks=Hooks(report, watchers=watchers), fork=told.fork, force=told.force,
            )  # fmt: skip
        except SystemExit:  # asked to stop, all ranks do together
            leave()
            raise
    leave()
    for watcher in watchers:
        if isinstance(watcher, Keep):
            watcher.check(told.out)
    if first:
        print(f"weights  {weights}\nexamine  scorescope examine {told.out} --bank {told.bank or 'digits'}")
    return 0


def memory(device: str) -> str:
    """What the process holds now, or has held on its GPU at most."""
    import psutil
    import torch

    cuda = device.startswith("cuda")
    held = torch.cuda.max_memory_allocated() if cuda else psutil.Process().memory_info().rss
    return f"{held / 1e9:.2f} GB"
