"""A watcher that keeps the EMA weights of asked steps, each a model like the finished one: `runs/photos@4000` names it.

RUN/kept/step-00004000.safetensors
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scorescope.errors import InputError
from scorescope.files import write_tensors
from scorescope.rows import Bank
from scorescope.training.loop import Snapshot, described
from scorescope.training.recipe import Recipe


def place(folder: str | Path, step: int) -> Path:
    """Where a run keeps the weights of a step."""
    return Path(folder) / "kept" / f"step-{step:08d}.safetensors"


def named(path: str | Path) -> tuple[Path, int] | None:
    """The run and the step that a path like `runs/photos@4000` names; None for any other."""
    found = re.fullmatch(r"(.+)@([0-9]{1,8})", str(path))
    return (Path(found[1]), int(found[2])) if found else None


class Keep:
    """Keeps the weights after some steps.

    Args:
        recipe: Of the run.
        bank: It is trained on.
        steps: To keep.

    Raises:
        InputError: A step that the run does not come to.
    """

    def __init__(self, recipe: Recipe[Any, Any], bank: Bank, steps: Sequence[int]) -> None:
        for step in steps:
            if not 1 <= step <= recipe.steps:
                raise InputError(f"--keep {step} is no step of a training of {recipe.steps:,}", f"--keep {recipe.steps}, or fewer")
        self.steps, self.every, self.said = frozenset(steps), math.gcd(*steps), ""
        self.about = json.dumps(described(recipe, bank), sort_keys=True)

    def __call__(self, snapshot: Snapshot) -> None:
        """Write the weights, if the step is one of those."""
        if snapshot.step in self.steps:
            write_tensors(place(snapshot.folder, snapshot.step), snapshot.network.state_dict(), {"scorescope": self.about})

    def check(self, folder: str | Path) -> None:
        """Refuse to end quietly where a step had passed before it was asked for.

        Raises:
            InputError: The weights of a step are not there.
        """
        missing = [step for step in sorted(self.steps) if not place(folder, step).exists()]
        if missing:
            raise InputError(f"step {missing[0]:,} of {folder} had passed when it was asked to be kept", "--force to begin again")
