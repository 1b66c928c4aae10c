"""`scorescope report RUN_FOLDER`: the page and the charts of a finished run, drawn again from its results alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from scorescope.cli.parse import parse
from scorescope.errors import InputError

HELP = """Draw the report of a finished run again, from its results.nc alone: no model, no bank, no GPU.

examples:
  scorescope report runs/digits
  scorescope report runs/digits --out /tmp/digits.html
"""


@dataclass(frozen=True)
class Arguments:
    """Arguments of `scorescope report`."""

    run: Annotated[Positional[str], arg(metavar="RUN_FOLDER")]
    """The folder of a finished run, with its results.nc."""

    out: Annotated[str | None, arg(metavar="FILE.html")] = None
    """Where to write the page; the charts go into FILE-charts beside it. By default report.html and charts in the run's folder."""


def main(argv: list[str]) -> int:
    """Run `scorescope report` with the words after `report`."""
    told = parse(Arguments, argv, "scorescope report", HELP)
    from scorescope import charts, claims, report, results

    run = Path(told.run)
    page, folder = (run / "report.html", run / "charts") if told.out is None else elsewhere(Path(told.out))
    measured = results.load(results_of(run))
    drawn = charts.available(measured)
    page = report.write(measured, page, drawn)
    written = charts.export(measured, folder, drawn)
    print("\n".join([*claims.three(measured), str(page), f"{folder}: {len(written)} files"]))
    return 0


def results_of(run: Path) -> Path:
    """The results of an examination.

    Raises:
        InputError: The folder is another kind of run.
    """
    from scorescope.runs import record_of

    file, record = run / "results.nc", record_of(run)
    if record is not None and not file.exists():
        raise InputError(f"{run} holds {record.get('kind', 'a run')}, of which there is no report", "the folder of an examination")
    return file


def elsewhere(page: Path) -> tuple[Path, Path]:
    """The page and the folder of its charts, outside of a run: both new, or both drawn by this command before.

    Raises:
        InputError: Something else is there.
    """
    from scorescope.report import is_report

    if page.exists() and not (page.is_file() and is_report(page)):
        raise InputError(f"{page} is no report of scorescope, and is left as it is", "another --out")
    folder = page.with_name(f"{page.stem}-charts")
    if not page.exists() and folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder}, where the charts would go, is there already", "another --out")
    return page, folder
