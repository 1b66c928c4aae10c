"""Fig. 1b in the size of a stamp, of one model, for the first screen."""

from __future__ import annotations

import altair as alt
import xarray as xr

from scorescope.charts import r_star
from scorescope.charts.grammar import BAND, Drawing
from scorescope.charts.layers import curves, scrub_rule, scrub_signal, strip
from scorescope.charts.page import grid
from scorescope.charts.tables import bands, region_keys
from scorescope.results import dimension, largest
from scorescope.statistics import chi_band

NAME = "Distance from the training shells, small (Fig. 1b)"
ORDER = 5
NEEDS = ("r_star",)
CAPTION = (
    "Distance from the nearest training shell, r* (Eq. 4), against t; the grey strip at 1 holds 99 % of fresh noise.",
    "A copier's sampling paths would stay in the strip.",
    "A generalizer's sampling paths leave the strip.",
)


def draw(results: xr.Dataset) -> Drawing:
    """One log panel with medians and bands."""
    model = largest(results)
    one = results.sel(model=[model])
    rows = bands(one["r_star"])
    keys = region_keys(rows)
    y = r_star.full_axis(one)
    layers = [strip(*chi_band(dimension(results)), y), *curves(rows, keys, y), scrub_rule()]
    chart = grid([[alt.layer(*layers).properties(width=330, height=180)]]) | scrub_signal()
    fact = r_star.fact(one)
    title = f"{model}: {fact[0].lower()}{fact[1:]}" if results.sizes["model"] > 1 else fact
    return Drawing(title, chart, rows, (*keys, BAND), width=420)
