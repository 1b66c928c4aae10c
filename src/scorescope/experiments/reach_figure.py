"""The figure of `dynamics`: errors off the shells, how far they stay low, by time and by size; controls, and the way to sampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np

from scorescope.charts.grammar import BLACK, BLUE, GREEN, GREY, VERMILLION, Drawing, Key, Row, Vertical, model_keys, time_axis
from scorescope.charts.layers import panel
from scorescope.charts.page import grid, width_of
from scorescope.charts.tables import number
from scorescope.experiments.reach import MULTIPLE, Reaches, estimate
from scorescope.statistics import Estimate, Values

SHOWN = 0.3  # the t whose curves are drawn
GAUSSIAN = Key("gaussian", "Gaussian denoiser, the best linear one", BLACK, (4, 3))
OWN = Key("own", f"at {MULTIPLE:g} × its own error on the shells", BLUE, shape="circle")
COMMON = Key("common", f"at {MULTIPLE:g} × the smallest network's", VERMILLION, (6, 3), "square")
LOOKS = (("control: trained on the shells of few rows", GREY, (1.0, 0.0)), ("", GREEN, (2.0, 2.0)), ("", GREEN, (7.0, 3.0)))
REGION = Key("region", "control: trained on the shells of all rows", VERMILLION, (9, 3, 2, 3))
WIDE, HIGH = width_of(3) - 24, 190


def controls(thicknesses: Sequence[float]) -> list[Key]:
    """The looks of the networks that were trained on thicker shells."""
    return [
        Key(f"thickness {most:g}", words or f"control: on shells of up to {most:g} × the noise", colour, dash)
        for most, (words, colour, dash) in zip(thicknesses, LOOKS, strict=True)
    ]


def figure(found: Reaches, thicknesses: Sequence[float], title: str) -> Drawing:
    """Above, the error against the noise and how far it stays low, by time and by size; below, controls, and the way to sampling."""
    table, trained = list[Row](), controls(thicknesses)
    sizes = [
        replace(key, name=f"{key.name}@{found.steps[-1]}", dash=(1, 0), shape="")
        for key in model_keys(found.sizes, "#8EC3E6", "#003A5D")
    ]  # fmt: skip
    reached = Vertical(1, float(found.factors[-1]), "reaches k times the noise", log=True)
    way = Vertical(0, 1, "reaches this share of the way")
    shown = int(abs(found.times - SHOWN).argmin())
    here = f"t = {found.times[shown]:g}"

    def by_time(title: str, keys: Sequence[Key], values: Callable[[str], Values], y: Vertical) -> Any:
        layers: list[Any] = []
        for key in keys:
            rows = [_row(title, key.name, t, estimate(one)) for t, one in zip(found.times, values(key.name), strict=True)]
            table.extend(rows)
            layers += _line(rows, key, time_axis("x"), y)
        return alt.layer(*layers).properties(width=WIDE, height=HIGH, title=title)

    above = [
        _against_noise(found, [*sizes, GAUSSIAN], shown, table, f"Error off the shells, {here}"),
        by_time("How far it stays low", [*sizes, GAUSSIAN], lambda name: np.exp(found.noise(name)), reached),
        _against_size(found, reached, table),
    ]
    below = [
        _against_noise(found, trained, shown, table, f"Controls off the shells, {here}", relative=True),
        by_time("On the way to sampling", [*sizes, GAUSSIAN], found.way, way),
        by_time("Controls on that way", [trained[0], REGION], found.way, way),
    ]
    named = [replace(key, label=key.label.split("@")[0]) for key in sizes]
    return Drawing(title, grid([above, below]), table, (*named, GAUSSIAN, OWN, COMMON, *trained, REGION))


def _row(title: str, network: str, x: float, value: Estimate) -> Row:
    return {"panel": title, "network": network, "x": number(x), **{name: number(v) for name, v in value._asdict().items()}}


def _line(rows: list[Row], key: Key, x: alt.X, y: Vertical) -> list[Any]:
    """A line with the 95 % interval about it."""
    band = panel(rows).mark_area(color=key.colour, opacity=1, fillOpacity=0.15, clip=True).encode(x=x, y=y.of("low"), y2="high:Q")
    line = panel(rows).mark_line(color=key.colour, strokeDash=list(key.dash), strokeWidth=2, clip=True).encode(x=x, y=y.of("value"))
    return [band, line]


def _against_noise(found: Reaches, keys: Sequence[Key], shown: int, table: list[Row], title: str, relative: bool = False) -> Any:
    """The error against the noise factor at one t, as it is or over that on the shells; dots where the region ends."""
    named = "datum.value == 1 ? ['1', 'shells'] : format(datum.value, '~g')"
    ends = alt.Scale(type="log", domain=[float(found.factors[0]), float(found.factors[-1])], nice=False)
    x = alt.X("x:Q", title="k: noise over the shells'", scale=ends, axis=alt.Axis(values=[0.25, 0.5, 1, 2, 4], labelExpr=named))
    shells = {key.name: found.on_shells(key.name)[shown] for key in keys}
    curves = {key.name: found.medians(key.name, "thick")[shown] / (shells[key.name] if relative else 1) for key in keys}
    low, high = (float(end([one[:, 0] for one in curves.values()])) for end in (np.min, np.max))
    y = Vertical(
        low / 1.3,
        max(high, MULTIPLE if relative else 0) * 1.3,
        "error over that on the shells" if relative else "error per dimension",
        log=True,
    )
    layers: list[Any] = [panel([{"x": 1}]).mark_rule(color=GREY, strokeWidth=0.8).encode(x=x)]
    if relative:
        layers.append(panel([{"value": MULTIPLE}]).mark_rule(color=BLACK, strokeDash=[1, 2]).encode(y=y.of("value")))
    for key in keys:
        rows = [_row(title, key.name, k, estimate(line)) for k, line in zip(found.factors, curves[key.name], strict=True)]
        table.extend(rows)
        layers += _line(rows, key, x, y)
        ended = float(np.exp(found.noise(key.name)[shown, 0]))
        if ended < found.factors[-1]:  # a curve that never exceeds the level has no dot
            end = {"x": number(ended), "value": number(MULTIPLE * (1 if relative else shells[key.name][0]))}
            dot = panel([end]).mark_point(filled=True, size=45, opacity=1, color=key.colour, clip=True)
            layers.append(dot.encode(x=x, y=y.of("value")))
    return alt.layer(*layers).properties(width=WIDE, height=HIGH, title=title)


def _against_size(found: Reaches, y: Vertical, table: list[Row]) -> Any:
    """The noise factor, mean over times, against the number of parameters: a line for each length of training, the last one thick."""
    title = "… by size, mean over t"
    x = alt.X("x:Q", title="parameters (log)", scale=alt.Scale(type="log", nice=False, padding=12), axis=alt.Axis(format="~s", tickCount=3))
    layers: list[Any] = []
    for key in (OWN, COMMON):
        for step in found.steps:
            last, level = step == found.steps[-1], found.smallest if key is COMMON else ""
            names = [f"{size}@{step}" for size in found.sizes]
            rows = [_row(title, f"{name} {key.name}", found.parameters[name], found.mean_noise(name, level)) for name in names]
            table.extend(rows)
            line = panel(rows).mark_line(color=key.colour, strokeDash=list(key.dash), strokeWidth=2 if last else 0.8)
            layers.append(line.encode(x=x, y=y.of("value")))
            if last:
                layers.append(panel(rows).mark_rule(color=key.colour, strokeWidth=2).encode(x=x, y=y.of("low"), y2="high:Q"))
                mark = panel(rows).mark_point(filled=True, size=45, opacity=1, color=key.colour, shape=key.shape)
                layers.append(mark.encode(x=x, y=y.of("value")))
    return alt.layer(*layers).properties(width=WIDE, height=HIGH, title=title)
