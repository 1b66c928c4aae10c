"""The comparison on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from scorescope.bench.summary import BASELINE, WORKLOADS, Line, disturbance, gains, lines, measured_on, size, verdict
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


def show_gains(contents: Sequence[Mapping[str, Any]]) -> None:
    """Print one table over banks and workloads."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 132, highlight=False, soft_wrap=not sys.stdout.isatty())
    made = gains(contents)
    repeats = f"median of {made[0]['repeats']} repeats" if made[0]["repeats"] > 1 else "one repeat"
    title = f"{made[0]['method']} beside plain float32 PyTorch ({BASELINE}): {repeats}"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    for heading in ("bank", "rows", "shape", "asked", "× as fast", "in single repeats", "seconds", "plain's", "worst error", "plain's"):
        table.add_column(heading, justify="left" if heading in ("bank", "shape", "asked") else "right", no_wrap=heading != "bank")
    for before, line in zip([None, *made], made, strict=False):
        bank = [escape(line["bank"]), f"{line['rows']:,}", f"{line['shape']} {line['stored']}"]
        same = before is not None and all(before[name] == line[name] for name in ("bank", "rows", "shape", "stored"))
        spread = "–" if line["repeats"] == 1 else f"{_times(line['lowest'])} to {_times(line['highest'])}"
        seconds = [f"{line[name]:.3g}" for name in ("seconds", "plain_seconds")]
        errors = [f"{line[name]:.1e}" if line[name] else "0" for name in ("worst_error", "plain_worst_error")]
        table.add_row(*([""] * 3 if same else bank), WORKLOADS[line["workload"]], _times(line["times_as_fast"]), spread, *seconds, *errors)
    console.print(table)
    console.print()
    for workload, asked, note in {(line["workload"], line["asked"], line["plain_timed"]): None for line in made}:
        console.print(f"{WORKLOADS[workload]}: {asked}{f'; plain PyTorch {note} and scaled' if note else ''}")
    if warned := disturbance(*contents):
        print(f"warning: {warned}", file=sys.stderr)


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:.1f}"


def _cells(line: Line) -> list[str]:
    speedup = "–" if line["speedup"] is None else _times(line["speedup"])
    notes = "; ".join(note for note in (measured_on(line), line["path"]) if note)
    errors = [f"{line[name]:.1e}" if line[name] else "0" for name in ("worst_error", "median_error")]
    return [line["method"], f"{line['seconds']:.3g}", speedup, *errors, span(line["prepare_seconds"]), notes]
