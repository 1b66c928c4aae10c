"""Fig. 2: the gap between conditional and unconditional score, empirical where the model trains, learned where it samples."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from scorescope.charts.grammar import BAND, REGIONS, Drawing, Row, Vertical, each, percent
from scorescope.charts.layers import curve_panel
from scorescope.charts.page import facets
from scorescope.charts.tables import bands, curve
from scorescope.results import models

NAME = "Guidance gap (Fig. 2)"
ORDER = 20
NEEDS = ("gap_empirical", "gap_learned")
CAPTION = (
    "How far the conditional score is from the unconditional one: the empirical scores on noised training images, and the model's own "
    "while it samples. Values up to 0.001 are drawn at the foot.",
    "A copier's gap would vanish while sampling too, as soon as its path is closest to one image.",
    "A generalizer's gap stays far above the empirical one: guidance acts outside of what was supervised (Example 3.1).",
)
FLOOR, SMALL = 1e-3, 0.01


def draw(results: xr.Dataset) -> Drawing | None:
    """One panel a model."""
    rows = bands(results["gap_empirical"], ["supervision"]) + bands(results["gap_learned"], ["extrapolation"])
    if {row["region"] for row in rows} != {"supervision", "extrapolation"}:
        return None
    keys = [REGIONS["supervision"], REGIONS["extrapolation"]]
    top = max(row["high"] for row in rows)
    y = Vertical(FLOOR, max(1.3 * top, 10 * FLOOR), "gap between scores (1 / data units)", log=True, floor=True)
    return Drawing(_fact(rows, models(results)), facets(models(results), [curve_panel(rows, keys, y, 240)]), rows, (*keys, BAND))


def _fact(rows: list[Row], names: list[str]) -> str:
    """Up to which t the empirical gap is negligible beside the learned one, or how large it is where it never is."""
    until, shares = {}, {}
    for model in names:
        t, trained = curve(rows, model, "supervision")
        at, sampled = curve(rows, model, "extrapolation")
        both = [(x, a, sampled[k]) for x, a in zip(t, trained, strict=True) for k in np.flatnonzero(at == x) if sampled[k] > 0]
        small = [a < SMALL * b for _, a, b in both]
        end = small.index(False) if False in small else len(small)
        until[model] = both[end - 1][0] if end else None
        shares[model] = float(np.median([a / b for _, a, b in both])) if both else float("nan")
    if all(math.isnan(s) for s in shares.values()):
        return "Conditional and unconditional score do not differ while sampling"
    if all(t is not None for t in until.values()):
        said = each({m: f"{t:.2f}" for m, t in until.items()})
        return f"The empirical gap in training stays below 1 % of the learned gap in sampling up to t = {said}"
    said = each({m: percent(s) for m, s in shares.items()})
    return f"The empirical gap in training is {said} of the learned gap in sampling (median over t)"
