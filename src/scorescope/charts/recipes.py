"""Fig. 7: score against supervision loss, a line a recipe; beside it supervision loss against compute; of tables of `scorescope.recipes`.

A table is a line of two panels. Several tables, by title, are one below the other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import xarray as xr

from scorescope import recipes
from scorescope.charts.grammar import BLACK, GREY, Drawing, Key, Row, Vertical, model_keys
from scorescope.charts.layers import colour, dashes, panel, rule
from scorescope.charts.page import grid, width_of
from scorescope.charts.tables import number
from scorescope.claims.claim import Finding, Verdict
from scorescope.errors import InputError
from scorescope.recipes.lines import Line
from scorescope.statistics import Estimate

STEPS = 40  # of a curve
SIZES = (50, 320)  # areas of the marks, least and most compute
WIDE = 2.0  # largest over smallest value up to which an axis stays linear: a logarithmic one would have hardly a tick
NAMED = 12  # runs up to which each mark has its name
CAPTION = (
    "Each mark is a run, larger for more training compute; bars are 95 % intervals, over training pairs and over samples. Lines are fitted "
    "to each recipe's runs, of the score or of its logarithm, whichever is straighter over all, and end where its runs do. The grey strip "
    "is the range of losses that all lines share. Left, the lower line extrapolates better at equal loss; right, it fits better at equal "
    "compute."
)


def draw(tables: Mapping[str, xr.Dataset], title: str = "") -> Drawing:
    """Two panels a table, by its title; the second only where compute is known.

    Args:
        tables: By what stands above their panels; empty for nothing.
        title: What the figure shows; said by the tables themselves unless given.
    """
    rows: list[Row] = []
    lines: list[list[Any]] = []
    recipe_names = list(dict.fromkeys(name for runs in tables.values() for name in recipes.names(runs)))
    keys = model_keys(recipe_names, "#56B4E9", "#7A1F5C") if len(recipe_names) > 1 else model_keys(recipe_names)
    floors = False
    for name, runs in tables.items():
        here = _rows(runs)
        rows += [{"table": name, **row} for row in here] if len(tables) > 1 else here
        known = any(row["compute"] is not None for row in here)
        width = width_of(2) - 10 if known else width_of(1) - 60
        floors |= _floor(runs) is not None
        panels = [_score_panel(runs, here, keys, width, name)]
        lines.append([*panels, _compute_panel(runs, here, keys, width)] if known else panels)
    barred = any(row["score_low"] is not None for row in rows)
    legend = [*keys, *([Key("bars", "95 % intervals", GREY, kind="thin")] if barred else [])]
    if len({row["compute"] for row in rows} - {None}) > 1:
        legend.append(Key("size", "the larger, the more training compute", GREY, (0, 99), "circle"))
    legend += [Key("floor", "real rows against real rows", BLACK, (4, 3))] if floors else []
    shared = any(_common(runs) is not None for runs in tables.values())
    legend += [Key("common", "losses that all recipes have", BLACK, kind="band")] if shared else []
    return Drawing(title or _fact(tables), grid(lines), rows, tuple(legend))


def _fact(tables: Mapping[str, xr.Dataset]) -> str:
    """The most that tables say: which recipe extrapolates better, of several tables a word each; else what is straight, or the slope."""
    if len(tables) > 1:
        most = [_told(runs) for runs in tables.values()]
        return _begun("; ".join(one.judged.says for one in most if one)) or "Nothing can be told"
    said = [one for runs in tables.values() for one in recipes.findings(runs)]
    two = [one for one in said if one.claim.name == "extrapolates"]
    told = [one for one in said if one.judged.verdict in (Verdict.SUPPORTED, Verdict.CONTRADICTED)]
    if two or told:
        return _begun((two or told)[0].text)
    runs = next(iter(tables.values()))
    return recipes.described(runs, recipes.usable(runs)[0])


def _told(runs: xr.Dataset) -> Finding | None:
    """Of a table the first comparison at equal loss that can be told, else the first."""
    two = [one for one in recipes.findings(runs) if one.claim.name == "extrapolates"]
    told = [one for one in two if one.judged.verdict in (Verdict.SUPPORTED, Verdict.CONTRADICTED)]
    return next(iter(told or two), None)


def _begun(text: str) -> str:
    """A sentence that may begin in the middle; else it begins with a recipe's name."""
    return f"W{text[1:]}" if text.startswith(("which ", "whether ")) else text


