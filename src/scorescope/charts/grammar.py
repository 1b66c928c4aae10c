"""The one chart grammar: what every chart agrees on, so that a reader learns it once.

t runs from 0 ("image") to 1 ("noise"), left to right. Supervision is blue, solid, ●; extrapolation vermillion, dotted, ■; re-noised
green, dashed, ▲; held-out rows purple, dash and dot, ◆; theory black. Lines are medians over paths, bands the middle 80 % (C.2). Words,
not formulas, on axes; bands and lines of theory say what they are on the spot. A chart has neither title nor legend inside: a page sets
both as text (`Key.swatch` draws the signs), and `frame` adds them for files that travel alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import numpy as np

Row = dict[str, Any]
Spec = dict[str, Any]

WIDTH, LABELS = 720, 42
MOST_NAMED = 4
FONT = "Liberation Sans, Arial, Helvetica, sans-serif"
BLUE, VERMILLION, GREEN, PURPLE, BLACK, GREY = "#0072B2", "#D55E00", "#009E73", "#8B3F75", "#000000", "#6B6B6B"
BAND_FIELDS = ("median", "low", "high")


@dataclass(frozen=True)
class Key:
    """One entry of a legend, and the look of the curve that it names.

    Attributes:
        name: The value in the data.
        label: What the legend says.
        colour: Hex.
        dash: Lengths of dash and gap; (1, 0) is solid.
        shape: Vega's name of the mark on the curve; empty for none.
        kind: "line", "thin", "band" or "bar".
    """

    name: str
    label: str
    colour: str
    dash: tuple[float, ...] = (1, 0)
    shape: str = ""
    kind: str = "line"

    @property
    def swatch(self) -> str:
        """The sign of this entry as a small inline SVG, for legends set as HTML."""
        if self.kind in ("band", "bar"):
            opacity = 0.25 if self.kind == "band" else 0.8
            inside = f'<rect x="1" y="2" width="28" height="10" fill="{self.colour}" fill-opacity="{opacity}"/>'
        else:
            dash = f' stroke-dasharray="{" ".join(map(str, self.dash))}"' if self.dash[1] else ""
            inside = f'<path d="M1 7H29" stroke="{self.colour}" stroke-width="{0.8 if self.kind == "thin" else 2}"{dash}/>'
            inside += f'<path d="{SHAPES[self.shape]}" fill="{self.colour}"/>' if self.shape else ""
        return f'<svg width="30" height="14" viewBox="0 0 30 14" aria-hidden="true">{inside}</svg>'


SHAPES = {
    "circle": "M15 3a4 4 0 1 0 .01 0Z",
    "square": "M11 3h8v8h-8Z",
    "triangle-up": "M15 2.5l4.5 8h-9Z",
    "diamond": "M15 2l5 5-5 5-5-5Z",
}
REGIONS = {
    "supervision": Key("supervision", "supervision (training)", BLUE, shape="circle"),
    "extrapolation": Key("extrapolation", "extrapolation (sampling)", VERMILLION, (2, 3), "square"),
    "renoised": Key("renoised", "re-noised samples (control)", GREEN, (7, 4), "triangle-up"),
    "held-out": Key("held-out", "held-out rows (never trained on)", PURPLE, (9, 3, 2, 3), "diamond"),
}
GAUSSIAN = Key("gaussian", "Gaussian denoiser, the best linear one, in supervision", BLACK, (4, 3))
BAND = Key("band", "10–90 % of paths", GREY, kind="band")
PATH = Key("path", "single paths", GREY, kind="thin")


@dataclass(frozen=True)
class Drawing:
    """What a chart's module returns.

    Attributes:
        title: The fact that its curves show, in words, computed from the numbers drawn.
        chart: Vega-Lite with its datasets, from `page.facets` or `page.grid`.
        table: The numbers drawn, as rows.
        legend: What the looks mean.
        width: Roughly, in pixels: where title and legend break when it travels alone.
    """

    title: str
    chart: Spec
    table: list[Row]
    legend: tuple[Key, ...]
    width: int = WIDTH


def model_keys(names: Sequence[str], light: str = "#F0A070", dark: str = "#8A3200") -> list[Key]:
    """Looks for models in one panel, from `light` for the first to `dark` for the last; dash and mark differ as well."""
    ends = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in (light, dark)], float)
    looks = [((2, 3), "circle"), ((7, 4), "triangle-up"), ((1, 0), "square"), ((10, 3), "diamond")]
    keys = []
    for k, name in enumerate(names):
        place = k / (len(names) - 1) if len(names) > 1 else 1.0
        tint = "#" + "".join(f"{round(c):02X}" for c in ends[0] + place * (ends[1] - ends[0]))
        dash, shape = looks[k % len(looks)] if len(names) > 1 else looks[2]
        keys.append(Key(name, name, tint, dash, shape))
    return keys


# ---- words --------------------------------------------------------------------------------------------------------------------


def words(value: float, digits: int = 3) -> str:
    """A value for reading: `digits` significant digits, a true minus sign."""
    if not math.isfinite(value):
        return "unknown"
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        text = f"{mantissa}·10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"
    return text.replace("-", "−")


def percent(share: float, signed: bool = False, digits: int | None = None) -> str:
    """A share as a percentage, with about two digits unless `digits` after the point are asked for."""
    value = 100 * share
    places = (0 if abs(value) >= 9.95 else 1) if digits is None else digits
    value = round(value, places) or 0.0  # no −0
    return f"{value:{'+' if signed and value else ''}.{places}f} %".replace("-", "−")


def each(phrases: Mapping[str, str]) -> str:
    """One number a model, in one sentence: "0.87 (small) and 0.88 (large)", or the one that all share, or the range of many."""
    if len(set(phrases.values())) == 1:
        return next(iter(phrases.values()))
    if len(phrases) > MOST_NAMED:
        ordered = sorted(phrases.values(), key=lambda phrase: float(re.sub(r"[^-.\d].*", "", phrase.replace("−", "-")) or math.inf))
        return f"{ordered[0]} to {ordered[-1]} ({len(phrases)} models)"
    named = [f"{phrase} ({model})" for model, phrase in phrases.items()]
    return f"{', '.join(named[:-1])} and {named[-1]}"


# ---- axes ---------------------------------------------------------------------------------------------------------------------


LEAST_TIME = 0.01  # where a logarithmic axis of t begins


def time_axis(field: str = "t", log: bool = False, clean: str = "image") -> alt.X:
    """The axis of t from 0 to 1 with its ends named, t = 0 by `clean`; or, logarithmic, from 0.01 to 1."""
    if log:
        label = f"datum.value == 1 ? ['1', 'noise'] : datum.value == 0.01 ? ['0.01', '{clean}'] : format(datum.value, '~g')"
        ticks = [LEAST_TIME, 0.02, 0.05, 0.1, 0.2, 0.5, 1]
        axis = alt.Axis(values=ticks, labelExpr=label, labelFlush=True, labelOverlap=False, title="time t, log  (← sampling runs)")
        return alt.X(f"{field}:Q", scale=alt.Scale(type="log", domain=[LEAST_TIME, 1], nice=False, clamp=True), axis=axis)
    label = f"datum.value == 0 ? ['0', '{clean}'] : datum.value == 1 ? ['1', 'noise'] : format(datum.value, '.1f')"
    axis = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], labelExpr=label, labelFlush=True, title="time t  (← sampling runs)")
    return alt.X(f"{field}:Q", scale=alt.Scale(domain=[0, 1], nice=False), axis=axis)


@dataclass(frozen=True)
class Vertical:
    """A vertical axis that all layers of a panel share.

    Attributes:
        low, high: Its ends.
        title: Words and unit; None in panels that repeat the axis of the one to their left.
        log: Whether it is logarithmic.
        floor: Whether smaller values are drawn at `low`, which the lowest tick then says.
        ends: Names of 0 and 1, if any.
    """

    low: float
    high: float
    title: str | None
    log: bool = False
    floor: bool = False
    ends: tuple[str, str] | None = None

    @classmethod
    def positive(cls, rows: Sequence[Row], title: str | None, decades: float = 6, fields: Sequence[str] = BAND_FIELDS) -> Vertical:
        """An axis for values that may be 0 or span decades: logarithmic and at most `decades` deep, or linear where all are 0."""
        values = np.array([row[f] for row in rows for f in fields if row.get(f) is not None], float)
        if not len(values) or values.max() <= 0:
            return cls(0, 1, title)
        high = float(values.max())
        lowest = 10.0 ** (math.ceil(math.log10(high)) - decades)
        if values.min() < lowest:
            return cls(lowest, high * 1.2, title, log=True, floor=True)
        return cls(float(values.min()) / 1.2, high * 1.2, title, log=True)

    def of(self, field: str) -> alt.Y:
        """The axis with `field` on it."""
        scale: dict[str, Any] = {"type": "log" if self.log else "linear", "domain": [self.low, self.high], "nice": False, "zero": False}
        axis: dict[str, Any]
        if self.log:
            scale.pop("zero")
            axis = {"values": self._ticks(), "labelExpr": self._log_labels(), "labelOverlap": False}
        else:
            axis = {"labelExpr": self._linear_labels(), "tickCount": 5}
        axis |= {"title": None, "labels": False, "ticks": False} if self.title is None else {"title": self.title, "minExtent": LABELS}
        return alt.Y(f"{field}:Q", scale=scale, axis=axis)

    def drawn(self, rows: Sequence[Row], fields: Sequence[str] = BAND_FIELDS) -> list[Row]:
        """The rows as drawn: values below a floor on it."""
        if not self.floor:
            return list(rows)
        return [{**row, **{f: max(row[f], self.low) for f in fields if row.get(f) is not None}} for row in rows]

    def holds(self, rows: Sequence[Row], fields: Sequence[str] = BAND_FIELDS) -> bool:
        """Whether all values lie between the ends: if so, marks need no clipping, which is what costs time in a picture."""
        return all(self.low <= row[f] <= self.high for row in rows for f in fields if row.get(f) is not None)

    def _ticks(self) -> list[float]:
        decades = math.log10(self.high / self.low)
        steps = (
            (1.0,)
            if decades > 3
            else (1.0, 3.0)
            if decades > 1.5
            else (1.0, 2.0, 5.0)
            if decades > 1
            else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
        )
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1, 2 if decades > 8 else 1)
        ticks = [float(f"{s * 10.0**p:.4g}") for p in powers for s in steps if self.low * 0.999 <= s * 10.0**p <= self.high * 1.001]
        return [self.low, *ticks] if self.floor and self.low not in ticks else ticks

    def _log_labels(self) -> str:
        plain = "format(datum.value, '~g')"
        return f"datum.value <= {self.low * 1.0001} ? '≤ ' + {plain} : {plain}" if self.floor else plain

    def _linear_labels(self) -> str:
        if self.ends is None:
            return "datum.label"
        return f"datum.value == 0 ? '{self.ends[0]} 0' : datum.value == 1 ? '{self.ends[1]} 1' : datum.label"


def repeated(y: Vertical, first: bool) -> Vertical:
    """The axis for a panel: without words where the panel to its left has them."""
    return y if first else replace(y, title=None)
