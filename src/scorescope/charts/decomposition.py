"""What drives the error off the shells: the distance from the model's posterior mean to the row that carries the empirical one."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import xarray as xr

from scorescope.charts.grammar import BAND, BLACK, Drawing, Row, Vertical, each, model_keys, percent
from scorescope.charts.layers import curves
from scorescope.charts.page import grid, width_of
from scorescope.charts.tables import bands
from scorescope.results import models
from scorescope.statistics import integrated_error

NAME = "What drives the error off the shells"
ORDER = 50
NEEDS = ("score_error", "mean_to_nearest")
CAPTION = (
    "Left, the score error in extrapolation. Right, how far the model's guess of the clean image is from the training image that "
    "weighs most in the empirical score, per dimension, in units of the data. Where one image carries the posterior, the error is that "
    "distance over σ, squared; so a blurry model looks close and a noisy one far.",
    "A copier's guess is that image: both curves fall to 0.",
    "A generalizer's guess is another image: the distance stays, and over σ it grows towards the image.",
)


def draw(results: xr.Dataset) -> Drawing | None:
    """Two panels with a curve a model."""
    region = ["extrapolation"]
    error, distance = (bands(results[name], region) for name in ("score_error", "mean_to_nearest"))
    if not error or not distance:
        return None
    names = [m for m in models(results) if all(any(row["model"] == m for row in rows) for rows in (error, distance))]
    if not names:
        return None
    keys = model_keys(names)
    left = Vertical.positive(error, "score error per dimension (data units²)")
    top = max(row["high"] for row in distance)
    right = Vertical(0, 1.08 * top or 1, "RMS distance per dimension (data units)")

    def panel(rows: list[Row], y: Vertical, title: str) -> Any:
        layers = curves(rows, keys, y, field="model", band=len(names) == 1)
        return alt.layer(*layers).properties(width=width_of(2) - 22, height=240, title=alt.TitleParams(title, color=BLACK))

    panels = [panel(error, left, "score error in extrapolation"), panel(distance, right, "model's guess to the heaviest row")]
    table = [{"quantity": name, **row} for name, rows in (("score error", error), ("distance", distance)) for row in rows]
    return Drawing(_fact(results, names), grid([panels]), table, (*keys, BAND) if len(names) == 1 else tuple(keys))


def _fact(results: xr.Dataset, names: list[str]) -> str:
    """The share of the error, averaged over t from 0.1 to 1, that the distance over σ, squared, makes up."""
    time = results["time"].values
    part = results.sel(region="extrapolation", model=names).transpose("model", "path", "time", ...)
    whole = np.nanmean(integrated_error(part["score_error"].values, time), axis=1)
    near = np.nanmean(integrated_error((part["mean_to_nearest"].values / time) ** 2, time), axis=1)
    if not (whole > 0).all():
        return "There is no error off the shells"
    said = each({m: percent(float(n / w), digits=0) for m, n, w in zip(names, near, whole, strict=True)})
    return f"The squared distance to the heaviest row, over σ², is {said} of the error off the shells (t from 0.1 to 1)"
