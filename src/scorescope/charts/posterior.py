"""How many rows the empirical score listens to, and how much weight the first of them has."""

from __future__ import annotations

import xarray as xr

from scorescope.charts.grammar import BAND, Drawing, Row, Vertical, each
from scorescope.charts.layers import curve_panel
from scorescope.charts.page import facets
from scorescope.charts.tables import bands, curve, region_keys
from scorescope.results import models

NAME = "The exact posterior"
ORDER = 100
NEEDS = ("ess", "top_weight")
ALSO = ("entropy",)
CAPTION = (
    "The empirical score averages the training rows by their posterior weight (Eq. 2). First, how many rows that effectively is; second, "
    "the weight of the heaviest. Median and middle 80 % of paths.",
    "A copier's sampling paths have one heavy row as early as noised training images do.",
    "A generalizer's sampling paths have one later, and it is an image that the model does not go to.",
)
ALONE = 0.99


def draw(results: xr.Dataset) -> Drawing:
    """Two panels a model."""
    rows, weight = bands(results["ess"]), bands(results["top_weight"])
    keys = region_keys(rows)
    top = max(row["high"] for row in rows)
    y_rows = Vertical(0.9, max(1.3 * top, 10), "effective rows (log)", log=True)
    y_weight = Vertical(0, 1.04, "weight of the heaviest row")
    kinds = [curve_panel(rows, keys, y_rows, 200), curve_panel(weight, keys, y_weight, 200)]
    table = [{"quantity": name, **row} for name, part in (("effective rows", rows), ("top weight", weight)) for row in part]
    return Drawing(_fact(weight, models(results)), facets(models(results), kinds), table, (*keys, BAND))


def _fact(weight: list[Row], names: list[str]) -> str:
    said = []
    for region, where in (("supervision", "noised training images"), ("extrapolation", "states of sampling")):
        until = {m: _alone(weight, m, region) for m in names}
        if all(t is not None for t in until.values()):
            said.append(f"up to t = {each({m: f'{t:.2f}' for m, t in until.items()})} for {where}")
    if not said:
        return "No single row carries the empirical score"
    return f"One row carries 99 % of the empirical score {' and '.join(said)}"


def _alone(weight: list[Row], model: str, region: str) -> float | None:
    """The largest t up to which the median weight of the heaviest row is at least 0.99."""
    t, values = curve(weight, model, region)
    short = [k for k, v in enumerate(values) if v < ALONE]
    end = short[0] if short else len(values)
    return float(t[end - 1]) if end else None
