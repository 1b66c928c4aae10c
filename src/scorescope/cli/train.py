"""`scorescope train`: train a diffusion transformer on a bank."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated

import tyro
from tyro.conf import OmitArgPrefixes, arg

from scorescope.cli.parse import parse
from scorescope.errors import InputError
from scorescope.training.recipe import Recipe, preset

DESCRIPTION = """Train a diffusion transformer with the paper's objective; killed, the same command continues.

examples:
  scorescope train --preset demo-s --out runs/demo-s
  scorescope train --preset sit-s --patch 4 --bank photos.bank --steps 20000 --out runs/photos
"""


@dataclass(frozen=True)
class Train:
    """Arguments of `scorescope train`."""

    preset: str
    """A recipe to start from: demo-s, demo-m, demo-l, sit-s, sit-b."""
    out: str
    """Folder of the run."""
    bank: Annotated[str | None, arg(metavar="BANK")] = None
    """What to train on; the demo's digits for the demo presets."""
    device: str = "cpu"
    """cpu or cuda."""
    recipe: OmitArgPrefixes[Recipe] = field(default_factory=Recipe)


def main(argv: list[str]) -> int:
    """Run `scorescope train` with the words after it."""
    known = Recipe()  # the preset's values are the defaults of all other options, so it is looked for first
    for word, following in pairwise([*argv, ""]):
        if word == "--preset" and following and not following.startswith("-"):
            known = preset(following)
        elif word.startswith("--preset="):
            known = preset(word.partition("=")[2])
    told = parse(Train, argv, "scorescope train", DESCRIPTION, Train(preset=tyro.MISSING, out=tyro.MISSING, recipe=known))
    told.recipe.validate()
    from scorescope.cli.examine import check_device
    from scorescope.demo import MODELS, named_bank
    from scorescope.progress import Board
    from scorescope.training.loop import Progress, train

    if told.bank is None and told.preset not in MODELS:
        raise InputError(f"preset {told.preset} needs --bank", "scorescope bank build photos/ --out photos.bank, then --bank photos.bank")
    check_device(told.device)
    bank = named_bank(told.bank or "digits")
    steps = f"{told.recipe.steps:,} steps of {told.recipe.batch} examples"
    with Board() as board, board.row(f"training {told.preset}", told.recipe.steps) as row:
        board.say(f"training {told.preset} on {bank.name}, {len(bank):,} rows of {bank.shape}: {steps}")
        board.say(f"run folder {told.out} (killed, the same command continues)")

        def report(progress: Progress) -> None:
            if not row.done:
                row.skip(progress.step - progress.made)
            row(progress.step - row.done, f"loss {progress.loss:.4f}, {progress.made / progress.seconds:.1f} it/s")

        weights = train(told.recipe, bank, told.out, device=told.device, report=report)
    print(f"weights  {weights}\nexamine  scorescope examine {told.out} --bank {told.bank or 'digits'}")
    return 0
