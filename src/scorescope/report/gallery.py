"""Samples beside their nearest training rows, real rows beside theirs, the rows that came back, and the closest pair."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import xarray as xr

from scorescope import copies
from scorescope.report.pictures import Painter, Rows
from scorescope.results import COPY, row_number

NEAR = 3
NULLS = 8
BUDGET = 900_000  # bytes of pictures in all galleries together
CLASSES = 12
COPIED = 12


def shown(results: xr.Dataset, paint: Painter) -> int:
    """How many samples of each model fit the budget, a few at least and at most 24."""
    return int(np.clip(BUDGET / (1.4 * paint.weight * (1 + NEAR) * results.sizes["model"]), 4, 24))


def suspicion(ratio: np.ndarray) -> np.ndarray:
    """Order of samples, most suspicious first: by the ratio of the nearest distance to the second-nearest, unmeasured ones last."""
    return np.argsort(np.where(np.isfinite(ratio), ratio, np.inf), kind="stable")


def samples(results: xr.Dataset, model: str, rows: Rows, paint: Painter, count: int) -> list[dict[str, Any]]:
    """Cards of one model's most suspicious samples; empty where memorization was not measured."""
    if not {"ratio_second", "nearest_index", "nearest_distance", "sample"} <= set(results):
        return []
    part = results.sel(model=model)
    second = part["ratio_second"].values
    labelled = "label" in part and "extrapolation" in part["region"].values
    label = part["label"].sel(region="extrapolation").values if labelled else np.full(len(second), -1)
    return [
        {
            "path": int(results["path"].values[k]),
            "name": str(results["sample_name"].values[k]) if "sample_name" in results else "",
            "label": rows.name(int(label[k])),
            "uri": paint.uri(part["sample"].values[k]),
            "near": _near(results, part["nearest_index"].values[k], part["nearest_distance"].values[k], rows),
            "criteria": _criteria(results, part, k),
        }
        for k in suspicion(second)[:count]
    ]


def _near(results: xr.Dataset, index: np.ndarray, distance: np.ndarray, rows: Rows) -> list[dict[str, str]]:
    return [{**_card(results, int(i), rows), "distance": f"{d:.3g}"} for i, d in zip(index[:NEAR], distance[:NEAR], strict=True)]


def _card(results: xr.Dataset, index: int, rows: Rows) -> dict[str, str]:
    return {"index": row_number(results, index), "name": rows.named(index), "label": rows.label(index), "uri": rows.uri(index)}


def _criteria(results: xr.Dataset, part: xr.Dataset, k: int) -> list[dict[str, str]]:
    """The memorization criteria as number and yes or no."""
    found = []
    for name, (variable, limit) in {
        "ratio to second": ("ratio_second", COPY),
        "the same, plain": ("ratio_second_plain", COPY),
        "calibrated": ("ratio_calibrated", copies.calibrated_threshold(results)),
    }.items():
        if variable in part:
            found.append(_criterion(name, float(part[variable].values[k]), limit))
    if "exact_copy" in part and (exact := int(part["exact_copy"].values[k])) >= 0:
        found.append({"name": "exact copy", "value": "", "answer": "yes" if exact else "no"})
    if "copier_row" in part and int(part["copier_row"].values[k]) >= 0:
        same = int(part["copier_row"].values[k]) == int(part["nearest_index"].values[k, 0])
        name = row_number(results, int(part["copier_row"].values[k]))
        found.append({"name": "copier's row", "value": name, "answer": "yes" if same else "no"})
    if "group_size" in part and (size := int(part["group_size"].values[k])) > 1:
        found.append({"name": "near-duplicates", "value": f"{size} rows", "answer": ""})
    return found


def copied(results: xr.Dataset, model: str, rows: Rows) -> list[dict[str, Any]]:
    """The rows that a model copies most often by the rule, each with how many of its samples copy it."""
    found = copies.by_row(copies.records(results), model)[:COPIED]
    return [{**_card(results, record["row"], rows), "times": times, "group": record["group_size"] or 1} for record, times in found]


