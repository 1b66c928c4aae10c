"""Fig. 1b (C.3): the relative distance to the training shells, in training and along sampling."""

from __future__ import annotations

from typing import Any

import altair as alt
import xarray as xr

from scorescope.charts import r_star
from scorescope.charts.grammar import BLACK, REGIONS, Drawing, Key, Vertical
from scorescope.charts.layers import colour, note, panel, rule, strip, time_axis
from scorescope.charts.page import grid, width_of
from scorescope.charts.tables import cut, single_paths
from scorescope.experiments.examined import cell, only, reading
from scorescope.experiments.experiment import Cell, Experiment
from scorescope.experiments.shipped import LOOKS, SETTING, about, make, trainings
from scorescope.results import dimension, largest
from scorescope.statistics import chi_band

LINES = 100
BAND = Key("band", "99 % of fresh noise (exact χ band)", BLACK, kind="band")


def cells(scale: str) -> list[Cell]:
    """One examination."""
    probes = ("relative-distance", "leaving", "score-error")
    return [cell(LOOKS[scale](probes), make, ("r_star", "left_outside", "left_inside", "label"), about(scale))]


def draw(results: xr.Dataset) -> Drawing:
    """Every path of the largest network as a line (C.3), in full and close to 1."""
    part = results.sel(model=[largest(results)], region=["supervision", "extrapolation"])
    keys = [REGIONS["extrapolation"], REGIONS["supervision"]]
    rows = single_paths(part["r_star"], LINES)
    low, high = chi_band(dimension(results))
    near = Vertical(min(0.9, 1 - 1.5 * (1 - low)), max(1.2, 1 + 1.5 * (high - 1)), "r*, close to 1 (linear)")

    def lines(y: Vertical, title: str, *words: Any) -> Any:
        inside = cut(rows, y.low, y.high, "value", ("region", "path"))
        layers = [
            panel([row for row in inside if row["region"] == key.name])
            .mark_line(strokeWidth=0.7, strokeOpacity=0.35, aria=False)
            .encode(x=time_axis(), y=y.of("value"), color=colour(keys, "region"), detail="path:N")
            for key in keys
        ]
        return alt.layer(strip(low, high, y), rule(low, y), rule(high, y), *layers, *words).properties(
            width=width_of(2), height=260, title=title
        )

    band = note(f"{low:.3f}–{high:.3f}", low, near, above=False)
    chart = grid([[lines(r_star.full_axis(part), f"{part['model'].values[0]}: all of it"), lines(near, "close to the shells", *band)]])
    legend = tuple(Key(key.name, key.label, key.colour) for key in reversed(keys))
    return Drawing(r_star.fact(results), chart, rows, (*legend, BAND))


EXPERIMENT = Experiment(
    "fig1b",
    10,
    "Distance from the training shells (Fig. 1b, C.3)",
    "Where do states lie that training shows, and where those that sampling goes through?",
    "Training states lie on the shells, r* = 1, at every t; sampling leaves them early and for good, since the model does not follow the "
    "empirical score there.",
    SETTING,
    cells,
    only,
    draw,
    "r* is a state's distance from the training image that it fits best, over the radius of that image's shell (Eq. 4); 1 is on a shell. "
    f"Up to {LINES} noised training images and as many sampling paths of the largest network, each a line.",
    (reading("leaves", "r* leaves 1 within the first steps of sampling (ImageNet latents, d = 4,096; Fig. 1b)"),),
    {
        "desk": "In 784 dimensions the band of the shells is wider than in the paper's 4,096 (1 ± 0.065 for 1 ± 0.028), so that a path "
        "that ends as far from every row is outside it later. Other data were not tried.",
    },
    trainings=trainings,
)
