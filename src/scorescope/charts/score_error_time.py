"""The score error against t: where along the way the model underfits."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import xarray as xr

from scorescope.charts.grammar import BAND, BLACK, GAUSSIAN, LEAST_TIME, Drawing, Key, Row, Vertical, each, repeated, time_axis
from scorescope.charts.layers import curves, panel
from scorescope.charts.page import facets
from scorescope.charts.tables import bands, curve, measured, number, region_keys
from scorescope.results import models

NAME = "Score error along t"
ORDER = 25
NEEDS = ("score_error",)
ALSO = ("gaussian_error", "gaussian_loss")
CAPTION = (
    "The weighted squared difference between the model's score and the empirical one, per dimension (λ(t) = t²/(1−t)²: the error of the "
    "velocity), median and middle 80 % of paths, in each region. Both axes are logarithmic, and the same in all panels. Where the model's "
    "guess of the clean image stays at a distance from the row that carries the empirical one, the error is that distance over t, squared: "
    "it grows along the thin black line, without end as t → 0.",
    "A copier's error is 0 everywhere.",
    "A generalizer's error is small in supervision, below that of the best linear denoiser, and in extrapolation rises along the black "
    "line. For held-out rows it rises as well: the empirical score pulls to rows that they are not.",
)
SLOPE = Key("slope", "1/t²: what a fixed distance draws", BLACK, (1, 0), kind="thin")
ANCHOR = 0.1  # where the black line meets the curve in extrapolation


def draw(results: xr.Dataset) -> Drawing:
    """One panel a model."""
    rows, keys = bands(results["score_error"]), []
    keys += region_keys(rows)
    if measured(results, "gaussian_error"):
        rows += [{**row, "region": GAUSSIAN.name} for row in bands(results["gaussian_error"], ["supervision"])]
        keys.append(GAUSSIAN)
    y = Vertical.positive([row for row in rows if row["t"] >= LEAST_TIME], "score error per dimension (data units²)", decades=9)
    rows = [row for row in rows if row["t"] >= LEAST_TIME]
    slopes = {model: _slope(rows, model, y) for model in models(results)}

    def whole(model: str, width: int, first: bool) -> Any:
        axis = repeated(y, first)
        layers = curves(rows, keys, axis, model=model, log_time=True)
        if slopes[model]:
            line = panel(slopes[model]).mark_line(color=BLACK, strokeWidth=0.8, aria=False)
            layers.insert(0, line.encode(x=time_axis(log=True), y=axis.of("median")))
        return alt.layer(*layers).properties(width=width, height=270)

    legend = (*keys, *((SLOPE,) if any(slopes.values()) else ()), BAND)
    return Drawing(_fact(rows, models(results)), facets(models(results), [whole]), rows, legend)


def _slope(rows: list[Row], model: str, y: Vertical) -> list[Row]:
    """The line c/t² through the curve in extrapolation near t = 0.1, as far as the panel holds it."""
    t, outside = curve(rows, model, "extrapolation")
    if not y.log or not (outside > 0).any():
        return []
    t, outside = t[outside > 0], outside[outside > 0]
    near = np.abs(np.log(t / ANCHOR)).argmin()
    scale = outside[near] * t[near] ** 2
    ends = np.clip(np.sqrt(scale / np.array([y.high, y.low])), LEAST_TIME, 1)
    return (
        [{"t": number(at), "median": number(scale / at**2)} for at in np.geomspace(float(ends[0]), float(ends[1]), 24)]
        if ends[0] < ends[1]
        else []
    )


def _fact(rows: list[Row], names: list[str]) -> str:
    """Up to which t the error is larger while sampling than in training (of the median curves)."""
    until = {}
    for model in names:
        (t, inside), (at, outside) = (curve(rows, model, region) for region in ("supervision", "extrapolation"))
        shared, i, j = np.intersect1d(t, at, return_indices=True)
        if not len(shared):
            return "Score error in the regions that were measured"
        if not (inside[i] > 0).any():
            return "The score error is 0 in supervision" + ("" if (outside[j] > 0).any() else " and in extrapolation")
        larger = outside[j] > inside[i]
        until[model] = float(shared[larger.argmin() - 1] if not larger.all() else shared[-1]) if larger[0] else 0.0
    if not any(until.values()):
        return "Towards the image the score error is no larger while sampling than in training"
    said = each({m: "at no t" if not t else "at every t" if t > 0.99 else f"up to t = {t:.2g}" for m, t in until.items()})
    return f"The score error is larger while sampling than in training {said}"
