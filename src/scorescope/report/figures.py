"""Charts as the page shows them: a static SVG, the spec that replaces it on load, downloads, and a fourth caption line."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import xarray as xr
from markupsafe import Markup

from scorescope.charts import Chart, r_star_small
from scorescope.claims import Finding

SMALL = "r_star_small"


@dataclass(frozen=True)
class Figure:
    """One chart on the page.

    Attributes:
        id: Its place on the page.
        chart: Words, legend and numbers.
        svg: Static picture.
        csv: The numbers as a data URI.
        shows: The findings that the chart carries, those that say the same of several models together: the caption's fourth line.
    """

    id: str
    chart: Chart
    svg: Markup
    csv: str
    shows: tuple[tuple[Finding, ...], ...]

    @property
    def about_bank(self) -> bool:
        """Whether the chart tells of the data alone."""
        return bool(self.shows) and all(f.claim.about == "bank" for alike in self.shows for f in alike)

    @property
    def legend(self) -> list[dict[str, Any]]:
        """Signs and words, set as text above the chart."""
        return [{"swatch": Markup(key.swatch), "label": key.label} for key in self.chart.legend]


def figure(chart: Chart, found: list[Finding], id: str = "") -> Figure:
    """A chart made ready for the page under `id` (its own by default)."""
    name = id or chart.id
    alike: dict[tuple[str, ...], list[Finding]] = {}
    for f in found:
        if f.claim.chart == chart.id:
            alike.setdefault((f.claim.name, f.judged.says, f.judged.phrase, f.judged.verdict), []).append(f)
    shows = tuple(tuple(some) for some in alike.values())
    return Figure(name, chart, static_svg(chart.svg(), name), data_uri(chart.csv(), "text/csv;charset=utf-8"), shows)


def figures(drawn: Sequence[Chart], found: list[Finding]) -> list[Figure]:
    """Every chart, but for the small one of the first screen."""
    return [figure(chart, found) for chart in drawn if chart.id != SMALL]


def small(results: xr.Dataset, model: str, id: str) -> Figure | None:
    """Fig. 1b of one model in the size of a stamp; None where r* was not measured."""
    if "r_star" not in results or not results["r_star"].notnull().any():
        return None
    drawing = r_star_small.draw(results.sel(model=[model]))
    return figure(Chart(SMALL, r_star_small.NAME, r_star_small.CAPTION, drawing), [], id)


def static_svg(svg: str, prefix: str) -> Markup:
    """An SVG for use inside a page: ids that no other chart has, paths in tenths of a pixel, and a width that may shrink."""
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    svg = re.sub(r'(?<= d=")[^"]*', lambda path: re.sub(r"(\d+\.\d)\d+", r"\1", path.group()), svg)
    return Markup(svg.replace("<svg ", '<svg role="img" ', 1))


def data_uri(text: str, kind: str) -> str:
    """Text as a data URI, for a link that downloads it."""
    return f"data:{kind};base64,{base64.b64encode(text.encode()).decode()}"
