"""`scorescope examine MODEL … --bank BANK`: the main job."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional, arg

from scorescope.cli.parse import parse, size
from scorescope.cli.presets import value_of
from scorescope.errors import InputError
from scorescope.plan import Plan, preset

if TYPE_CHECKING:
    from scorescope.examination import Run

MOST = 3  # copied rows that the terminal names
DESCRIPTION = """Measure a trained model against the exact empirical score of its own training set; write a report.

examples:
  scorescope examine model.safetensors --bank photos.bank
  scorescope examine my_model.py:build --bank photos.bank --preset quick
  scorescope examine samples/ --bank photos.bank           finished samples: what needs no model
"""


@dataclass(frozen=True)
class Examine:
    """Arguments of `scorescope examine`."""

    models: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL")]
    """Weights, a run's or diffusers' folder, hf:OWNER/NAME, FILE.py:FUNCTION, theory:NAME; several are compared. Or samples."""
    bank: Annotated[str, arg(metavar="BANK")]
    """The bank the model was trained on; digits for the demo's."""
    held_out: Annotated[str, arg(metavar="BANK")] = "auto"
    """Rows training never saw; auto: those BANK was built with; or none."""
    preset: str = "default"
    """default, quick, demo or paper: values of what is not given."""
    plan: Plan = field(default_factory=Plan)
    """What to measure."""
    device: str = "cpu"
    """cpu or cuda."""
    batch: int = 256
    """Paths sampled together; changes speed and memory only."""
    memory: Annotated[str | None, arg(metavar="SIZE")] = None
    """For the bank's rows, as 2GB; a quarter of what is free."""
    out: str | None = None
    """Folder of the run; runs/MODEL-on-BANK unless given."""
    force: bool = False
    """Begin again, in place of the run in that folder."""
    as_is: bool = False
    """Measure a model that is not read right; nothing is judged of it."""
    load: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = ()
    """What a state dict can't tell of itself, as family=sit heads=6."""
    trust: bool = False
    """Open a pickle, which runs the code inside."""
    json: bool = False
    """Print claims and paths as JSON."""


def main(argv: list[str]) -> int:
    """Run `scorescope examine` with the words after it."""
    default = Examine(tyro.MISSING, tyro.MISSING, plan=preset(value_of(argv, "--preset") or "default"))
    told = parse(Examine, argv, "scorescope examine", DESCRIPTION, default)
    if not told.models:
        raise InputError("no model is named", "scorescope examine model.safetensors --bank photos.bank")
    told.plan.validate()
    from scorescope.cli.common import check_device, default_out, model_of
    from scorescope.demo import held_out_of, named_bank
    from scorescope.evaluate.samples import holds_samples
    from scorescope.examination import examine
    from scorescope.rows.verify import verify

    check_device(told.device)
    memory = None if told.memory is None else size(told.memory)
    bank = named_bank(told.bank)
    samples = next((name for name in told.models if holds_samples(name)), None)
    if samples is not None and len(told.models) > 1:
        raise InputError(f"{samples} holds samples, which are examined alone, and {len(told.models)} things are named", "one at a time")
    models = [model_of(name, bank, told.load, told.trust, told.device) for name in told.models] if samples is None else []
    if "fingerprint" in bank.manifest:
        verify(bank)
    name = "-".join(model.name for model in models) if samples is None else Path(samples).stem
    out = Path(told.out or default_out("{}-on-{}", name, bank.name))
    alone = samples is not None and told.held_out == "auto"
    run = examine(
        models if samples is None else samples, bank, **vars(told.plan),
        held_out=None if alone else held_out_of(bank, told.bank, told.held_out), preset=told.preset, device=told.device, batch=told.batch,
        memory=memory, out=out, force=told.force, as_is=told.as_is,
        command=shlex.join(["scorescope", "examine", *argv]),
    )  # fmt: skip
    finish(run, told.json)
    return 0


def most_copied(run: Run) -> list[str]:
    """A line for each model with copies: its most copied rows."""
    from scorescope import copies

    found, lines = run.copies, []
    for model in dict.fromkeys(record["model"] for record in found):
        rows = copies.by_row(found, model)
        named = ", ".join(f"{row['name'] or ''}{' ' if row['name'] else ''}(row {row['row']}) {times}×" for row, times in rows[:MOST])
        if rows:
            lines.append(f"   copied most often by {model}: {named}{f', and {len(rows) - MOST} more rows' if len(rows) > MOST else ''}")
    return lines


def finish(run: Run, as_json: bool) -> None:
    """Draw charts and report unless they are there, and say where they are, what was found, and what to beware of."""
    from scorescope import charts, copies
    from scorescope.examination import REPORT, RESULTS
    from scorescope.report import write
    from scorescope.results import provenance

    report, folder = run.folder / REPORT, run.folder / "charts"
    if not report.exists():
        drawn = charts.available(run.results)
        charts.export(run.results, folder, drawn)
        write(run.results, report, drawn)
    warnings = provenance(run.results).get("warnings", [])
    places = {"report": str(report), "results": str(run.folder / RESULTS), "charts": str(folder)}
    if (run.folder / copies.FILE).exists():
        places["copies"] = str(run.folder / copies.FILE)
    if as_json:
        found = {"findings": run.findings(), "claims": run.claims, "copied": run.copies, "warnings": warnings}
        print(json.dumps({**found, **places}))
        return
    print("\n".join(["", *(f"{k}. {line}" for k, line in enumerate(run.findings(), 1)), *most_copied(run), ""]))
    if warnings:
        print("\n".join([*(f"warning: {line}" for line in warnings), ""]))
    print("\n".join(f"{name:<9}{place}" for name, place in places.items()))
