"""C(t), the overlap of training shells (B.2): below which t each shell is alone."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import xarray as xr

from scorescope.charts.grammar import BLACK, GREY, Drawing, Key, Row, Vertical
from scorescope.charts.layers import dashes, panel, time_axis
from scorescope.charts.page import grid, width_of
from scorescope.charts.tables import measured, number
from scorescope.results import provenance

NAME = "Overlap of the training shells (B.2)"
ORDER = 70
NEEDS = ("overlap",)
ALSO = ("overlap_distinct", "overlap_class", "overlap_class_distinct")
CAPTION = (
    "C(t) of the closest pair of training rows: 0 where their shells are apart, 1 where they coincide. It is a maximum over pairs, so one "
    "exact duplicate makes it 1 at every t; the curve without exact duplicates tells how the rest lies.",
    "It is a property of the data alone: a copier and a generalizer trained on them have the same curve.",
    "Below the rise the empirical score points at one image, which is what a model is taught there, and all that it is taught.",
)
WHOLE = Key("whole", "all rows", BLACK)
DISTINCT = Key("distinct", "all rows, exact duplicates counted once", BLACK, (7, 4))
MOST_CLASSES, APART = 12, 0.01


def shown(results: xr.Dataset, name: str) -> str | None:
    """The variable that a chart with one curve shows: the one without exact duplicates if it is there, else the plain one, else None."""
    return next((n for n in (f"{name}_distinct", name) if measured(results, n)), None)


def draw(results: xr.Dataset) -> Drawing:
    """One panel."""
    rows = _curve(results, "overlap", WHOLE.name)
    keys = [WHOLE]
    if measured(results, "overlap_distinct") and not np.allclose(results["overlap_distinct"], results["overlap"]):
        rows += _curve(results, "overlap_distinct", DISTINCT.name)
        keys.append(DISTINCT)
    classes = _classes(results)
    y = Vertical(0, 1.04, "overlap C(t) of the closest pair", ends=("apart", "same"))
    words = [alt.Tooltip("t:Q", title="time t"), alt.Tooltip("value:Q", title="overlap C(t)"), alt.Tooltip("curve:N", title="rows")]
    layers: list[Any] = []
    if classes:
        thin = panel(classes).mark_line(color=GREY, strokeWidth=0.9, strokeOpacity=0.7, aria=False)
        layers.append(thin.encode(x=time_axis(), y=y.of("value"), detail="curve:N", tooltip=[words[2]]))
    bold = panel(rows).mark_line(color=BLACK, strokeWidth=2, aria=False)
    layers.append(bold.encode(x=time_axis(), y=y.of("value"), strokeDash=dashes(keys, "curve"), tooltip=words[2:]))
    dots = panel(rows).mark_point(filled=True, opacity=1, fillOpacity=0, size=120, aria=False)
    layers.append(dots.encode(x=time_axis(), y=y.of("value"), tooltip=words))
    chart = grid([[alt.layer(*layers).properties(width=width_of(1), height=250)]])
    if classes:
        count, drawn = results.sizes["class"], len({row["curve"] for row in classes})
        label = "single classes" if drawn == count else f"the {drawn} of {count} classes with most overlap"
        keys.append(Key("class", f"{label} (hover names them)", GREY, kind="thin"))
    return Drawing(_fact(results), chart, rows + classes, tuple(keys))


def _curve(results: xr.Dataset, name: str, curve: str) -> list[Row]:
    return curve_rows(curve, results["time"].values, results[name].values)


def curve_rows(curve: str, time: np.ndarray, values: np.ndarray) -> list[Row]:
    """Rows of one curve, where it has values."""
    return [{"curve": curve, "t": number(t), "value": number(v)} for t, v in zip(time, values, strict=True) if np.isfinite(v)]


def _classes(results: xr.Dataset) -> list[Row]:
    """The classes with the most overlap, at most twelve."""
    name = shown(results, "overlap_class")
    if name is None:
        return []
    values = results[name].transpose("class", "time").fillna(0)
    names = provenance(results)["bank"].get("class_names") or []
    most = np.sort(np.argsort(-values.sum("time").values, kind="stable")[:MOST_CLASSES])
    rows = []
    for k in most:
        label = int(results["class"].values[k])
        title = f"class {names[label] if label < len(names) else label}"
        rows += curve_rows(title, results["time"].values, values.values[k])
    return rows


def _fact(results: xr.Dataset) -> str:
    name = shown(results, "overlap")
    assert name is not None, "NEEDS has it"
    t, values = results["time"].values, results[name].values
    copies = int(results["duplicates"]) if "duplicates" in results else 0
    aside = f" ({copies} exact {'duplicate' if copies == 1 else 'duplicates'} set aside)" if copies and name.endswith("distinct") else ""
    together = np.flatnonzero(values > APART)
    if not len(together):
        return f"The training shells never overlap{aside}"
    if together[0] == 0:
        return f"The closest training shells overlap at every t measured{aside}"
    return f"The first two training shells overlap at t = {t[together[0]]:.2f}: C(t) is above {APART} from there{aside}"
