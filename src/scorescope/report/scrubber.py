"""A trajectory that one can scrub through t: state, the model's mean, the exact mean and the nearest row, with three numbers each time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from scorescope.report.pictures import Painter, Rows
from scorescope.results import row_number

BUDGET = 900_000  # bytes of sprites in all
STOPS = 25  # times that one can scrub through
STILLS = 5  # fixed times that stand in print and without script
NUMBERS = ("r_star", "top_weight", "ess")
PICTURES = ("scrub_state", "scrub_model_mean", "scrub_truth_mean")


def kept(results: xr.Dataset) -> bool:
    """Whether the run kept trajectories that can be looked at."""
    if not {"path", "region"} <= set(results.dims) or not {"scrub_path", *PICTURES} <= set(results):
        return False
    known = set(results["scrub_path"].values) <= set(results["path"].values) and "extrapolation" in results["region"].values
    return known and results[PICTURES[0]].size > 0


def data(results: xr.Dataset, rows: Rows, paint: Painter) -> dict[str, Any] | None:
    """What the page's script needs, None where no trajectory was kept. Values are rounded; pictures are sprites, one row a kind."""
    if not kept(results):
        return None
    results = results.isel(time=np.unique(np.linspace(0, results.sizes["time"] - 1, STOPS).round().astype(int)))
    paint, count = fitting(results, paint)
    nearest, order = _nearest(results, rows, count)
    paths = []
    for model in results["model"].values:
        for place in range(count):
            pictures = [list(results[name].sel(model=model).values[place]) for name in PICTURES]
            paths.append({"model": str(model), **_numbers(results, str(model), place, rows, order), "sprite": paint.sprite(pictures)})
    width, height = paint.size
    return {
        "times": [float(f"{t:.4g}") for t in results["time"].values],
        "models": [str(name) for name in results["model"].values],
        "paths": paths,
        "nearest": paint.sprite([nearest]) if nearest else "",
        "width": width,
        "height": height,
        "pixelated": paint.pixelated,
    }


def fitting(results: xr.Dataset, paint: Painter) -> tuple[Painter, int]:
    """The painter and the number of paths of each model that keep the sprites within the budget: fewer paths first, then smaller tiles."""
    count = int(results.sizes["scrub"])
    tiles = 3 * results.sizes["time"] * results.sizes["model"]
    for edge in (paint.edge, 64, 48, 32):
        smaller = Painter(paint.shape, paint.low, paint.high, min(edge, paint.edge))
        paths = min(count, int(BUDGET / (tiles * smaller.weight)))
        if paths:
            return smaller, paths
    return smaller, 1


def _path(results: xr.Dataset, place: int) -> int:
    return int(np.flatnonzero(results["path"].values == results["scrub_path"].values[place])[0])


def _nearest(results: xr.Dataset, rows: Rows, count: int) -> tuple[list[np.ndarray], dict[int, int]]:
    """The rows that are nearest at some time of a path shown, and the place of each in their sprite."""
    if "top_index" not in results:
        return [], {}
    at = [_path(results, place) for place in range(count)]
    wanted = np.unique(results["top_index"].sel(region="extrapolation").values[:, at])
    pictures = {int(index): rows.values(int(index)) for index in wanted}
    known = {index: picture for index, picture in pictures.items() if picture is not None}
    return list(known.values()), {index: place for place, index in enumerate(known)}


def _numbers(results: xr.Dataset, model: str, place: int, rows: Rows, order: dict[int, int]) -> dict[str, Any]:
    at = _path(results, place)
    part = results.sel(model=model, region="extrapolation").isel(path=at)
    found: dict[str, Any] = {"path": int(results["path"].values[at])}
    found["label"] = rows.name(int(part["label"])) if "label" in part else ""
    for name in NUMBERS:
        if name in part:
            found[name] = [float(f"{v:.4g}") if math.isfinite(v) else None for v in part[name].values]
    if "top_index" in part:
        index = [int(i) for i in part["top_index"].values]
        found["row"] = [row_number(results, i) for i in index]
        found["row_label"] = [rows.label(i) for i in index]
        found["place"] = [order.get(i, -1) for i in index]
    return found


def _words(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def stills(results: xr.Dataset, model: str, rows: Rows, paint: Painter) -> list[dict[str, Any]]:
    """The first path at five fixed times, for print and for readers without script; none where no trajectory was kept."""
    if not kept(results):
        return []
    time, at = results["time"].values, _path(results, 0)
    part = results.sel(model=model)
    found = []
    for k in sorted({int(k) for k in np.linspace(len(time) - 1, 0, STILLS).round()}, reverse=True):
        pictures = [part[name].values[0, k] for name in PICTURES]
        here = part.sel(region="extrapolation").isel(path=at, time=k)
        index = int(here["top_index"]) if "top_index" in here else -1
        found.append(
            {
                "t": f"{time[k]:.2f}",
                "uris": [*(paint.uri(picture) for picture in pictures), rows.uri(index)],
                "row": row_number(results, index),
                "numbers": {name: _words(float(here[name])) for name in NUMBERS if name in here},
            }
        )
    return found
