"""Curves of training runs, as the microscope saw them while they went on: one picture from the `watch.nc` of their folders.

python benchmarks/training_curves.py runs/unet-desk runs/sit-desk --out docs/cifar10-curves.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import altair as alt
import vl_convert

from scorescope import results
from scorescope.charts import VEGA_LITE
from scorescope.charts.grammar import BLACK, BLUE, FONT, GREY, VERMILLION

PANELS = (
    ("training loss, per dimension", "loss", BLACK),
    ("score error on training shells, per dimension", "supervision", BLUE),
    ("score error on sampling paths, per dimension", "extrapolation", VERMILLION),
    ("relative distance r* of sampling paths, median", "r_star", VERMILLION),
)


def points(folder: Path) -> list[dict[str, float | str]]:
    """A row for each look at a run."""
    looks = results.load(folder / "watch.nc")
    error = looks["score_error"].mean(("path", "time"))
    r_star = looks["r_star"].sel(region="extrapolation").median(("path", "time"))
    return [
        {
            "run": folder.name,
            "step": int(step),
            "loss": float(looks["loss"].sel(step=step)),
            "supervision": float(error.sel(step=step, region="supervision")),
            "extrapolation": float(error.sel(step=step, region="extrapolation")),
            "r_star": float(r_star.sel(step=step)),
        }
        for step in looks["step"].values
    ]


def main() -> None:
    """Draw the picture."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("runs", nargs="+", type=Path)
    told.add_argument("--out", type=Path, required=True)
    asked = told.parse_args()
    rows = alt.InlineData(values=[row for folder in asked.runs for row in points(folder)])
    dash = alt.StrokeDash(
        "run:N",
        sort=[folder.name for folder in asked.runs],
        legend=alt.Legend(title=None, orient="top", symbolType="stroke", symbolSize=600),
    )
    x = alt.X("step:Q", title="optimizer step", axis=alt.Axis(grid=False))
    panels = [
        alt.Chart(rows, title=title, width=300, height=170)
        .mark_line(color=colour, point=alt.OverlayMarkDef(color=colour, size=14))
        .encode(x=x, y=alt.Y(f"{field}:Q", title=None, scale=alt.Scale(zero=False)), strokeDash=dash)
        for title, field, colour in PANELS
    ]
    chart = alt.vconcat(alt.hconcat(*panels[:2]), alt.hconcat(*panels[2:])).configure(font=FONT, background="white")
    chart = chart.configure_title(anchor="start", fontWeight="normal").configure_axis(labelColor=GREY)
    asked.out.write_bytes(vl_convert.vegalite_to_png(chart.to_json(), vl_version=VEGA_LITE, scale=2))


if __name__ == "__main__":
    main()
