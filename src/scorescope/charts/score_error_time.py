"""The score error against t: where along the way the model underfits."""

from __future__ import annotations

import numpy as np
import xarray as xr

from scorescope.charts.grammar import BAND, Drawing, Row, Vertical, each, words
from scorescope.charts.layers import curve_panel
from scorescope.charts.page import facets
from scorescope.charts.tables import bands, curve, region_keys
from scorescope.results import models

NAME = "Score error along t"
ORDER = 40
NEEDS = ("score_error",)
CAPTION = (
    "The weighted squared difference between the model's score and the empirical one, per dimension (λ(t) = t²/(1−t)²: the error of the "
    "velocity), median and middle 80 % of paths, in each region. Both axes are the same in all panels.",
    "A copier's error is 0 everywhere.",
    "A generalizer's error is small in supervision and much larger in extrapolation, most of all towards the image.",
)


def draw(results: xr.Dataset) -> Drawing:
    """One panel a model."""
    rows = bands(results["score_error"])
    keys = region_keys(rows)
    y = Vertical.positive(rows, "score error per dimension (data units²)")
    return Drawing(_fact(rows, models(results)), facets(models(results), [curve_panel(rows, keys, y, 240)]), rows, (*keys, BAND))


def _fact(rows: list[Row], names: list[str]) -> str:
    """How many times larger the error is while sampling: the median over t of the ratio of the two median curves."""
    ratios = {}
    for model in names:
        (t, inside), (at, outside) = (curve(rows, model, region) for region in ("supervision", "extrapolation"))
        shared, i, j = np.intersect1d(t, at, return_indices=True)
        if not len(shared):
            return "Score error in the regions that were measured"
        inner, outer = inside[i], outside[j]
        if not (inner > 0).any():
            return "The score error is 0 in supervision" + ("" if (outer > 0).any() else " and in extrapolation")
        ratios[model] = float(np.median(outer[inner > 0] / inner[inner > 0]))
    return f"In sampling the score error is {each({m: words(r, 2) for m, r in ratios.items()})} times that in training (median over t)"
