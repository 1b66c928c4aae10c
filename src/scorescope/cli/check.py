"""`scorescope check MODEL … --bank BANK`: whether models are read right."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg

from scorescope.cli.parse import parse
from scorescope.errors import InputError
from scorescope.plan import Plan

DESCRIPTION = """Say in seconds whether a model is read right: its prediction, its time, its range of values. examine asks the same first.

examples:
  scorescope check model.safetensors --bank photos.bank
  scorescope check my_model.py:build --bank photos.bank
"""


@dataclass(frozen=True)
class Check:
    """Arguments of `scorescope check`."""

    models: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL")]
    """Weights, a run's or diffusers' folder, hf:OWNER/NAME, FILE.py:FUNCTION, or theory:NAME."""
    bank: Annotated[str, arg(metavar="BANK")]
    """The bank the model was trained on; digits for the demo's."""
    labels: Annotated[tuple[str, ...], arg(metavar="LABEL")] = ("auto",)
    """auto (the bank's classes where the models have them), none, or class numbers."""
    device: str = "cpu"
    """cpu or cuda."""
    seed: int = 0
    """Names rows, noise and samples."""
    load: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = ()
    """What a state dict can't tell of itself, as family=sit heads=6."""
    trust: bool = False
    """Open a pickle, which runs the code inside."""
    json: bool = False
    """Print the verdicts and their numbers as JSON."""


def main(argv: list[str]) -> int:
    """Run `scorescope check` with the words after it; 0 if all models are read right, else the first that is not is an error."""
    told = parse(Check, argv, "scorescope check", DESCRIPTION)
    if not told.models:
        raise InputError("no model is named", "scorescope check model.safetensors --bank photos.bank")
    plan = Plan(labels=told.labels, seed=told.seed)
    plan.validate()
    from scorescope.choice import check
    from scorescope.cli.common import check_device, model_of
    from scorescope.demo import named_bank
    from scorescope.prepare import prepare

    check_device(told.device)
    bank = named_bank(told.bank)
    models = [model_of(name, bank, told.load, told.trust, told.device) for name in told.models]
    prepared = prepare(plan, models, bank, told.device)
    found = {
        name: check(model, bank, labels=prepared.classes, seed=told.seed, device=told.device) for name, model in prepared.models.items()
    }
    if told.json:
        print(json.dumps({name: one.record() for name, one in found.items()}))
    else:
        print("\n\n".join(f"{one.table}\n{one.verdict}{f': {one.reason}' if one.reason else ''}" for one in found.values()))
    for one in found.values():
        one.refuse(table=False)
    return 0
