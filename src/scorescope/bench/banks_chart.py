"""One picture of many records: how many times as fast as plain PyTorch scorescope is, a panel a bank, a mark a workload.

All panels share one logarithmic axis with a line at 1. Beside each mark stands its number, and the seconds that it is a ratio of.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from scorescope.bench.chart import Log
from scorescope.bench.summary import WORKLOADS, Line, disturbance, gains
from scorescope.charts import Chart
from scorescope.charts.grammar import BLACK, BLUE, GREY, VERMILLION, WIDTH, Drawing, Key, Row, words
from scorescope.charts.layers import panel
from scorescope.charts.page import join
from scorescope.charts.tables import number

KEYS = {
    "random": Key("random", "single states", GREY, shape="triangle-up"),
    "supervision": Key("supervision", "supervision sweep", BLUE, shape="circle"),
    "trajectory": Key("trajectory", "trajectory sweep", VERMILLION, shape="square"),
}
MEANT = {
    "random": "each at its own time",
    "supervision": "noised training rows",
    "trajectory": "sampling paths of {}",
}
LABELS, NUMBERS = 110, 200  # pixels left of a panel, for the workloads, and right of it, for the numbers
SECONDS = 62  # pixels from a panel to the seconds
ROW, LINE = 24, 15  # pixels of a workload, of a line of words
FOOT = 138  # letters of a line below the panels
LEAST = 1.6  # the axis reaches so many times as far as 1 on either side, so that there is room for the words at the line
SAID = "Plain PyTorch's time over scorescope's for the same states, by bank and workload; right of the line at 1 scorescope is faster."
DIGITS = ("seconds", "plain_seconds", "times_as_fast", "lowest", "highest", "worst_error", "plain_worst_error")


def chart(contents: Sequence[Mapping[str, Any]]) -> Chart:
    """Of the records of several banks, in their order."""
    return Chart("banks", "Times as fast as plain PyTorch, by bank", (SAID, "", ""), draw(contents))


def draw(contents: Sequence[Mapping[str, Any]]) -> Drawing:
    """The panels, one below the other, under words at the line and over a foot that says what was measured."""
    made = gains(contents)
    ends = [line[name] for line in made for name in ("lowest", "highest")]
    low, high = min(*ends, 1 / LEAST) / 1.15, max(*ends, LEAST) * 1.15
    x = Log(low, high, WIDTH - LABELS - NUMBERS)
    banks: dict[tuple[Any, ...], list[Line]] = {}
    for line in made:
        banks.setdefault(tuple(line[name] for name in ("bank", "rows", "shape", "stored")), []).append(line)
    panels = [_panel(here, x, last=place == len(banks) - 1) for place, here in enumerate(banks.values())]
    title = "Not to be quoted: the machine was busy with other work" if disturbance(*contents) else _title(made, len(banks))
    table = [{name: number(value) if name in DIGITS else value for name, value in line.items()} for line in made]
    return Drawing(title, join("vconcat", [_head(x), *panels, _foot(made, contents, x.pixels)], 8), table, ())


def _title(made: Sequence[Line], banks: int) -> str:
    ranges = []
    for name, called in WORKLOADS.items():
        ratios = [line["times_as_fast"] for line in made if line["workload"] == name]
        if ratios:
            ends = dict.fromkeys((_short(min(ratios)), _short(max(ratios))))
            ranges.append(f"{' to '.join(ends)}× ({called}{'s' if called.endswith('sweep') else ''})")
    said = f"{', '.join(ranges[:-1])} and {ranges[-1]}" if len(ranges) > 1 else ranges[0]
    whose = "training set" if banks == 1 else "training sets"
    return f"The exact empirical score of {banks} {whose}: scorescope is {said} as fast as plain float32 PyTorch"


def _head(x: Log) -> Any:
    """Which side of the line is which."""
    layers = []
    for text, align, away in (("← slower", "right", -6), ("faster than plain PyTorch →", "left", 6)):
        mark = panel([{"text": text}]).mark_text(align=align, color="#222222", aria=False)
        layers.append(mark.encode(x=alt.value(x.place(1) + away), y=alt.value(8), text="text:N"))
    return alt.layer(*layers).properties(width=x.pixels, height=LINE, view={"stroke": None})


def _panel(here: Sequence[Line], x: Log, last: bool) -> Any:
    decades = math.log10(x.high / x.low)
    steps = (1,) if decades > 3 else (1, 2, 5) if decades > 1 else (1, 1.5, 2, 3, 5, 7)
    label = "datum.value == 1 ? ['1', 'as fast as', 'plain PyTorch'] : format(datum.value, ',~g')"
    title = "times as fast as plain float32 PyTorch (log)" if last else None
    axis = alt.Axis(title=title, values=x.ticks(steps, 12), labelExpr=label, labels=last, ticks=last, labelOverlap=False)

    def across(field: str) -> alt.X:
        return alt.X(f"{field}:Q", scale=x.scale, axis=axis)

    names = [KEYS[line["workload"]].label for line in here]
    up = alt.Axis(title=None, grid=False, ticks=False, minExtent=LABELS - 10, labelLimit=LABELS, labelPadding=7, domain=False)
    rows = [_row(line) for line in here]
    told = [
        alt.Tooltip("called:N", title="asked"),
        alt.Tooltip("ratio:N", title="times as fast"),
        alt.Tooltip("spread:N", title="in single repeats"),
        alt.Tooltip("seconds:N", title="time"),
    ]
    unit = panel([{"one": 1.0}]).mark_rule(color=BLACK, strokeWidth=1.5, aria=False)
    layers: list[Any] = [unit.encode(x=across("one"))]
    for row in rows:
        key, mine = KEYS[row["key"]], panel([row])
        height = alt.Y("called:N", sort=names, scale=alt.Scale(domain=names), axis=up)
        bar = mine.mark_rule(color=key.colour, strokeWidth=3, strokeOpacity=0.5, aria=False)
        point = mine.mark_point(filled=True, size=80, opacity=1, color=key.colour, shape=key.shape)
        said = mine.mark_text(align="left", fontWeight="bold", fontSize=12, color="#111111", aria=False)
        more = mine.mark_text(align="left", color="#333333", aria=False)
        layers += [
            bar.encode(x=across("lowest"), x2="highest:Q", y=height),
            point.encode(x=across("times_as_fast"), y=height, tooltip=told),
            said.encode(x=alt.value(x.pixels + 10), y=height, text="ratio:N"),
            more.encode(x=alt.value(x.pixels + SECONDS), y=height, text="seconds:N"),
        ]
    first = here[0]
    head = alt.TitleParams(text=f"{first['bank']}: {first['rows']:,} rows of {first['shape']} ({first['stored']})", limit=WIDTH - LABELS)
    return alt.layer(*layers).properties(width=x.pixels, height=ROW * len(here), title=head)


def _row(line: Line) -> Row:
    values = {name: line[name] for name in ("times_as_fast", "lowest", "highest")}
    spread = f"{_short(line['lowest'])}× to {_short(line['highest'])}×" if line["repeats"] > 1 else "one repeat"
    seconds = f"{_short(line['seconds'])} s instead of {_short(line['plain_seconds'])} s"
    said = {"ratio": f"{_short(line['times_as_fast'])}×", "spread": spread, "seconds": seconds}
    return values | said | {"key": line["workload"], "called": KEYS[line["workload"]].label}


def _foot(made: Sequence[Line], contents: Sequence[Mapping[str, Any]], width: int) -> Any:
    """What was asked, how often, of whom and where."""
    first, arguments, machine = made[0], contents[0]["arguments"], contents[0]["machine"]
    repeats = min(line["repeats"] for line in made)
    marks = f"Marks: ratio of the median times of {repeats} repeats; bars: lowest to highest ratio within a repeat."
    said = [marks if repeats > 1 else "One repeat: how much these numbers vary is not known."]
    for workload, asked, note in {(line["workload"], line["asked"], line["plain_timed"]): None for line in made}:
        meant = MEANT[workload].format("a trained model" if contents[0]["trajectories_of"] else "the Gaussian fitted to the bank")
        said.append(f"{KEYS[workload].label.capitalize()} ({meant}): {asked}{f'; plain PyTorch {note} and scaled' if note else ''}.")
    errors = [_error(max(line[name] for line in made)) for name in ("worst_error", "plain_worst_error")]
    said.append(f"Largest relative error of a posterior mean: {errors[0]} ({first['method']}), {errors[1]} (plain PyTorch).")
    where = machine["processor"] if machine["device"] == "cpu" else machine["device"]
    threads = arguments["threads"]
    said.append(f"Machine: {where}, {threads} {'thread' if threads == 1 else 'threads'}. What is made once for a bank is not in the times.")
    lines = [part for line in said for part in textwrap.wrap(line, FOOT)]
    rows = [{"text": line, "line": k} for k, line in enumerate(lines)]
    text = panel(rows).mark_text(align="left", baseline="top", color="#333333", aria=False)
    y = alt.Y("line:Q", scale=alt.Scale(domain=[0, len(lines)], nice=False, reverse=True), axis=None)
    foot = text.encode(x=alt.value(-LABELS), y=y, text="text:N")
    return foot.properties(width=width, height=LINE * len(lines), view={"stroke": None})


def _short(value: float) -> str:
    """Two digits, the zeros too, or whole."""
    return words(value, 2) if value < 1e-3 else f"{value:#.2g}".rstrip(".") if value < 99.5 else f"{value:,.0f}"


def _error(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-") if value else "none seen"
