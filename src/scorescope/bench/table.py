"""The comparison on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from scorescope.bench.summary import BASELINE, Line, disturbance, lines, measured_on, size, verdict
from scorescope.progress import span


def show(content: Mapping[str, Any]) -> None:
    """Print a table for each workload, then who could not run, then the verdict."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 132, highlight=False, soft_wrap=not sys.stdout.isatty())
    made = lines(content)
    for workload in {line["workload"]: None for line in made}:
        here = [line for line in made if line["workload"] == workload]
        times = "repeat" if here[0]["repeats"] == 1 else "repeats"
        title = f"{workload}: {size(here[0])}, median of {here[0]['repeats']} {times}"
        table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
        for heading in ("method", "seconds", f"× {BASELINE}", "worst error", "median error", "to prepare"):
            table.add_column(heading, justify="left" if heading == "method" else "right", no_wrap=True)
        table.add_column("")
        for line in here:
            table.add_row(*_cells(line))
        console.print(table)
        console.print()
    for method, why in content["lacking"].items():
        console.print(f"{method}: {why}", markup=False)
    if said := verdict(made):
        console.print(said)
    if warned := disturbance(content):
        print(f"warning: {warned}", file=sys.stderr)


def _cells(line: Line) -> list[str]:
    speedup = "–" if line["speedup"] is None else f"{line['speedup']:.2f}" if line["speedup"] < 10 else f"{line['speedup']:.1f}"
    notes = "; ".join(note for note in (measured_on(line), line["path"]) if note)
    errors = [f"{line[name]:.1e}" if line[name] else "0" for name in ("worst_error", "median_error")]
    return [line["method"], f"{line['seconds']:.3g}", speedup, *errors, span(line["prepare_seconds"]), notes]
