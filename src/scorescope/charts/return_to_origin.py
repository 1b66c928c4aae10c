"""Fig. 4, right: noised training images, denoised again: how many come back to where they started."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import xarray as xr

from scorescope.charts.grammar import BLACK, BLUE, GREY, PURPLE, Drawing, Key, Row, Vertical, each, percent, repeated
from scorescope.charts.layers import colour, curves, dashes, panel, time_axis
from scorescope.charts.overlap import curve_rows, shown
from scorescope.charts.page import facets
from scorescope.charts.tables import measured, number
from scorescope.results import finite, first_losses, models
from scorescope.statistics import held_until, wilson

NAME = "Return to the origin (Fig. 4)"
ORDER = 60
NEEDS = ("returned",)
CAPTION = (
    "The share of noised images for which denoising from t ends nearest to the image that it started from, of training images and, where "
    "there are some, of held-out ones, with Wilson's 95 % interval; dashed, the overlap C(t) of the closest pair of shells (B.2), which "
    "says from where on images can't be told apart. An image is taken to come back between two times at which it did: the table's "
    "“measured” counts the others.",
    "A copier returns every image until the shells overlap: the ratio falls only where C(t) rises.",
    "A generalizer returns images from little noise, too, seen or not: what training images have over unseen ones is memory.",
)
RETURNED = Key("returned", "training images that return", BLUE, shape="circle")
UNSEEN = Key("unseen", "held-out images that return", PURPLE, (5, 3), "diamond")
SUFFIX = {RETURNED.name: "", UNSEEN.name: "_held_out"}
INTERVAL = Key("band", "95 % Wilson interval", GREY, kind="band")
WHOLE = Key("whole", "C(t), all rows", BLACK, (7, 4))
CLASS = Key("class", "C(t), worst class", GREY, (3, 3))


def draw(results: xr.Dataset) -> Drawing:
    """One panel a model."""
    keys = [key for key in (RETURNED, UNSEEN) if finite(results, f"returned{SUFFIX[key.name]}").size]
    rows = [row for model in models(results) for key in keys for row in _shares(results, model, key.name)]
    theory, theory_keys = _overlap(results)
    y = Vertical(0, 1.04, "share returned; overlap C(t)")

    def one(model: str, width: int, first: bool) -> Any:
        axis = repeated(y, first)
        layers = curves(rows, keys, axis, model=model)
        if theory:
            line = panel(theory).mark_line(aria=False, strokeWidth=1.5)
            inks = {"color": colour(theory_keys, "curve"), "strokeDash": dashes(theory_keys, "curve")}
            drawn = line.encode(x=time_axis(), y=axis.of("value"), **inks)
            layers = [drawn, alt.layer(*layers)]
        return alt.layer(*layers).resolve_scale(color="independent", strokeDash="independent").properties(width=width, height=230)

    shown = {RETURNED.name: "training", UNSEEN.name: "held out"}
    table = [
        {"model": r["model"], "t": r["t"], "images": shown[r["region"]], "share": r["median"]}
        | {name: r[name] for name in ("low", "high", "origins", "measured")}
        for r in rows
    ]
    legend = (*keys, INTERVAL, *theory_keys)
    return Drawing(_fact(results, rows, keys), facets(models(results), [one]), table, legend)


def _shares(results: xr.Dataset, model: str, name: str) -> list[Row]:
    """The share that returns at every time, of training images or of held-out ones; how many of them were measured there."""
    back, distance = (
        results[f"{variable}{SUFFIX[name]}"].sel(model=model).transpose("origin", "origin_time").values.astype(float)
        for variable in ("returned", "return_distance" if f"return_distance{SUFFIX[name]}" in results else "returned")
    )
    count, returned = np.isfinite(back).sum(0), np.nansum(back, axis=0)
    low, high = wilson(returned, count)
    return [
        {
            "model": model,
            "region": name,
            "t": number(results["origin_time"].values[k]),
            "median": number(returned[k] / count[k]),
            "low": number(low[k]),
            "high": number(high[k]),
            "origins": int(count[k]),
            "measured": int(np.isfinite(distance[:, k]).sum()),
        }
        for k in np.flatnonzero(count)
    ]


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


def _fact(results: xr.Dataset, rows: list[Row], keys: list[Key]) -> str:
    """Up to which t at least 90 % return, of training images and of unseen ones."""
    until = {
        key.name: {
            model: float(held_until(first_losses(results, model, SUFFIX[key.name])[0]))
            for model in models(results)
            if any(row["model"] == model and row["region"] == key.name for row in rows)
        }
        for key in keys
    }
    seen, unseen = until[RETURNED.name], until.get(UNSEEN.name)
    if all(t > 0 for t in seen.values()):
        tail = f"; of unseen ones up to {each({m: f'{t:.2f}' for m, t in unseen.items()})}" if unseen else ""
        return f"At least 90 % of noised training images return from t up to {each({m: f'{t:.2f}' for m, t in seen.items()})}{tail}"
    halfway, middle = {}, 0.5
    for model in seen:
        ratio = [(row["t"], row["median"]) for row in rows if row["model"] == model and row["region"] == RETURNED.name]
        middle, halfway[model] = min(ratio, key=lambda pair: abs(pair[0] - 0.5))
    return f"Of training images noised to t = {middle:.2f}, {each({m: percent(r, digits=0) for m, r in halfway.items()})} return"