def _rows(runs: xr.Dataset) -> list[Row]:
    found = []
    for k in range(runs.sizes["run"]):
        one = runs.isel(run=k)
        row: Row = {"recipe": str(one["recipe"].values), "name": str(one["name"].values)}
        for name in ("loss", "score"):
            row |= dict(zip((name, f"{name}_low", f"{name}_high"), map(number, interval(one, name), (5, 5, 5)), strict=True))
        found.append(row | {"compute": number(one["compute"])})
    return found


def interval(run: xr.Dataset, name: str) -> Estimate:
    """A run's loss or score with the 95 % interval of its draws; NaN ends without draws."""
    value = float(run[name])
    if f"{name}_draw" not in run:
        return Estimate(value, math.nan, math.nan)
    return Estimate(value, *(float(v) for v in np.quantile(run[f"{name}_draw"].values, [0.025, 0.975])))


def _floor(runs: xr.Dataset) -> float | None:
    return number(runs["floor"]) if "floor" in runs else None


def _common(runs: xr.Dataset) -> tuple[float, float] | None:
    """The range of losses that all lines share, where there are several."""
    own = [recipes.line(runs, name, False) for name in recipes.usable(runs)]
    low, high = max(one.low for one in own), min(one.high for one in own)
    return (low, high) if len(own) > 1 and low < high else None


def _span(values: list[float], log: bool, share: float = 0.08) -> tuple[float, float]:
    """An axis around values, a little wider."""
    low, high = min(values), max(values)
    if log:
        factor = (high / low) ** share if high > low else 1.2
        return low / factor, high * factor
    margin = share * (high - low) or 0.1 * abs(high) or 1.0
    return low - margin, high + margin


def _vertical(values: list[float], title: str, log: bool) -> Vertical:
    """The axis of a score or a loss; logarithmic where that is asked for and makes a difference."""
    log = log and max(values) > WIDE * min(values)
    return Vertical(*_span(values, log), f"{title}{', log' if log else ''}  (lower is better)", log=log)


def _ends(rows: list[Row], name: str, log: bool) -> list[float]:
    found = [row[field] for row in rows for field in (name, f"{name}_low", f"{name}_high") if row.get(field) is not None]
    return [value for value in found if value > 0 or not log]


def _score_panel(runs: xr.Dataset, rows: list[Row], keys: list[Key], width: int, name: str) -> Any:
    log, floor = recipes.logarithmic(runs), _floor(runs)
    y = _vertical([*_ends(rows, "score", log), *([] if floor is None else [floor])], runs.attrs["score"], log)
    low, high = _span(_ends(rows, "loss", False), False, 0.15 if len(rows) <= NAMED else 0.08)
    axis = alt.Axis(title=f"{runs.attrs['loss']}  (← better fit)", tickCount=5)

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", scale=alt.Scale(domain=[low, high], nice=False, zero=False), axis=axis)

    curves = []
    for recipe in recipes.usable(runs):
        curves += _curve(recipe, recipes.line(runs, recipe, log), False, log)
    layers = []
    if (common := _common(runs)) is not None:
        strip = panel([{"low": common[0], "high": common[1]}]).mark_rect(color=BLACK, opacity=1, fillOpacity=0.07, aria=False)
        layers.append(strip.encode(x=x("low"), x2="high:Q"))
    layers += [] if floor is None else [rule(floor, y)]
    layers += _marks(rows, curves, keys, x, y, "loss", "score")
    return alt.layer(*layers).properties(
        width=width, height=270, title=alt.TitleParams(name or f"loss → {runs.attrs['score']}: extrapolation", color=BLACK)
    )


