"""The report: results → one HTML file that works offline, with every figure, finding and number of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import xarray as xr

from scorescope.charts import Chart
from scorescope.files import write_text
from scorescope.report.page import render

__all__ = ["is_report", "render", "write"]
MARK = b"<title>scorescope: "


def write(results: xr.Dataset, path: str | Path, drawn: Sequence[Chart] | None = None) -> Path:
    """Draw the report of `results` into `path`, atomically, with the charts that are `drawn` already, if given; return its path."""
    target = Path(path)
    write_text(target, render(results, drawn))
    return target


def is_report(path: str | Path) -> bool:
    """Whether a file is a report that this package drew."""
    with open(path, "rb") as opened:
        return MARK in opened.read(2000)
