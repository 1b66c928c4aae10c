"""The chart of any per-state variable that no other chart needs: so a new probe in one file shows up without a chart of its own.

An array's attributes `long_name` and `units`, if it has them, become the words on the axis.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import xarray as xr

from scorescope.charts.grammar import BAND, Drawing, Row, Vertical, each, words
from scorescope.charts.layers import curve_panel
from scorescope.charts.page import facets
from scorescope.charts.tables import bands, curve, measured, region_keys
from scorescope.results import models

DIMENSIONS = {"model", "region", "path", "time"}


def unclaimed(results: xr.Dataset, claimed: Container[str]) -> list[str]:
    """Names of the measured real-valued variables over (model, region, path, time) that are not in `claimed`."""
    names = (str(name) for name in results.data_vars if set(results[name].dims) == DIMENSIONS)
    return [name for name in names if name not in claimed and results[name].dtype.kind == "f" and measured(results, name)]


def draw(results: xr.Dataset, name: str) -> tuple[str, tuple[str, str, str], Drawing]:
    """Name, caption and drawing of one variable: median and 10–90 % band against t, by region, a panel a model."""
    known = [m for m in results["model"].values if results[name].sel(model=m).notnull().any()]
    results = results.sel(model=known)
    values = results[name]
    said = str(values.attrs.get("long_name", name.replace("_", " ")))
    rows = bands(values)
    keys = region_keys(rows)
    y = _axis(rows, f"{said} ({values.attrs['units']})" if "units" in values.attrs else said)
    levels = {k.name: each({m: _median(rows, m, k.name) for m in models(results)}) for k in keys}
    title = f"{said}: median over t " + "; ".join(f"{level} in {region}" for region, level in levels.items())
    caption = (
        f"The median over paths (lines) and the range of their middle 80 % (bands) of {said}, against t, in each region.",
        "A copier, which is the empirical score itself, would have the value of a perfect fit in every region.",
        "A generalizer would keep close to that value in supervision and differ from it in extrapolation.",
    )
    return said, caption, Drawing(title, facets(models(results), [curve_panel(rows, keys, y, 220)]), rows, (*keys, BAND))


def _axis(rows: list[Row], title: str) -> Vertical:
    values = np.array([row[f] for row in rows for f in ("median", "low", "high")], float)
    if values.min() > 0 and values.max() > 30 * values.min():
        return Vertical.positive(rows, title)
    margin = 0.05 * float(np.ptp(values)) or 0.5
    return Vertical(float(values.min()) - margin, float(values.max()) + margin, title)


def _median(rows: list[Row], model: str, region: str) -> str:
    found = curve(rows, model, region)[1]
    return words(float(np.median(found))) if len(found) else "not measured"
