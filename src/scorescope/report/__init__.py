"""The report: results → one HTML file that works offline, with every figure, finding and number of a run."""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from scorescope.files import write_text
from scorescope.report.page import render

__all__ = ["render", "write"]


def write(results: xr.Dataset, path: str | Path) -> Path:
    """Draw the report of `results` into the file `path`, atomically, and return its path."""
    target = Path(path)
    write_text(target, render(results))
    return target
