"""One picture of a record: worst relative error against time, a panel a workload, every method with its name beside it."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt

from scorescope.bench.summary import BASELINE, Line, disturbance, lines, measured_on, size
from scorescope.charts import Chart
from scorescope.charts.grammar import BLUE, GREY, VERMILLION, Drawing, Key, Row, each, words
from scorescope.charts.layers import panel
from scorescope.charts.page import grid, width_of
from scorescope.files import replacing

OURS = Key("ours", "scorescope, by tolerance", BLUE, shape="circle")
OTHERS = Key("others", "other methods", VERMILLION, (2, 3), "square")
HEIGHT = 190
LETTER, LINE, AWAY = 6.2, 13, 9  # pixels: of a letter, of a line of words, from a mark to its name
NARROW = "\u00a0of\u00a0"  # keeps "10 of 100" on one line
HINT = "better: lower and further left"
Box = tuple[float, float, float, float]
SAID = "Worst relative error of the posterior mean over the judged states against the time for all states; lower left is better."


@dataclass(frozen=True)
class Log:
    """A logarithmic axis over `pixels`; on one of errors `zero` is where answers without any are drawn, if there are such."""

    low: float
    high: float
    pixels: int
    zero: float | None = None

    def place(self, value: float) -> float:
        """Pixels from the low end."""
        return self.pixels * math.log(value / self.low) / math.log(self.high / self.low)

    def value(self, place: float) -> float:
        """What is at that many pixels from the low end."""
        return self.low * math.exp(place / self.pixels * math.log(self.high / self.low))

    def ticks(self, steps: Sequence[float], most: int) -> list[float]:
        """Round numbers on the axis; of powers of ten at most about `most`."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [float(f"{step}e{power}") for power in powers[:: 1 + len(powers) // most] for step in steps]
        return [tick for tick in found if self.low <= tick <= self.high]

    @property
    def scale(self) -> alt.Scale:
        """For Altair."""
        return alt.Scale(type="log", domain=[self.low, self.high], nice=False)


