"""Fig. 2: the gap between conditional and unconditional score, empirical where the model trains, learned where it samples."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from scorescope.charts.grammar import REGIONS, Drawing, Key, Row, Vertical, each, percent
from scorescope.charts.layers import curve_panel
from scorescope.charts.page import facets
from scorescope.charts.tables import bands, curve
from scorescope.results import models

NAME = "Guidance gap (Fig. 2)"
ORDER = 20
NEEDS = ("gap_empirical", "gap_learned")
ALSO = ("score_norm",)
CAPTION = (
    "How far the score with the class is from the score without it, in training and while sampling: the empirical scores (thin) and the "
    "model's own (thick), as a share of the empirical score's norm at the same states; medians over paths. Values below a ten-thousandth "
    "are drawn at the foot.",
    "A copier's curves fall together: while sampling, too, its gap vanishes as soon as its path is closest to one image.",
    "A generalizer's gap while sampling stays far above the empirical one in training: guidance acts outside of what was supervised "
    "(Example 3.1).",
)
FLOOR, SMALL = 1e-4, 0.01
KEYS = [
    Key("supervision", "empirical, supervision", REGIONS["supervision"].colour, (7, 4)),
    Key("learned supervision", "learned, supervision", REGIONS["supervision"].colour, shape="circle"),
    Key("empirical extrapolation", "empirical, extrapolation", REGIONS["extrapolation"].colour, (7, 4)),
    Key("extrapolation", "learned, extrapolation", REGIONS["extrapolation"].colour, (2, 3), "square"),
]


def draw(results: xr.Dataset) -> Drawing | None:
    """One panel a model, four curves each."""
    norm = results["score_norm"].where(results["score_norm"] > 0) if "score_norm" in results else 1.0
    rows: list[Row] = []
    for name, region, called in (
        ("gap_empirical", "supervision", "supervision"),
        ("gap_learned", "supervision", "learned supervision"),
        ("gap_empirical", "extrapolation", "empirical extrapolation"),
        ("gap_learned", "extrapolation", "extrapolation"),
    ):
        rows += [{**row, "region": called} for row in bands(results[name] / norm, [region])]
    if not {"supervision", "extrapolation"} <= {row["region"] for row in rows}:
        return None
    top = max(row["median"] for row in rows)
    y = Vertical(FLOOR, max(1.3 * top, 10 * FLOOR), "gap between scores ÷ the score's norm", log=True, floor=True)
    keys = [key for key in KEYS if any(row["region"] == key.name for row in rows)]
    return Drawing(_fact(rows, models(results)), facets(models(results), [curve_panel(rows, keys, y, 240, band=False)]), rows, tuple(keys))


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
