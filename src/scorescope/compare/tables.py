"""Tables of runs as CSV, in and out, and what a comparison leaves in its folder."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import numpy as np
import xarray as xr

from scorescope import recipes, results
from scorescope.charts import Chart
from scorescope.charts.recipes import CAPTION, draw, interval
from scorescope.claims.claim import interval_text
from scorescope.compare import CHART, POINTS, RECORD, RESULTS
from scorescope.errors import InputError, unknown
from scorescope.evaluate.operations import si
from scorescope.files import replacing, write_json, write_text

ALSO = ("share", "dsm_loss", "dsm_minus_optimum", "parameters", "step")
KNOWN = ("recipe", "name", "loss", "compute", *ALSO)


def read(path: str | Path, score: str | None = None, loss: str = "loss") -> xr.Dataset:
    """A table of runs from CSV with the columns recipe, name, loss, a score of which less is better, and perhaps compute.

    Args:
        path: The file.
        score: The column of the score; the only other one unless given.
        loss: The column of the loss.

    Raises:
        InputError: A column that is missing, a field that is no number; what `recipes.checked` refuses.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{path} can't be read as a table ({type(problem).__name__})", "a CSV file: recipe,name,loss,fid") from problem
    lines = list(csv.DictReader(io.StringIO(text), skipinitialspace=True))
    columns = [name for name in (lines[0] if lines else {}) if name]
    for name in ("recipe", "name", loss):
        if name not in columns:
            raise InputError(f"{path} has no column {name}", "a first line such as recipe,name,loss,fid")
    others = [name for name in columns if name not in KNOWN and not name.endswith(("_low", "_high"))]
    if score is None and len(others) != 1:
        raise InputError(f"{path} has {', '.join(others) or 'no column'} for a score", f"--score {others[0] if others else 'fid'}")
    chosen = others[0] if score is None else score
    if chosen not in columns:
        raise unknown("column", chosen, others or columns)

    def number(line: dict[str, str], place: int, column: str) -> float:
        word = (line.get(column) or "").strip()
        if column == "compute" and not word:
            return math.nan
        try:
            return float(word)
        except ValueError:
            raise InputError(f"{path}, line {place}: {column} is {word!r}", "a number") from None

    points = [
        recipes.Point(line["recipe"], line["name"], number(line, k, loss), number(line, k, chosen), number(line, k, "compute"))
        for k, line in enumerate(lines, 2)
    ]
    return recipes.table(points, chosen, "supervision loss" if loss == "loss" else loss.replace("_", " "))


def by(runs: xr.Dataset, loss: str) -> xr.Dataset:
    """The table with another of its columns as the loss: `share`, that of the Gaussian denoiser's.

    Raises:
        InputError: A column without draws.
    """
    if loss == "loss":
        return runs
    if f"{loss}_draw" not in runs:
        raise unknown("loss", loss, ("loss", "share"))
    moved = {"loss": runs[loss], "loss_draw": runs[f"{loss}_draw"]}
    return runs.assign(moved).assign_attrs(loss="share of the Gaussian's loss" if loss == "share" else loss)


def written(runs: xr.Dataset, out: str | Path, loss: str = "loss") -> dict[str, Path]:
    """Write points, numbers, results and the chart, drawn by one of the table's losses; returns where they are."""
    folder = Path(out)
    chosen = by(runs, loss)
    drawing = draw({"": chosen})
    chart = Chart(CHART, "Recipes compared (Fig. 7)", (CAPTION, "", ""), drawing)
    write_text(folder / POINTS, points_csv(runs))
    write_json(folder / RECORD, {**recipes.record(chosen), "floor": _number(runs), "floor_of": runs.attrs.get("floor_of", "")})
    results.save(runs, folder / RESULTS)
    for suffix, content in (("svg", chart.svg(alone=True).encode()), ("png", chart.png())):
        with replacing(folder / f"{CHART}.{suffix}") as temporary:
            temporary.write_bytes(content)
    return {"chart": folder / f"{CHART}.png", "points": folder / POINTS, "numbers": folder / RECORD}


def _number(runs: xr.Dataset) -> float | None:
    value = float(runs["floor"]) if "floor" in runs else math.nan
    return value if math.isfinite(value) else None


def points_csv(runs: xr.Dataset) -> str:
    """The runs as CSV, which can be read again."""
    title, lines = runs.attrs["score"], []
    for k in range(runs.sizes["run"]):
        one = runs.isel(run=k)
        line = {"recipe": str(one["recipe"].values), "name": str(one["name"].values)}
        for name, column in (("loss", "loss"), ("score", title)):
            ends = interval(one, name)
            line |= dict(zip((column, f"{column}_low", f"{column}_high"), map(_field, ends), strict=True))
        line["compute"] = _field(float(one["compute"]))
        line |= {name: _field(float(one[name])) for name in ALSO if name in runs}
        lines.append(line)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _field(value: float) -> str:
    return f"{value:.6g}" if math.isfinite(value) else ""


def shown(runs: xr.Dataset) -> str:
    """The runs as a table for people, and under it what they say."""
    with_share = "share" in runs and not np.array_equal(runs["share"], runs["loss"])
    lines = [["recipe", "run", runs.attrs["loss"], *(["of the Gaussian's"] if with_share else []), "compute", runs.attrs["score"]]]
    for k in range(runs.sizes["run"]):
        one = runs.isel(run=k)
        compute = float(one["compute"])
        share = [f"{100 * float(one['share']):.1f} %"] if with_share else []
        operations = f"{si(compute)}FLOP" if math.isfinite(compute) else "—"
        lines.append([str(one["recipe"].values), str(one["name"].values), _text(one, "loss"), *share, operations, _text(one, "score")])
    wide = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    told = ["  ".join(f"{word:<{wide[k]}}" if k < 2 else f"{word:>{wide[k]}}" for k, word in enumerate(line)).rstrip() for line in lines]
    floor = _number(runs)
    if floor is not None:
        told.append(f"real rows: {runs.attrs['score']} {floor:.4g} ({runs.attrs['floor_of']}); samples: {runs.attrs['samples']}")
    return "\n".join([*told, "", *recipes.sentences(runs)])


def _text(run: xr.Dataset, name: str) -> str:
    found = interval(run, name)
    if not np.isfinite(found.low):
        return f"{found.value:.5g}"
    return interval_text(found)