def save(content: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write bench.svg and bench.png; returns their paths."""
    chart = Chart("bench", "Error against time", (SAID, "", ""), draw(content))
    written = []
    for suffix, drawn in (("svg", chart.svg(alone=True).encode()), ("png", chart.png())):
        path = folder / f"bench.{suffix}"
        with replacing(path) as temporary:
            temporary.write_bytes(drawn)
        written.append(path)
    return written


def draw(content: Mapping[str, Any]) -> Drawing:
    """The panels, on the same axes, one below the other."""
    made = lines(content)
    y = _errors(made)
    x = Log(min(line["fastest"] for line in made) / 1.6, max(line["slowest"] for line in made) * 1.6, width_of(1))
    names = list({line["workload"]: None for line in made})
    panels = [_panel([line for line in made if line["workload"] == name], x, y, name == names[0], name == names[-1]) for name in names]
    kinds = {line["ours"] for line in made}
    legend = tuple(key for key in (OURS, OTHERS) if (key is OURS) in kinds)
    title = (
        f"Error against time of {len({line['method'] for line in made})} methods; not to be quoted: the machine was busy with other work"
    )
    title = title if disturbance(content) else _title(made, content["default"])
    return Drawing(title, grid([[part] for part in panels]), made, legend)


def _title(made: Sequence[Line], default: str) -> str:
    mine = [line for line in made if line["method"] == default]
    gains = {line["workload"]: f"{words(line['speedup'], 2)}×" for line in mine if line["speedup"]}
    if not gains:
        return f"Error against time of {len({line['method'] for line in made})} methods"
    worst = f"{max(line['worst_error'] for line in mine):.0e}".replace("e-0", "e-")
    return f"{default} is {each(gains)} as fast as {BASELINE}, with errors of at most {worst}"


def _errors(made: Sequence[Line]) -> Log:
    seen = [line["worst_error"] for line in made if line["worst_error"]] or [1e-15]
    exact = any(not line["worst_error"] for line in made)
    low, high = 10.0 ** math.floor(math.log10(min(seen))), 10.0 ** math.ceil(math.log10(max(seen)))
    return Log(low / 50 if exact else low / 2, high * 2, HEIGHT, low / 10 if exact else None)


def _panel(here: Sequence[Line], x: Log, y: Log, first: bool, last: bool) -> Any:
    title = f"seconds for all states, median of {here[0]['repeats']} (log); thin bars: all repeats" if last else None
    x_axis = alt.Axis(title=title, values=x.ticks((1, 2, 5), 20), labelExpr="format(datum.value, '~g')")
    name = "worst relative error (log)"
    values = [tick for tick in y.ticks((1,), 9) if y.zero is None or tick > y.zero] + ([] if y.zero is None else [y.zero])
    labels = f"datum.value <= {1.0001 * (y.zero or 0)} ? '0' : datum.value == 1 ? '1' : format(datum.value, '.0e')"
    y_axis = alt.Axis(title=name if y.zero is None else [name, "0: none seen"], values=values, labelExpr=labels, minExtent=42)

    def across(field: str) -> alt.X:
        return alt.X(f"{field}:Q", scale=x.scale, axis=x_axis)

    height = alt.Y("place:Q", scale=y.scale, axis=y_axis)
    rows = [_row(line, y) for line in here]
    told = [
        alt.Tooltip("method:N", title="method"),
        alt.Tooltip("seconds:Q", title="seconds", format=".3g"),
        alt.Tooltip("error:N", title="worst relative error"),
        alt.Tooltip("note:N", title="timed"),
    ]
    layers: list[Any] = []
    for key in (OURS, OTHERS):
        mine = panel([row for row in rows if row["key"] == key.name])
        if key is OURS:
            line = mine.mark_line(color=key.colour, strokeWidth=1, strokeOpacity=0.5, aria=False)
            layers.append(line.encode(x=across("seconds"), y=height, order="place:Q"))
        spread = mine.mark_rule(color=key.colour, strokeWidth=1, aria=False)
        layers.append(spread.encode(x=across("fastest"), x2="slowest:Q", y=height))
        point = mine.mark_point(filled=True, size=70, opacity=1, color=key.colour, shape=key.shape)
        layers.append(point.encode(x=across("seconds"), y=height, tooltip=told))
    named = _names(rows, x, y, first)
    for colour, some in (("#222222", named[: len(rows)]), (GREY, named[len(rows) :])):
        text = panel(some).mark_text(align="left", baseline="middle", color=colour, aria=False)
        layers.append(text.encode(x=across("seconds"), y=height, text="method:N"))
    head = alt.TitleParams(text=f"{here[0]['workload']}: {size(here[0])}", subtitle=textwrap.wrap(_scaled(rows), x.pixels // 6))
    return alt.layer(*layers).properties(width=x.pixels, height=HEIGHT, title=head)


def _row(line: Line, y: Log) -> Row:
    values = {name: line[name] for name in ("method", "seconds", "fastest", "slowest")}
    error = f"{line['worst_error']:.1e}" if line["worst_error"] else "none seen"
    key = OURS if line["ours"] else OTHERS
    return values | {"place": line["worst_error"] or y.zero, "key": key.name, "error": error, "note": measured_on(line)}


def _scaled(rows: Sequence[Row]) -> str:
    """Which methods were timed on which part."""
    notes: dict[str, list[str]] = {}
    for row in rows:
        notes.setdefault(row["note"], []).append(row["method"])
    return "; ".join(f"{', '.join(methods)} {note.replace(' of ', NARROW)} and scaled" for note, methods in notes.items() if note)


def _names(rows: Sequence[Row], x: Log, y: Log, hint: bool) -> list[Row]:
    """Every method's name beside its mark, where neither another name nor another mark is; then the hint, if any, in its corner."""
    spans = [(x.place(row["fastest"]), x.place(row["seconds"]), x.place(row["slowest"]), y.place(row["place"])) for row in rows]
    corner = (5.0, 4.0, 5 + LETTER * len(HINT), 4.0 + LINE)
    taken: list[Box] = [corner] if hint else []
    taken += [(min(left, middle - 5), up - 3, max(right, middle + 5), up + 3) for left, middle, right, up in spans]
    placed = []
    for row, (left, middle, right, up) in zip(rows, spans, strict=True):
        long = LETTER * len(row["method"])
        beside = [max(right, middle + 2) + AWAY - 2, min(left, middle - 2) - AWAY + 2 - long]
        # Above or below, but rather not on the side of the mark that is nearest.
        others = [(abs(x1 - middle) + abs(y1 - up), y1) for _, x1, _, y1 in spans if (x1, y1) != (middle, up)]
        aside = LINE if not others or min(others)[1] <= up else -LINE
        spots = [(at, up) for at in beside] + [(at, up + more * aside) for more in (1, -1, 2, -2) for at in (middle - long / 2, *beside)]
        boxes = [(at, lift - LINE / 2, at + long, lift + LINE / 2) for at, lift in spots]
        inside = [box for box in boxes if box[0] >= 0 and box[2] <= x.pixels and box[1] >= 0 and box[3] <= y.pixels] or boxes[:1]
        best = min(inside, key=lambda box: sum(_overlap(box, other) for other in taken))
        taken.append(best)
        placed.append({"method": row["method"], "seconds": x.value(best[0]), "place": y.value((best[1] + best[3]) / 2)})
    if hint:
        placed.append({"method": HINT, "seconds": x.value(corner[0]), "place": y.value((corner[1] + corner[3]) / 2)})
    return placed


def _overlap(one: Box, other: Box) -> float:
    """The shared area."""
    return max(0.0, min(one[2], other[2]) - max(one[0], other[0])) * max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
