"""From results to the rows that charts draw: aggregated over paths, rounded to four digits, and free of NaN."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr

from scorescope.charts.grammar import REGIONS, Key, Row, words
from scorescope.results import finite
from scorescope.statistics import median_band

MARKS_A_CURVE, PATHS_A_REGION, TIMES_A_PATH = 6, 12, 50


def number(value: Any, digits: int = 4) -> float | None:
    """A value rounded to `digits` significant digits, None if it is not finite."""
    return float(f"{float(value):.{digits}g}") if math.isfinite(float(value)) else None


def csv_text(rows: Sequence[Row]) -> str:
    """Rows with the same columns as CSV; an empty field is a value that was not measured."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def measured(results: xr.Dataset, name: str) -> bool:
    """Whether a variable is there and has a value."""
    return len(finite(results, name)) > 0


def bands(values: xr.DataArray, regions: Iterable[str] = tuple(REGIONS)) -> list[Row]:
    """Median and 10–90 % band over paths: one row for each model, region and time that was measured.

    Args:
        values: (model, region, path, time), in any order.
        regions: Which regions, where present.
    """
    rows: list[Row] = []
    for region in (r for r in regions if r in values["region"].values):
        for model in values["model"].values:
            part = values.sel(model=model, region=region).transpose("path", "time").values.astype(float)
            part[~np.isfinite(part)] = np.nan
            band, count = median_band(part, axis=0), np.isfinite(part).sum(0)
            for k, t in enumerate(values["time"].values):
                if count[k]:
                    found = {f: number(v[k]) for f, v in band._asdict().items()}
                    rows.append({"model": str(model), "region": region, "t": number(t), **found, "paths": int(count[k])})
    return rows


def region_keys(rows: Sequence[Row]) -> list[Key]:
    """Looks of the regions that rows are of."""
    return [key for key in REGIONS.values() if any(row["region"] == key.name for row in rows)]


def curve(rows: Sequence[Row], model: str, region: str, field: str = "median") -> tuple[np.ndarray, np.ndarray]:
    """Times and values of one curve of `bands`."""
    part = [row for row in rows if row["model"] == model and row["region"] == region]
    return np.array([row["t"] for row in part], float), np.array([row[field] for row in part], float)


def single_paths(values: xr.DataArray, most: int = PATHS_A_REGION) -> list[Row]:
    """Some paths of each model and region, at a few times: evenly chosen among those measured."""
    rows: list[Row] = []
    for region in (r for r in REGIONS if r in values["region"].values):
        for model in values["model"].values:
            part = values.sel(model=model, region=region).transpose("path", "time").values.astype(float)
            for p in _evenly(np.flatnonzero(np.isfinite(part).any(1)), max(6, most // values.sizes["model"])):
                for k in _evenly(np.flatnonzero(np.isfinite(part[p])), TIMES_A_PATH):
                    rows.append(
                        {"model": str(model), "region": region, "path": int(p), "t": number(values["time"][k]), "value": number(part[p, k])}
                    )
    return rows


def cut(rows: Sequence[Row], low: float, high: float, field: str, by: Sequence[str]) -> list[Row]:
    """Curves cut where they leave the axis, so that nothing outside is drawn; where one comes back, a row without a value parts it.

    Args:
        rows: With "t", in its order.
        low, high: Ends of the axis.
        field: What is drawn; straight between rows.
        by: What tells curves apart.
    """
    curves: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        curves.setdefault(tuple(row[name] for name in by), []).append(row)
    kept: list[Row] = []
    for points in curves.values():
        whole, first = True, len(kept)
        for a, b in itertools.pairwise(points):
            rise = b[field] - a[field]
            ends = sorted((end - a[field]) / rise for end in (low, high)) if rise else [0.0, 1.0] if low <= a[field] <= high else [1.0, 0.0]
            start, stop = max(0.0, ends[0]), min(1.0, ends[1])
            if start >= stop:
                whole = False
                continue
            if len(kept) == first or not whole or start:
                kept += [{**a, field: None}] if len(kept) > first else []
                kept.append(_between(a, b, start, field))
            kept.append(_between(a, b, stop, field))
            whole = stop == 1
    return kept


def _between(a: Row, b: Row, share: float, field: str) -> Row:
    """A point of the segment from a to b."""
    if share in (0, 1):
        return b if share else a
    return {**a, **{name: a[name] + share * (b[name] - a[name]) for name in ("t", field)}}


def _evenly(items: np.ndarray, count: int) -> np.ndarray:
    """At most `count` of the items, the first and the last among them."""
    return items[np.unique(np.linspace(0, len(items) - 1, min(len(items), count)).astype(int))] if len(items) else items


def thinned(rows: Sequence[Row], group: str) -> list[Row]:
    """A few rows of each curve: where the marks that tell curves apart without colour are set, not all at the same t."""
    curves: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        curves.setdefault((row.get("model"), row[group]), []).append(row)
    kept = []
    for place, points in enumerate(curves.values()):
        step = max(1, len(points) // MARKS_A_CURVE)
        kept += points[(place * step // 3) % step :: step]
    return kept


def told(rows: Sequence[Row], group: str, names: Sequence[str]) -> list[Row]:
    """One row for each model and time, with the words of a tooltip for every curve and the ends of the strip that shows it.

    The words of curve k are in column "c{k}": names of models may hold dots and brackets, which mean something in a field's name.
    """
    wide: dict[tuple[Any, Any], Row] = {}
    column = {name: f"c{k}" for k, name in enumerate(names)}
    for row in rows:
        which = None if group == "model" else row.get("model")
        cell = wide.setdefault((which, row["t"]), {"model": which, "t": row["t"], **dict.fromkeys(column.values(), "not measured")})
        spread = f" ({words(row['low'])} to {words(row['high'])})" if row.get("low") is not None and row.get("high") is not None else ""
        if row[group] in column:
            cell[column[row[group]]] = words(row["median"]) + spread
    times = sorted({row["t"] for row in rows})
    edges = [0.0, *((a + b) / 2 for a, b in itertools.pairwise(times)), 1.0]
    ends = {t: {"from": number(edges[k]), "to": number(edges[k + 1])} for k, t in enumerate(times)}
    return [{**cell, **ends[cell["t"]]} for cell in wide.values()]
