"""Live rows: one a stage, with what is done, the time left and one figure that says whether all is well.

On a terminal rich redraws the rows; elsewhere, where rich says nothing, a plain line is printed every ten seconds. The time left is ours in
both, since rich would count what an earlier run has done as pace. Everything goes to stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

EVERY = 10.0  # seconds between plain lines


def span(seconds: float) -> str:
    """A duration in words: "8 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s" if whole < 600 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Row:
    """One stage: call it with the number of finished units, and perhaps with the live figure."""

    def __init__(self, board: Board, title: str, total: int) -> None:
        self.board, self.title, self.total, self.done, self.figure, self.begun = board, title, total, 0, "", time.monotonic()
        self.skipped = 0
        self.handle: Any = None

    def skip(self, units: int) -> None:
        """Count units that an earlier run finished: they are done, and tell nothing about the pace."""
        self.done += units
        self.skipped += units

    def __call__(self, units: int = 1, figure: str = "") -> None:
        """Count units as done, and show the figure from now on."""
        self.done += units
        self.figure = figure or self.figure
        self.board.changed(self)

    @property
    def left(self) -> str:
        """Time left at the pace so far."""
        made = self.done - self.skipped
        if not made:
            return ""
        return span((time.monotonic() - self.begun) / made * max(self.total - self.done, 0)) + " left"


class Board:
    """A group of rows, shown while the block runs. `quiet` shows nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet, self.said = quiet, time.monotonic()
        self.rich: Any = None

    def __enter__(self) -> Board:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            title, note = TextColumn("{task.description}", markup=False), TextColumn("{task.fields[note]}", markup=False)
            columns = (title, BarColumn(bar_width=24), MofNCompleteColumn(), note)
            self.rich = Progress(*columns, console=Console(stderr=True))
            self.rich.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self.rich is not None:
            self.rich.stop()

    @contextmanager
    def row(self, title: str, total: int) -> Iterator[Row]:
        """A row that is closed when its block ends."""
        row = Row(self, title, total)
        if self.rich is not None:
            row.handle = self.rich.add_task(title, total=max(total, 1), note="")
        yield row
        if self.rich is not None:
            self.rich.update(row.handle, completed=max(total, 1), note=f"{span(time.monotonic() - row.begun)}  {row.figure}")
        elif not self.quiet and time.monotonic() - row.begun > EVERY:
            self.say(f"{title}: done in {span(time.monotonic() - row.begun)}  {row.figure}")

    def changed(self, row: Row) -> None:
        """Redraw a row, or print it if the last line is old enough."""
        if self.rich is not None:
            self.rich.update(row.handle, completed=row.done, note=f"{row.left}  {row.figure}")
        elif not self.quiet and time.monotonic() - self.said > EVERY:
            self.say(f"{row.title}: {row.done} of {row.total}, {row.left}  {row.figure}")

    def say(self, line: str) -> None:
        """Print a line of its own, unless quiet."""
        if self.quiet:
            return
        self.said = time.monotonic()
        print(line.rstrip(), file=sys.stderr, flush=True)
