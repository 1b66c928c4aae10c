"""Panels to pages: widths, grids, the common style."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import altair as alt

from scorescope.charts.grammar import FONT, WIDTH, Drawing, Spec

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
