"""Fig. 1b: how far states lie from the training shells, in full and close to 1."""

from __future__ import annotations

import math
from typing import Any

import altair as alt
import numpy as np
import xarray as xr

from scorescope.charts.grammar import PATH, Drawing, Vertical, each, repeated
from scorescope.charts.layers import colour, curves, note, panel, rule, scrub_rule, scrub_signal, strip, time_axis
from scorescope.charts.page import facets
from scorescope.charts.tables import bands, cut, region_keys, single_paths
from scorescope.results import dimension, models
from scorescope.statistics import chi_band, leaving_bracket, proposition_band

NAME = "Distance from the training shells (Fig. 1b)"
ORDER = 10
NEEDS = ("r_star",)
ALSO = ("left_outside", "left_inside")
CAPTION = (
    "r* is a state's distance from the training image that it fits best, over the radius of that image's shell (Eq. 4); 1 is on a shell. "
    "The first panel shows all of it, the second what is close to 1, with the band that holds 99 % of fresh noise. "
    "Proposition 3.2's band holds as well, but at δ = 0.01 it reaches from 0 to 3.15 and excludes next to nothing.",
    "A copier's sampling paths would stay inside the band until they end on a training image.",
    "A generalizer's sampling paths leave the band and end far from it, while noised training images stay inside.",
)


def draw(results: xr.Dataset) -> Drawing:
    """Two panels a model, log and linear."""
    rows, paths = bands(results["r_star"]), single_paths(results["r_star"])
    keys = region_keys(rows)
    low, high = chi_band(dimension(results))
    full = full_axis(results)
    near = Vertical(min(0.9, 1 - 1.5 * (1 - low)), max(1.2, 1 + 1.5 * (high - 1)), "r*, close to 1 (linear)")

    def lines(y: Vertical, model: str) -> list[Any]:
        inside = paths if y.holds(paths, ["value"]) else cut(paths, y.low, y.high, "value", ("model", "region", "path"))
        shown = panel(inside, model).mark_line(strokeWidth=0.7, strokeOpacity=0.3, aria=False)
        inks = {"color": colour(keys, "region"), "detail": "path:N"}
        return [shown.encode(x=time_axis(), y=y.of("value"), **inks), *curves(rows, keys, y, model=model, band=False)]

    def whole(model: str, width: int, first: bool) -> Any:
        y, bound = repeated(full, first), proposition_band()[1]
        words = note("Proposition 3.2 (vacuous)" if width < 250 else PROPOSITION, bound, y, right=True)
        return alt.layer(strip(low, high, y), rule(bound, y), *lines(y, model), *words, scrub_rule()).properties(width=width, height=230)

    def close(model: str, width: int, first: bool) -> Any:
        y = repeated(near, first)
        theory = [strip(low, high, y), rule(high, y, dash=(1, 0)), rule(low, y, dash=(1, 0))]
        words = note(f"exact 99 % χ band: {low:.3f}–{high:.3f}", low, y, above=False)
        return alt.layer(*theory, *lines(y, model), *words, scrub_rule()).properties(width=width, height=230)

    chart = facets(models(results), [whole, close]) | scrub_signal()
    return Drawing(fact(results), chart, rows, (*keys, PATH))


PROPOSITION = "Proposition 3.2's bound, 3.15 at δ = 0.01 (vacuous)"


def full_axis(results: xr.Dataset) -> Vertical:
    """The log axis that holds every path and both bands."""
    values = results["r_star"].values
    values = values[np.isfinite(values) & (values > 0)]
    low = float(values.min(initial=chi_band(dimension(results))[0])) / 1.08
    high = max(float(values.max(initial=0)) * 1.1, 1.35 * proposition_band()[1])
    return Vertical(low, high, "r* (ratio of Eq. 4, log)", log=True)


def fact(results: xr.Dataset) -> str:
    """Where sampling leaves the band: the sentence above the curve."""
    values = results["r_star"]
    if "extrapolation" not in values["region"].values or not values.sel(region="extrapolation").notnull().any():
        return "Noised training images lie on the training shells"
    time, middles = results["time"].values, {}
    for m in models(results):
        part = results.sel(model=m)
        if {"left_outside", "left_inside"} <= set(results.data_vars):
            ends = part["left_outside"].values, part["left_inside"].values
        else:
            sampled = part["r_star"].sel(region="extrapolation").transpose("path", "time").values
            ends = leaving_bracket(sampled, time, chi_band(dimension(results)))
        count = int(np.isfinite(ends[0]).sum())
        middles[m] = float(np.nanmedian(ends[0]) + np.nanmedian(ends[1])) / 2 if count else math.nan
    known = {m: t for m, t in middles.items() if math.isfinite(t)}
    if all(t <= time[0] for t in known.values()):
        return "Sampling stays on the training shells to the end"
    said = {m: f"{t:.2f}" if t > time[0] else "never" for m, t in known.items()}
    return f"Sampling leaves the training shells at t = {each(said)} (median of {count} {'path' if count == 1 else 'paths'})"