def _compute_panel(runs: xr.Dataset, rows: list[Row], keys: list[Key], width: int) -> Any:
    rows = [row for row in rows if row["compute"] is not None]
    y = _vertical(_ends(rows, "loss", True), runs.attrs["loss"], True)
    low, high = _span([row["compute"] for row in rows], True, 0.2 if len(rows) <= NAMED else 0.08)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5) if low <= step * 10.0**power <= high]
    axis = alt.Axis(title="training compute (FLOP, log)", format=".0e", labelOverlap="greedy", values=ticks)

    def x(field: str) -> alt.X:
        return alt.X(f"{field}:Q", scale=alt.Scale(type="log", domain=[low, high], nice=False), axis=axis)

    curves = []
    for recipe in recipes.names(runs):
        try:
            curves += _curve(recipe, recipes.efficiency(runs, recipe), True, True)
        except InputError:  # too few runs of different compute: marks alone
            continue
    layers = _marks(rows, curves, keys, x, y, "compute", "loss")
    return alt.layer(*layers).properties(width=width, height=270, title=alt.TitleParams("compute → loss: supervision", color=BLACK))


def _curve(recipe: str, line: Line, log_x: bool, log_y: bool) -> list[Row]:
    """A line between the ends of its points, in the units of the axes."""
    at = np.linspace(line.low, line.high, STEPS)
    heights = line.height + line.slope * (at - line.centre)
    pairs = zip(np.exp(at) if log_x else at, np.exp(heights) if log_y else heights, strict=True)
    return [{"recipe": recipe, "x": number(a, 6), "y": number(b, 6)} for a, b in pairs]


def _marks(rows: list[Row], curves: list[Row], keys: list[Key], x: Any, y: Vertical, across: str, up: str) -> list[Any]:
    """Lines, bars, marks and names."""
    tint = colour(keys, "recipe")
    form = alt.Shape("recipe:N", scale=alt.Scale(domain=[k.name for k in keys], range=[k.shape for k in keys]), legend=None)
    layers = []
    if curves:
        drawn = panel(curves).mark_line(strokeWidth=2, aria=False, clip=True)
        layers.append(drawn.encode(x=x("x"), y=y.of("y"), color=tint, strokeDash=dashes(keys, "recipe")))
    for name, ends in ((across, True), (up, False)):
        barred = [row for row in rows if row.get(f"{name}_low") is not None]
        if barred:
            low, high = x(f"{name}_low") if ends else x(across), f"{name}_high:Q"
            bars = panel(barred).mark_rule(strokeWidth=1.4, strokeOpacity=0.8, aria=False, clip=True)
            layers.append(
                bars.encode(x=low, x2=high, y=y.of(up), color=tint)
                if ends
                else bars.encode(x=low, y=y.of(f"{name}_low"), y2=high, color=tint)
            )
    known = sorted({row["compute"] for row in rows if row["compute"] is not None})
    size: dict[str, Any] = {}
    if len(known) > 1:
        size = {"size": alt.Size("compute:Q", scale=alt.Scale(type="log", domain=[known[0], known[-1]], range=list(SIZES)), legend=None)}
    told = [alt.Tooltip("recipe:N"), alt.Tooltip("name:N", title="run"), alt.Tooltip("loss:Q"), alt.Tooltip("score:Q"),
            alt.Tooltip("compute:Q", title="training compute (FLOP)", format=".3g")]  # fmt: skip
    marks = panel(rows).mark_point(filled=True, opacity=1, stroke="white", strokeWidth=0.7, **({} if size else {"size": 90}))
    layers.append(marks.encode(x=x(across), y=y.of(up), color=tint, shape=form, tooltip=told, **size))
    if len(rows) <= NAMED:
        names = panel(rows).mark_text(align="left", baseline="top", dx=10, dy=5, color="#333333", aria=False)
        layers.append(names.encode(x=x(across), y=y.of(up), text="name:N"))
    return layers
