"""Fig. 4, right: noised training images, denoised again: how many come back to where they started."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import xarray as xr

from scorescope.charts.grammar import BLACK, BLUE, GREY, Drawing, Key, Row, Vertical, each, percent, repeated
from scorescope.charts.layers import colour, curves, dashes, panel, time_axis
from scorescope.charts.overlap import curve_rows, shown
from scorescope.charts.page import facets
from scorescope.charts.tables import measured, number
from scorescope.results import models
from scorescope.statistics import wilson

NAME = "Return to the origin (Fig. 4)"
ORDER = 60
NEEDS = ("returned",)
CAPTION = (
    "The share of noised training images for which denoising from t ends nearest to the image that it started from, with Wilson's 95 % "
    "interval; dashed, the overlap C(t) of the closest pair of shells (B.2), which says from where on images can't be told apart.",
    "A copier returns every image until the shells overlap: the ratio falls only where C(t) rises.",
    "So does a model that fits its supervision region, whether it generalizes or not: this looks at supervision alone.",
)
RELIABLE = 0.9
RETURNED = Key("returned", "share that returns", BLUE, shape="circle")
INTERVAL = Key("band", "95 % Wilson interval", BLUE, kind="band")
WHOLE = Key("whole", "C(t), all rows", BLACK, (7, 4))
CLASS = Key("class", "C(t), worst class", GREY, (3, 3))


def draw(results: xr.Dataset) -> Drawing:
    """One panel a model."""
    rows = []
    for model in models(results):
        part = results["returned"].sel(model=model).transpose("origin", "origin_time").values.astype(float)
        count = np.isfinite(part).sum(0)
        back = np.nansum(part, axis=0)
        low, high = wilson(back, count)
        for k in np.flatnonzero(count):
            ends = {"median": number(back[k] / count[k]), "low": number(low[k]), "high": number(high[k])}
            t = number(results["origin_time"].values[k])
            rows.append({"model": model, "region": RETURNED.name, "t": t, **ends, "origins": int(count[k])})
    theory, theory_keys = _overlap(results)
    y = Vertical(0, 1.04, "share returned; overlap C(t)")

    def one(model: str, width: int, first: bool) -> Any:
        axis = repeated(y, first)
        layers = curves(rows, [RETURNED], axis, model=model)
        if theory:
            line = panel(theory).mark_line(aria=False, strokeWidth=1.5)
            inks = {"color": colour(theory_keys, "curve"), "strokeDash": dashes(theory_keys, "curve")}
            drawn = line.encode(x=time_axis(), y=axis.of("value"), **inks)
            layers = [drawn, alt.layer(*layers)]
        return alt.layer(*layers).resolve_scale(color="independent", strokeDash="independent").properties(width=width, height=230)

    table = [
        {"model": r["model"], "t": r["t"], "share": r["median"], "low": r["low"], "high": r["high"], "origins": r["origins"]} for r in rows
    ]
    return Drawing(_fact(rows, models(results)), facets(models(results), [one]), table, (RETURNED, INTERVAL, *theory_keys))


def _overlap(results: xr.Dataset) -> tuple[list[Row], list[Key]]:
    """C(t) of the whole bank and of its worst class, exact duplicates counted once."""
    rows, keys, t = [], [], results["time"].values
    if (name := shown(results, "overlap")) is not None:
        keys.append(WHOLE)
        rows += curve_rows(WHOLE.name, t, results[name].values)
    if (name := shown(results, "overlap_class")) is not None and measured(results, name):
        worst = results[name].transpose("class", "time").values
        keys.append(CLASS)
        rows += curve_rows(CLASS.name, t, worst[np.argmax(np.nansum(worst, axis=1))])
    return rows, keys


def _fact(rows: list[Row], names: list[str]) -> str:
    """Up to which t at least 90 % return."""
    until, halfway, middle = {}, {}, 0.5
    for model in names:
        ratio = [(row["t"], row["median"]) for row in rows if row["model"] == model]
        until[model] = max((t for k, (t, _) in enumerate(ratio) if all(r >= RELIABLE for _, r in ratio[: k + 1])), default=0.0)
        middle, halfway[model] = min(ratio, key=lambda pair: abs(pair[0] - 0.5))
    if all(t > 0 for t in until.values()):
        return f"At least 90 % of noised training images return from t up to {each({m: f'{t:.2f}' for m, t in until.items()})}"
    return f"Of training images noised to t = {middle:.2f}, {each({m: percent(r, digits=0) for m, r in halfway.items()})} return"
