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

    out: Annotated[str | None, arg(metavar="FILE")] = None
    """Where to write the page; the charts go into the folder charts beside it. By default report.html in the run's folder."""


def main(argv: list[str]) -> int:
    """Run `scorescope report` with the words after `report`."""
    told = parse(Arguments, argv, "scorescope report", HELP)
    from scorescope import charts, findings, report, results

    folder = Path(told.run)
    measured = results.load(folder / "results.nc")
    if "model" not in measured.dims:
        raise InputError(f"{folder} is a training run, whose results.nc has no report", f"scorescope examine {folder} --bank BANK")
    page = report.write(measured, folder / "report.html" if told.out is None else Path(told.out))
    drawn = charts.export(measured, page.parent / "charts")
    print("\n".join(findings.three(measured)))
    print(f"{page}\n{page.parent / 'charts'}: {len(drawn)} files")
    return 0
