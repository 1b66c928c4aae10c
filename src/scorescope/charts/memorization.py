"""Are samples copies: the two distance ratios of samples, beside those of real images, which give "close" a scale."""

from __future__ import annotations

import itertools
from typing import Any

import altair as alt
import numpy as np
import xarray as xr

from scorescope.charts.grammar import BLACK, GREY, LABELS, VERMILLION, Drawing, Key, Row, words
from scorescope.charts.layers import panel
from scorescope.charts.page import grid, join, width_of
from scorescope.charts.tables import measured, number
from scorescope.results import COPY, finite, models

NAME = "Memorization of finished samples (C.7)"
ORDER = 80
NEEDS = ("ratio_second", "ratio_calibrated")
ALSO = ("null_second", "null_calibrated")
CAPTION = (
    "How close each finished sample lies to its nearest training row: left, its distance over that to the nearest row that is no "
    "near-duplicate of the first; right, squared nearest distance over "
    "the mean of the squared distances to the nearest rows (C.7). Grey, the same for real rows among the others.",
    "A copier's samples pile up at the end marked copy.",
    "A generalizer's samples lie where real images lie.",
)
BINS = 24
SAMPLES, REAL = Key("samples", "samples", VERMILLION, kind="bar"), Key("real", "real rows, for scale", GREY, kind="bar")
LIMIT = Key("limit", "below 1/3: called a copy", BLACK, (4, 3))
NULLS = "real rows"


def draw(results: xr.Dataset) -> Drawing:
    """A line of bars for each model and one for the real rows; a column for each criterion."""
    names = models(results)
    groups = [*names, *([NULLS] if measured(results, "null_second") and measured(results, "null_calibrated") else [])]
    rows: list[Row] = []
    columns = []
    for criterion, ratio, title in (
        ("second", "ratio_second", "nearest over second"),
        ("calibrated", "ratio_calibrated", "calibrated (C.7)"),
    ):
        values = {m: results[ratio].sel(model=m).values for m in names}
        if NULLS in groups:
            values[NULLS] = results[f"null_{criterion}"].values
        here = [row for group in groups for row in _bars(group, title, values[group][np.isfinite(values[group])])]
        top = 1.05 * max(row["share"] for row in here)
        panels = [_panel([r for r in here if r["group"] == g], values[g], criterion, g == groups[-1], top) for g in groups]
        columns.append(join("vconcat", panels, 8, title))
        rows += here
    legend = (SAMPLES, REAL, LIMIT) if NULLS in groups else (SAMPLES, LIMIT)
    return Drawing(_fact(results), grid([columns]), rows, legend)


def _bars(group: str, criterion: str, values: np.ndarray) -> list[Row]:
    """Shares of the values in equal bins from 0 to 1."""
    counts, edges = np.histogram(np.clip(values, 0, 1), bins=BINS, range=(0, 1))
    about, of = {"group": group, "criterion": criterion}, len(values)
    return [
        {**about, "from": number(start), "to": number(end), "share": number(count / max(of, 1)), "count": int(count), "of": of}
        for count, (start, end) in zip(counts, itertools.pairwise(edges), strict=True)
    ]


def _panel(rows: list[Row], values: np.ndarray, criterion: str, last: bool, top: float) -> Any:
    group, known = rows[0]["group"], values[np.isfinite(values)]
    said = (
        f"{int((known < COPY).sum())} of {len(known)} below 1/3" if criterion == "second" else f"median {words(float(np.median(known)), 2)}"
    )
    label = "datum.value == 0 ? ['0', 'copy'] : datum.value == 1 ? ['1', 'new'] : format(datum.value, '.1f')"
    axis = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], labelExpr=label, labelFlush=True, title=None, labels=last, ticks=last)
    x = alt.X("from:Q", scale=alt.Scale(domain=[0, 1], nice=False), axis=axis)
    share = alt.Axis(title="share", format=".0%", tickCount=2, minExtent=LABELS)
    y = alt.Y("share:Q", scale=alt.Scale(domain=[0, top], nice=False), axis=share)
    titles = {"from": "ratio from", "to": "to", "count": "number", "of": "of"}
    told = [alt.Tooltip(f"{name}:Q", title=title) for name, title in titles.items()]
    bars = panel([r for r in rows if r["count"]]).mark_bar(
        color=GREY if group == NULLS else VERMILLION, opacity=1, fillOpacity=0.8, aria=False
    )
    layers = [bars.encode(x=x, x2="to:Q", y=y, y2=alt.datum(0), tooltip=told)]
    if criterion == "second":
        line = panel([{"from": number(COPY)}]).mark_rule(color=BLACK, strokeDash=[4, 3], aria=False)
        layers.append(line.encode(x=x))
    title = alt.TitleParams(f"{group}: {said}", fontSize=11.5, fontWeight="normal", offset=3)
    return alt.layer(*layers).properties(width=width_of(2) - 20, height=70, title=title)


def _fact(results: xr.Dataset) -> str:
    values, known = finite(results, "ratio_second"), finite(results, "null_second")
    copies, several = int((values < COPY).sum()), "" if results.sizes["model"] == 1 else f" of {results.sizes['model']} models"
    said = f"{'No sample is' if copies == 0 else '1 sample is' if copies == 1 else f'{copies} samples are'} a copy by the 1/3 rule"
    if copies > 1:
        said = said.replace("are a copy", "are copies")
    beside = f"; of {len(known)} real rows, {int((known < COPY).sum())}" if len(known) else ""
    return f"{said}, of {len(values)} samples{several}{beside}"
