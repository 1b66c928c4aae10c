"""Which samples are copies, of which rows, by which criterion: results → records, a table for other programs, and the rows by name.

ratio        nearest distance over that to the nearest row outside the nearest row's group below 1/3, or an exact copy: what counts
plain        the same over the second-nearest row, whatever row that is
calibrated   the calibrated ratio (C.7) below that of 99 % of real rows
exact        the nearest row itself, up to rounding
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from scorescope.files import write_text
from scorescope.results import COPY, finite, models, row_names, row_number

FILE = "copies.csv"
VALUES = {"ratio": "ratio_second", "plain": "ratio_second_plain", "calibrated": "ratio_calibrated", "exact": "exact_copy"}
COLUMNS = ("model", "sample", "sample_name", "row", "name", "distance", *VALUES, "group_size", "criteria")
Record = dict[str, Any]


def measured(results: xr.Dataset) -> bool:
    """Whether the results say of samples whether they are copies."""
    return {"ratio_second", "nearest_index", "nearest_distance"} <= set(results)


def calibrated_threshold(results: xr.Dataset) -> float:
    """The calibrated ratio that only 1 % of real rows go below: what makes the second criterion a yes or no. NaN without null rows."""
    null = finite(results, "null_calibrated")
    return float(np.quantile(null, 0.01)) if len(null) else math.nan


def criteria(results: xr.Dataset, model: str) -> dict[str, np.ndarray]:
    """For each criterion that was measured, which samples of a model are copies by it, (P,)."""
    values = {name: results[variable].sel(model=model).values for name, variable in VALUES.items() if variable in results}
    limits = {"ratio": COPY, "plain": COPY, "calibrated": calibrated_threshold(results)}
    return {name: value == 1 if name == "exact" else value < limits[name] for name, value in values.items()}


def records(results: xr.Dataset) -> list[Record]:
    """A record with `COLUMNS` for every sample that is a copy by any criterion; what was not measured is None."""
    if not measured(results):
        return []
    names, found = row_names(results), []
    for model in models(results):
        part, hits = results.sel(model=model), criteria(results, model)
        for k in np.flatnonzero(np.any(list(hits.values()), axis=0)):
            index = int(part["nearest_index"].values[k, 0])
            found.append(
                {
                    "model": model,
                    "sample": int(results["path"].values[k]),
                    "sample_name": str(results["sample_name"].values[k]) if "sample_name" in results else "",
                    "row": index,
                    "name": _name(results, names, index),
                    "distance": _plain(part["nearest_distance"].values[k, 0]),
                    **{name: _plain(part[variable].values[k]) if variable in part else None for name, variable in VALUES.items()},
                    "group_size": _plain(part["group_size"].values[k]) if "group_size" in part else None,
                    "criteria": [name for name, hit in hits.items() if hit[k]],
                }
            )
    return found


def _name(results: xr.Dataset, names: dict[int, str], index: int) -> str:
    """Its name, marked where it is a mirror image; empty where it has none."""
    mirrored = row_number(results, index) != str(index)
    return f"{names[index]}{' (mirrored)' if mirrored else ''}" if index in names else ""


def _plain(value: Any) -> float | int | None:
    """A number as Python and JSON have it."""
    number = float(value)
    return None if not math.isfinite(number) else int(number) if np.asarray(value).dtype.kind in "iu" else float(f"{number:.6g}")


def by_row(found: Sequence[Record], model: str) -> list[tuple[Record, int]]:
    """Rows that a model's samples copy by the rule, the most copied first, each as the record of its first copy and how many there are."""
    counted = [record for record in found if record["model"] == model and "ratio" in record["criteria"]]
    count = Counter(record["row"] for record in counted)
    first = {record["row"]: record for record in reversed(counted)}
    return [(first[row], times) for row, times in sorted(count.items(), key=lambda pair: (-pair[1], pair[0]))]


def write(results: xr.Dataset, path: str | Path) -> None:
    """Write all records as CSV, atomically; an empty field is what was not measured, or has no name."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({**record, "criteria": " ".join(record["criteria"])} for record in records(results))
    write_text(path, text.getvalue())
