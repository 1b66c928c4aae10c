"""Panels to pages: widths, grids, the common style, and what a chart gets when it travels alone: title and legend."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import altair as alt

from scorescope.charts.grammar import FONT, WIDTH, Drawing, Key, Spec
from scorescope.charts.layers import panel

COLUMNS, LEFT, GAP = 3, 66, 18
CONFIG: dict[str, Any] = {
    "background": "white",
    "font": FONT,
    "view": {"stroke": "#C8C8C8"},
    "axis": {
        "labelFont": FONT,
        "titleFont": FONT,
        "labelFontSize": 11,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "gridColor": "#ECECEC",
        "tickColor": "#8A8A8A",
        "domainColor": "#8A8A8A",
        "labelColor": "#333333",
        "titleColor": "#222222",
    },
    "title": {
        "font": FONT,
        "fontSize": 13,
        "fontWeight": "bold",
        "color": "#111111",
        "subtitleFont": FONT,
        "subtitleFontSize": 11.5,
        "subtitleColor": "#333333",
        "anchor": "start",
        "frame": "group",
    },
    "text": {"font": FONT, "fontSize": 11},
}


def width_of(columns: int) -> int:
    """Width of a panel's plot where `columns` of them share the page."""
    return (WIDTH - LEFT - GAP * (columns - 1)) // columns - 6


def join(direction: str, parts: Iterable[Any], spacing: int, title: str = "") -> Spec:
    """Charts side by side ("hconcat") or one below the other ("vconcat"), as one spec.

    They are joined as plain dictionaries, because Altair copies all data once for each level of nesting. Each part was validated
    when it was made.
    """
    bodies: list[Spec] = []
    shared: Spec = {}
    for part in parts:
        body = dict(part) if isinstance(part, dict) else part.to_dict(validate=False)
        shared.setdefault("datasets", {}).update(body.pop("datasets", {}))
        if "params" in body:
            shared["params"] = body.pop("params")
        bodies.append({name: value for name, value in body.items() if name not in ("$schema", "config")})
    return {direction: bodies, "spacing": spacing, **({"title": title} if title else {}), **shared}


def grid(lines: Sequence[Sequence[Any]]) -> Spec:
    """Rows of panels."""
    return join("vconcat", [join("hconcat", line, GAP) for line in lines], 20)


def facets(names: Sequence[str], kinds: Sequence[Callable[[str, int, bool], Any]], side_by_side: bool = True) -> Spec:
    """One panel of every kind for every model.

    A single model has its kinds side by side (or stacked); several have one column each, three to a line, and a line for each kind.

    Args:
        names: The models.
        kinds: Each draws a panel, given the model, the width, and whether it is the first of its line and so carries the axis title.
        side_by_side: How a single model's kinds are laid.
    """
    if len(names) == 1:
        width = width_of(len(kinds) if side_by_side else 1)
        panels = [kind(names[0], width, True) for kind in kinds]
        return grid([panels] if side_by_side else [[p] for p in panels])
    lines = []
    columns = min(COLUMNS, len(names))
    for start in range(0, len(names), columns):
        some = names[start : start + columns]
        for k, kind in enumerate(kinds):
            line = [kind(model, width_of(columns), place == 0) for place, model in enumerate(some)]
            lines.append([p.properties(title=model) if k == 0 else p for p, model in zip(line, some, strict=True)])
    return grid(lines)


def spec(drawing: Drawing, description: str) -> Spec:
    """The chart without title and legend; `description` is what a screen reader says."""
    return {"$schema": alt.SCHEMA_URL, "description": description, "config": CONFIG, **drawing.chart}


def standalone(drawing: Drawing, description: str) -> Spec:
    """The chart with its title and legend, for a file that is looked at alone."""
    longest = drawing.width // 8
    whole = re.sub(r"(?<=[=\d]) (?=[\d%−])| (?==)", "\u00a0", drawing.title)  # "t = 0.87" and "1 %" stay on one line
    lines = textwrap.wrap(whole, min(longest, len(whole) // -(-len(whole) // longest) + 10))
    title = {"text": lines, "anchor": "start", "fontSize": 15, "offset": 12, "frame": "bounds"}
    made = join("vconcat", [*_legend(drawing.legend, drawing.width), drawing.chart], 12)
    return {"$schema": alt.SCHEMA_URL, "description": description, "config": CONFIG, "title": title, **made}


def _legend(keys: Sequence[Key], width: int) -> list[Any]:
    """The legend as a strip of signs and words, broken into lines of at most the full width."""
    if not keys:
        return []
    layers: list[Any] = []
    x, y = 0.0, 9.0
    for key in keys:
        length = 40 + 5.7 * len(key.label)
        if x and x + length > width - LEFT + 20:
            x, y = 0.0, y + 18
        layers += _entry(key, x, y)
        x += length + 12
    return [alt.layer(*layers).properties(width=width - LEFT, height=y + 9, view=alt.ViewBackground(stroke=None))]


def _entry(key: Key, x: float, y: float) -> list[Any]:
    here = panel([{"x": x, "end": x + 30, "middle": x + 15, "words": x + 36, "y": y, "top": y - 5, "bottom": y + 5, "label": key.label}])

    def across(field: str) -> alt.X:
        return alt.X(f"{field}:Q", scale=None, axis=None)

    def down(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", scale=None, axis=None)

    text = here.mark_text(align="left", baseline="middle", color="#222222", aria=False).encode(
        x=across("words"), y=down("y"), text="label:N"
    )
    if key.kind in ("band", "bar"):
        box = here.mark_rect(color=key.colour, opacity=1, fillOpacity=0.25 if key.kind == "band" else 0.8, aria=False)
        return [box.encode(x=across("x"), x2="end:Q", y=down("top"), y2="bottom:Q"), text]
    line = here.mark_rule(color=key.colour, strokeWidth=0.8 if key.kind == "thin" else 2, strokeDash=list(key.dash), aria=False)
    signs = [line.encode(x=across("x"), x2="end:Q", y=down("y"))]
    if key.shape:
        mark = here.mark_point(filled=True, size=38, opacity=1, color=key.colour, shape=key.shape, aria=False)
        signs.append(mark.encode(x=across("middle"), y=down("y")))
    return [*signs, text]
