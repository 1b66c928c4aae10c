"""`scorescope examine MODEL … --bank BANK`: the main job."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from scorescope.cli.common import check_device, default_out
from scorescope.cli.parse import keywords, parse, size
from scorescope.errors import InputError

if TYPE_CHECKING:
    from scorescope.examination import Run

DESCRIPTION = """Measure a trained model against the exact empirical score of its own training set; write a report.

examples:
  scorescope examine model.safetensors --bank photos.bank
  scorescope examine my_model.py:build --bank photos.bank --paths 50 --times 25
"""


@dataclass(frozen=True)
class Examine:
    """Arguments of `scorescope examine`."""

    models: Annotated[Positional[tuple[str, ...]], arg(metavar="MODEL")]
    """A .safetensors file, a training run's folder, or FILE.py:FUNCTION; several are compared."""
    bank: Annotated[str, arg(metavar="BANK")]
    """The bank the model was trained on; digits for the demo's."""
    probes: Annotated[tuple[str, ...], arg(metavar="PROBE")] = ()
    """What to measure; everything unless given."""
    paths: int = 100
    """Training pairs, and sampling trajectories a model."""
    times: int = 50
    """Timesteps along each path."""
    origins: int = 50
    """Training rows to noise and denoise, at 21 times each."""
    nulls: int = 200
    """Real rows looked up among the others."""
    labels: Annotated[tuple[str, ...], arg(metavar="LABEL")] = ("auto",)
    """auto, none, or class numbers."""
    tolerance: float = 1e-4
    """Largest relative error of an exact posterior mean."""
    solver: str = "dopri5"
    """dopri5, heun, euler or ancestral."""
    steps: int = 50
    """Steps of the solvers that have a fixed number."""
    shared_states: str | None = None
    """Ask all models about this model's trajectories."""
    seed: int = 0
    """Names every random stream."""
    device: str = "cpu"
    """cpu or cuda."""
    batch: int = 256
    """Paths sampled together; changes speed and memory only."""
    memory: Annotated[str | None, arg(metavar="SIZE")] = None
    """For the bank's rows, as 2GB; a bank that does not fit is read from disk in order. A quarter of what is free."""
    out: str | None = None
    """Folder of the run; runs/MODEL-on-BANK unless given."""
    force: bool = False
    """Replace another run in that folder."""
    load: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE")] = ()
    """What a state dict can't tell of itself, as family=sit heads=6."""
    trust: bool = False
    """Open a pickle, which runs the code inside."""
    json: bool = False
    """Print findings and paths as JSON."""


def main(argv: list[str]) -> int:
    """Run `scorescope examine` with the words after it."""
    told = parse(Examine, argv, "scorescope examine", DESCRIPTION)
    if not told.models:
        raise InputError("no model is named", "scorescope examine model.safetensors --bank photos.bank")
    from scorescope.adapters import load
    from scorescope.demo import named_bank
    from scorescope.examination import examine
    from scorescope.rows.verify import verify

    bank = named_bank(told.bank)
    models = [load(name, trust=told.trust, **keywords(told.load)) for name in told.models]
    check_device(told.device)
    if bank.manifest:
        verify(bank)
    memory = None if told.memory is None else size(told.memory)
    out = told.out or default_out("{}-on-{}", "-".join(model.name for model in models), bank.name)
    labels = told.labels[0] if len(told.labels) == 1 and not told.labels[0].isdigit() else numbers(told.labels)
    run = examine(
        models, bank, told.probes or None, told.seed, paths=told.paths, times=told.times, origins=told.origins, nulls=told.nulls,
        labels=labels, tolerance=told.tolerance, solver=told.solver, steps=told.steps, shared_states=told.shared_states,
        batch=told.batch, device=told.device, memory=memory, out=out, force=told.force,
        command=shlex.join(["scorescope", "examine", *argv]),
    )  # fmt: skip
    finish(run, told.json)
    return 0


def numbers(labels: tuple[str, ...]) -> list[int]:
    """Class numbers as given on the command line."""
    wrong = [label for label in labels if not label.isdigit()]
    if wrong:
        raise InputError(f"label {wrong[0]!r} is not a class number", "--labels 0 3 7, or --labels auto")
    return [int(label) for label in labels]


def finish(run: Run, as_json: bool) -> None:
    """Draw charts and report unless they are there, and say where they are and what was found."""
    from scorescope import charts

    report, folder = run.folder / "report.html", run.folder / "charts"
    if not report.exists():
        charts.export(run.results, folder)
        run.report(report)
    findings = run.findings()
    if as_json:
        print(json.dumps({"findings": findings, "report": str(report), "results": str(run.folder / "results.nc"), "charts": str(folder)}))
        return
    print("\n".join(["", *(f"{k}. {line}" for k, line in enumerate(findings, 1)), ""]))
    print(f"report   {report}\nresults  {run.folder / 'results.nc'}\ncharts   {folder}")
