"""The layers that panels are made of: curves with their bands, marks and hover strips, and what theory says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import altair as alt

from scorescope.charts.grammar import BAND_FIELDS, BLACK, Key, Row, Spec, Vertical, repeated, time_axis
from scorescope.charts.tables import csv_text, cut, number, thinned, told


def data(rows: Iterable[Row]) -> alt.InlineData:
    """Rows as inline data: CSV in one string, which names each column once, and which panels with the same rows share in the file."""
    rows = list(rows)
    if not rows or not rows[0]:
        return alt.InlineData(values=rows)
    kinds = {name: "string" if any(isinstance(row.get(name), str) for row in rows) else "number" for name in rows[0]}
    return alt.InlineData(values=csv_text(rows), format={"type": "csv", "parse": kinds})


def panel(rows: Iterable[Row], model: str | None = None) -> Any:
    """A chart of `rows`, of one model where one is named: panels given the same rows share them in the file."""
    chart = alt.Chart(data(rows))
    return chart if model is None else chart.transform_filter(alt.datum.model == model)


def colour(keys: Sequence[Key], field: str) -> alt.Color:
    """The keys' colours."""
    return alt.Color(f"{field}:N", scale=alt.Scale(domain=[k.name for k in keys], range=[k.colour for k in keys]), legend=None)


def dashes(keys: Sequence[Key], field: str) -> alt.StrokeDash:
    """The keys' dashes."""
    looks: list[Any] = [list(k.dash) for k in keys]
    return alt.StrokeDash(f"{field}:N", scale=alt.Scale(domain=[k.name for k in keys], range=looks), legend=None)


def curves(
    rows: Sequence[Row],
    keys: Sequence[Key],
    y: Vertical,
    *,
    field: str = "region",
    model: str | None = None,
    band: bool = True,
    log_time: bool = False,
) -> list[Any]:
    """Layers of one panel: bands, medians and marks of every key, and at every time a hover strip that tells all of them in words.

    Args:
        rows: With "t", "median", "low", "high" and `field`, of all models.
        keys: Looks of the curves; ones that `rows` lack do no harm.
        y: The axis.
        field: What tells curves apart.
        model: Of this panel; None where `rows` have one model, or `field` is the model.
        band: Whether "low" to "high" is filled.
        log_time: Whether t is on a logarithmic axis.
    """
    x, tint, drawn = time_axis(log=log_time), colour(keys, field), y.drawn(rows)
    layers, clip = [], not y.holds(drawn, BAND_FIELDS if band else ("median",))
    if band:
        area = panel(drawn, model).mark_area(opacity=1, fillOpacity=0.18, aria=False, clip=clip)
        layers.append(area.encode(x=x, y=y.of("low"), y2="high:Q", color=tint))
    held = y.holds(drawn, ("median",))
    line = panel(drawn if held else cut(drawn, y.low, y.high, "median", ("model", field)), model).mark_line(strokeWidth=2, aria=False)
    layers.append(line.encode(x=x, y=y.of("median"), color=tint, strokeDash=dashes(keys, field)))
    if marked := [k for k in keys if k.shape]:
        names = [k.name for k in marked]
        few = [r for r in thinned([r for r in drawn if r[field] in names], field) if y.low <= r["median"] <= y.high]
        points = panel(few, model).mark_point(filled=True, size=38, opacity=1, aria=False)
        form = alt.Shape(f"{field}:N", scale=alt.Scale(domain=names, range=[k.shape for k in marked]), legend=None)
        layers.append(points.encode(x=x, y=y.of("median"), color=tint, shape=form))
    return [*layers, _hover(rows, [k for k in keys if any(row[field] == k.name for row in rows)], field, model, log_time)]


def curve_panel(
    rows: Sequence[Row], keys: Sequence[Key], y: Vertical, height: int, *, field: str = "region", band: bool = True
) -> Callable[[str, int, bool], Any]:
    """A kind of panel for `page.facets`, of curves alone: arguments as of `curves`."""

    def panel(model: str, width: int, first: bool) -> Any:
        layers = curves(rows, keys, repeated(y, first), model=model, field=field, band=band)
        return alt.layer(*layers).properties(width=width, height=height)

    return panel


def _hover(rows: Sequence[Row], keys: Sequence[Key], field: str, model: str | None, log_time: bool) -> Any:
    words = [alt.Tooltip("t:Q", title="time t"), *(alt.Tooltip(f"c{n}:N", title=k.label) for n, k in enumerate(keys))]
    strips = panel(told(rows, field, [k.name for k in keys]), model).mark_rect(opacity=1, fillOpacity=0, aria=False)
    return strips.encode(x=time_axis("from", log_time), x2="to:Q", tooltip=words)


def rule(at: float, y: Vertical, dash: tuple[float, float] = (4, 3)) -> Any:
    """A horizontal line of theory."""
    return panel([{"y": number(at)}]).mark_rule(color=BLACK, strokeDash=list(dash), aria=False).encode(y=y.of("y"))


def note(text: str, at: float, y: Vertical, above: bool = True, right: bool = False) -> list[Any]:
    """Words at a line of theory, on a white halo: lay them over the curves."""
    here = panel([{"y": number(at), "text": text, "t": 0.985 if right else 0.015}])
    place: dict[str, Any] = {"align": "right" if right else "left", "baseline": "bottom" if above else "top", "dy": -4 if above else 4}
    places: dict[str, Any] = {"x": time_axis(), "y": y.of("y"), "text": alt.Text("text:N")}
    looks: list[dict[str, Any]] = [{"color": "white", "stroke": "white", "strokeWidth": 4, "strokeOpacity": 0.85}, {"color": BLACK}]
    return [here.mark_text(aria=False, **place, **look).encode(**places) for look in looks]


def strip(low: float, high: float, y: Vertical) -> Any:
    """A grey horizontal band of theory."""
    here = panel([{"low": number(max(low, y.low)), "high": number(min(high, y.high))}])
    return here.mark_rect(color=BLACK, opacity=1, fillOpacity=0.12, aria=False).encode(y=y.of("low"), y2="high:Q")


def scrub_rule() -> Any:
    """A vertical rule at the signal `scrub_t`, hidden while that is below 0."""
    line = panel([{}]).transform_calculate(t="scrub_t").transform_filter("scrub_t >= 0")
    return line.mark_rule(color=BLACK, strokeWidth=1.5, aria=False).encode(x=time_axis())


def scrub_signal() -> Spec:
    """The signal that a page sets (`view.signal("scrub_t", t).run()`) to show where on a trajectory it is looking."""
    return {"params": [{"name": "scrub_t", "value": -1}]}