def _criterion(name: str, value: float, limit: float) -> dict[str, str]:
    """A ratio, and whether it is below the limit; NaN is no limit."""
    if not math.isfinite(value):
        return {"name": name, "value": "not measured", "answer": "–"}
    return {"name": name, "value": f"{value:.2f}", "answer": "–" if math.isnan(limit) else "yes" if value < limit else "no"}


def nulls(results: xr.Dataset, rows: Rows) -> list[dict[str, Any]]:
    """Cards of real rows beside their own nearest neighbours, closest first as the samples are: the scale of "close"."""
    if not {"null_row", "null_second", "null_index", "null_distance"} <= set(results):
        return []
    cards: list[dict[str, Any]] = []
    for k in suspicion(results["null_second"].values):
        index = int(results["null_row"].values[k])
        if index not in rows or len(cards) == NULLS:
            continue
        near = _near(results, results["null_index"].values[k], results["null_distance"].values[k], rows)
        criteria = [_criterion("ratio to second", float(results["null_second"].values[k]), COPY)]
        if "null_calibrated" in results:
            criteria.append(_criterion("calibrated", float(results["null_calibrated"].values[k]), math.nan))
        cards.append({**_card(results, index, rows), "near": near, "criteria": criteria})
    return cards


def first_four(results: xr.Dataset, model: str, rows: Rows, paint: Painter) -> list[dict[str, str]]:
    """Four samples, neither the best nor the worst picked: the first four paths, each over its nearest row."""
    if "sample" not in results:
        return []
    part = results.sel(model=model)
    cards: list[dict[str, str]] = []
    for k in range(min(4, part.sizes["path"])):
        card = {"uri": paint.uri(part["sample"].values[k]), "near": "", "index": "", "name": ""}
        if "nearest_index" in part:
            near = int(part["nearest_index"].values[k, 0])
            card |= {"near": rows.uri(near), "index": row_number(results, near), "name": rows.named(near)}
        cards.append(card)
    return cards


def strips(results: xr.Dataset, model: str, paint: Painter) -> list[dict[str, Any]]:
    """Image strips of Fig. 4: what the model makes of one training row noised to each t; ● where the row came back."""
    if "return_image" not in results:
        return []
    images, time = results["return_image"].sel(model=model).values, results["origin_time"].values
    back = results["returned"].sel(model=model).values if "returned" in results else np.full(images.shape[:2], np.nan)
    lines = []
    for k, line in enumerate(images):
        row = int(results["origin_row"].values[k]) if "origin_row" in results else -1
        marks = ["●" if b == 1 else "○" if b == 0 else "·" for b in back[k]]
        picture, times = paint.sprite([list(line)], gap=2), [f"{t:.2g}" for t in time]
        lines.append({"row": row_number(results, row), "uri": picture, "marks": marks, "times": times})
    return lines


def closest(results: xr.Dataset, rows: Rows) -> list[dict[str, Any]]:
    """The closest pair of the whole bank, then of each class, as far as their pictures are at hand."""
    found = []
    if "closest_pair" in results:
        found.append(_pair(results, "all rows", results["closest_pair"].values, float(results.get("closest_distance", math.nan)), rows))
    if "closest_pair_class" in results:
        for k, label in enumerate(results["class"].values[:CLASSES]):
            distance = float(results["closest_distance_class"].values[k]) if "closest_distance_class" in results else math.nan
            found.append(_pair(results, rows.name(int(label)), results["closest_pair_class"].values[k], distance, rows))
    return [pair for pair in found if all(tile["uri"] for tile in pair["tiles"])]


def _pair(results: xr.Dataset, name: str, index: np.ndarray, distance: float, rows: Rows) -> dict[str, Any]:
    tiles = [_card(results, int(i), rows) for i in index]
    return {"name": name, "tiles": tiles, "distance": f"{distance:.3g}" if math.isfinite(distance) else "unknown"}
