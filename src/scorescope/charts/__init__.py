"""Charts of a run, drawn from its results alone.

A chart is one file in this folder: a module with `NAME`, `ORDER`, `NEEDS` (the variables it reads), `CAPTION` (what you see, what a
copier would show, what a generalizer would show) and `draw(results) -> Drawing | None`. It is found by looking, there is no list to edit.
It may also have `ALSO`, variables that it reads where they are there. A per-state variable that no chart needs is drawn by `generic`
without any of this.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import altair as alt
import vl_convert
import xarray as xr

from scorescope import registry
from scorescope.charts import generic, page
from scorescope.charts.frame import framed
from scorescope.charts.grammar import Drawing, Key, Row
from scorescope.charts.tables import csv_text, measured
from scorescope.files import replacing
from scorescope.results import checked

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
"""The version of Vega-Lite that the specs are written in: what `vl_convert` needs to be told."""


@dataclass(frozen=True)
class Chart:
    """One chart of a run.

    Attributes:
        id: Name of its files, and of its place on a page.
        name: What it is, in a few words.
        caption: What you see; what a copier would show; what a generalizer would show.
        drawing: The fact that it shows, the drawing, the numbers, the legend.
    """

    id: str
    name: str
    caption: tuple[str, str, str]
    drawing: Drawing

    @property
    def title(self) -> str:
        """The fact that the curves show, computed from the numbers drawn."""
        return self.drawing.title

    @property
    def legend(self) -> tuple[Key, ...]:
        """What the looks mean: `spec` has no legend inside."""
        return self.drawing.legend

    @property
    def table(self) -> list[Row]:
        """The numbers drawn: rows with the same columns."""
        return self.drawing.table

    @property
    def description(self) -> str:
        """What a screen reader says."""
        return f"{self.name}. {self.title}. {self.caption[0]}"

    @cached_property
    def spec(self) -> dict[str, Any]:
        """Vega-Lite without title and legend, for a page that sets them as text."""
        return page.spec(self.drawing, self.description)

    @cached_property
    def _picture(self) -> str:
        return str(vl_convert.vegalite_to_svg(json.dumps(self.spec, allow_nan=False), vl_version=VEGA_LITE))

    def svg(self, alone: bool = False) -> str:
        """The chart as SVG; with `alone`, title and legend included."""
        return framed(self._picture, self.title, self.legend, self.drawing.width) if alone else self._picture

    def png(self, scale: float = 2) -> bytes:
        """The chart with title and legend as PNG."""
        return bytes(vl_convert.svg_to_png(self.svg(alone=True), scale=scale))

    def csv(self) -> str:
        """The numbers drawn as CSV; an empty field is a value that was not measured."""
        return csv_text(self.table)


def available(results: xr.Dataset) -> list[Chart]:
    """Every chart that the results allow, in reading order.

    Raises:
        InputError: The results are not an examination's, or are damaged.
    """
    checked(results)
    found, claimed = [], set()
    for module in _modules():
        claimed |= {*module.NEEDS, *getattr(module, "ALSO", ())}
        part = _measured_models(results, module.NEEDS)
        drawing = module.draw(part) if part is not None else None
        if drawing is not None:
            found.append(Chart(module.__name__.rpartition(".")[2], module.NAME, module.CAPTION, drawing))
    return found + [Chart(f"extra_{name}", *generic.draw(results, name)) for name in generic.unclaimed(results, claimed)]


def export(results: xr.Dataset, folder: str | Path, drawn: Sequence[Chart] | None = None) -> list[Path]:
    """Write every chart (those `drawn` already, if given) as SVG, PNG and CSV into `folder`; returns the paths."""
    written = []
    for chart in available(results) if drawn is None else drawn:
        for suffix, content in (("svg", chart.svg(alone=True).encode()), ("png", chart.png()), ("csv", chart.csv().encode())):
            path = Path(folder) / f"{chart.id}.{suffix}"
            with replacing(path) as temporary:
                temporary.write_bytes(content)
            written.append(path)
    return written


def _measured_models(results: xr.Dataset, needs: tuple[str, ...]) -> xr.Dataset | None:
    """The results of the models for which all that a chart needs was measured; None if there are none, or something is missing for all."""
    if not all(measured(results, name) for name in needs):
        return None
    names = [m for m in results["model"].values if all("model" not in results[n].dims or measured(results.sel(model=m), n) for n in needs)]
    return results.sel(model=names) if names else None


def _modules() -> list[ModuleType]:
    """The modules of this folder that draw a chart of their own, by `ORDER`."""
    every = (registry.module(__name__, name, "chart") for name in registry.names(__name__))
    return sorted((m for m in every if hasattr(m, "ORDER")), key=lambda m: (m.ORDER, m.__name__))
