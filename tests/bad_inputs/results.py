"""Results that are none, damaged ones, and places where a report must not go."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

from scorescope import charts, claims, report
from scorescope.results import save
from tests.bad_inputs import Case
from tests.synthetic import results as synthetic

AGAIN = r"\. Try: scorescope examine MODEL --bank BANK with --force, which makes them again$"


@functools.cache
def whole() -> xr.Dataset:
    return synthetic(models=("only",), paths=2, times=3, shape=(1, 2, 2))


def saved(changed: Callable[[xr.Dataset], xr.Dataset] = lambda results: results) -> Callable[[Path], None]:
    """Makes a run whose results are the synthetic ones, changed."""

    def make(folder: Path) -> None:
        save(changed(whole()), folder / "run" / "results.nc")

    return make


def written(content: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "run").mkdir()
        (folder / "run" / "results.nc").write_bytes(content)

    return make


def truncated(folder: Path) -> None:
    saved()(folder)
    path = folder / "run" / "results.nc"
    path.write_bytes(path.read_bytes()[:5000])


def beside(name: str, text: str = "mine") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        saved()(folder)
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)

    return make


def training(folder: Path) -> None:
    folder.joinpath("run").mkdir()
    folder.joinpath("run", "run.json").write_text('{"kind": "a training run", "schema": 1, "settings": {}}')


REPORT, OUT = ("report", "run"), ("report", "run", "--out", "page.html")
CASES = [
    Case("no results", REPORT, r"no results at run/results\.nc"),
    Case("a training run", REPORT, r"run holds a training run, of which there is no report", training),
    Case("results that are text", REPORT, r"run/results\.nc can't be read as results .*" + AGAIN, written(b"r_star,1\n")),
    Case("results that are empty", REPORT, r"run/results\.nc can't be read as results .*" + AGAIN, written(b"")),
    Case("half of the results", REPORT, r"run/results\.nc can't be read as results .*" + AGAIN, truncated),
    Case("results of a newer version", REPORT, r"newer version", saved(lambda r: r.assign_attrs(schema=99))),
    Case("a schema that is a word", REPORT, r"can't be read as results" + ".*" + AGAIN, saved(lambda r: r.assign_attrs(schema="new"))),
    Case("another NetCDF file", REPORT, r"have no provenance" + AGAIN, saved(lambda r: xr.Dataset({"wind": ("x", np.ones(3))}))),
    Case("provenance that is no JSON", REPORT, r"have no provenance" + AGAIN, saved(lambda r: r.assign_attrs(provenance="{"))),
    Case("a provenance without a bank", REPORT, r"name no models, or no bank" + AGAIN, saved(lambda r: r.assign_attrs(provenance="{}"))),
    Case(
        "results of one model, without its name", REPORT, r"name no models, or no bank" + AGAIN, saved(lambda r: r.isel(model=0, drop=True))
    ),
    Case("a model twice", REPORT, r"name a model twice", saved(lambda r: xr.concat([r, r], "model", data_vars="minimal"))),
    Case("results without times", REPORT, r"what they have along time" + AGAIN, saved(lambda r: r.drop_vars("time"))),
    Case("times that run backwards", REPORT, r"values of time do not ascend", saved(lambda r: r.isel(time=slice(None, None, -1)))),
    Case("a variable of words", REPORT, r"r_star should be numbers over", saved(lambda r: r.assign(r_star=r["r_star"].astype(str)))),
    Case("turned axes", REPORT, r"r_star should be numbers over \(model, region", saved(lambda r: r.transpose("time", ...))),
    Case("rows that are halves", REPORT, r"nearest_index should be whole", saved(lambda r: r.assign(nearest_index=r["nearest_index"] / 2))),
    Case("pictures of another size", REPORT, r"sample should be numbers over .*", saved(lambda r: r.isel(axis_1=slice(1)))),
    Case("a report over another file", OUT, r"page\.html is no report of scorescope, and is left as it is", beside("page.html")),
    Case("a report over a folder", OUT, r"page\.html is no report of scorescope", beside("page.html/notes.txt")),
    Case("charts into another folder", OUT, r"page-charts, where the charts would go, is there already", beside("page-charts/r_star.svg")),
    Case("a report of other data", lambda folder: report.write(xr.Dataset(), folder / "page.html"), r"have no provenance"),
    Case("charts of other data", lambda folder: charts.export(xr.Dataset(), folder / "charts"), r"have no provenance"),
    Case("claims on other data", lambda folder: claims.judge(xr.Dataset()), r"have no provenance"),
]
