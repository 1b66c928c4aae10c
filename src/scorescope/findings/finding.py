"""What a finding is, and how one is declared: a claim, the rule that judges it, and a function that reads results.

A rule is a function `(results, model) -> Judged` under the decorator `rule`; it raises `NotJudged(reason)` where the results do
not allow a judgement. The registry is filled by importing the modules of this package, so a new rule needs no second place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import xarray as xr

from scorescope.results import provenance
from scorescope.statistics import Estimate


class Verdict(StrEnum):
    """What the data say about a claim. A claim without a threshold is not judged, never passed."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"
    NOT_JUDGED = "not judged"

    @property
    def symbol(self) -> str:
        """The sign that stands for the verdict beside the word, so that colour is never needed."""
        return {"supported": "●", "contradicted": "▲", "undecided": "○"}.get(self.value, "–")


class NotJudged(Exception):
    """Raised by a rule: the claim can't be judged on these results, and why."""


@dataclass(frozen=True)
class Judged:
    """What a rule found.

    Attributes:
        says: The sentence that the data support, whatever the claim was; no full stop.
        figure: The number and its interval as text, digits following the error.
        phrase: The words around the figure, which stands for `{}`.
        number, low, high: The same as numbers; NaN where there is none.
        n: How many independent items the number rests on.
        unit: What these items are ("paths").
        verdict: On the claim.
        variable, selection: Where the number comes from in `results.nc`.
        reason: Why undecided or not judged; empty otherwise.
        note: What else a reader should know.
    """

    says: str
    figure: str
    phrase: str
    number: float
    low: float
    high: float
    n: int
    unit: str
    verdict: Verdict
    variable: str
    selection: str = ""
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim that can be tested, and the rule that tests it.

    Attributes:
        id: Name of the finding.
        order: Place in lists.
        claim: The sentence tested.
        rule: How the verdict is reached.
        chart: Id of the chart that shows the number.
        short: Heading of its column in a table of models.
        needs: Variables of the results without which it can't be judged.
        probe: Word by which the run names what measures these variables.
        about: "model", "models" (their comparison) or "bank".
        judge: The function.
    """

    id: str
    order: int
    claim: str
    rule: str
    chart: str
    short: str
    needs: tuple[str, ...]
    probe: str
    about: str
    judge: Callable[[xr.Dataset, str], Judged]


@dataclass(frozen=True)
class Finding(Judged):
    """A judged claim about one model (`model`), about all of them or about the bank (`model` empty)."""

    id: str = ""
    model: str = ""
    claim: str = ""
    rule: str = ""
    chart: str = ""
    short: str = ""
    about: str = "model"

    @property
    def value(self) -> str:
        """The figure in its words."""
        return self.phrase.format(self.figure) if self.figure else ""

    @property
    def count(self) -> str:
        """What the number rests on ("100 paths"); empty for facts about the bank, which are exact."""
        return f"{self.n:,} {self.unit}" if self.n and self.about != "bank" else ""

    @property
    def line(self) -> str:
        """The finding in one line of plain text."""
        tail = f": {', '.join(part for part in (self.value, self.count) if part)}" if self.value else ""
        return f"{self.verdict.symbol} {self.says}{tail}" + (f" ({self.reason})" if self.reason else "")

    @property
    def source(self) -> str:
        """Python that reads the finding's variable from the results."""
        return f'results["{self.variable}"]' + (f".sel({self.selection})" if self.selection else "")


CLAIMS: list[Claim] = []


def rule(
    id: str, order: int, *, claim: str, rule: str, chart: str, short: str, needs: tuple[str, ...], probe: str, about: str = "model"
) -> Callable[[Callable[[xr.Dataset, str], Judged]], Callable[[xr.Dataset, str], Judged]]:
    """Declare the decorated function as the judge of a claim; arguments as in `Claim`."""

    def declare(function: Callable[[xr.Dataset, str], Judged]) -> Callable[[xr.Dataset, str], Judged]:
        CLAIMS.append(Claim(id, order, claim, rule, chart, short, needs, probe, about, function))
        return function

    return declare


# ---- reading ------------------------------------------------------------------------------------------------------------------


def measured(results: xr.Dataset, name: str, **selection: str) -> np.ndarray:
    """Values of a variable as float64, raising `NotJudged` where the selection is absent or holds no number."""
    for dimension, wanted in selection.items():
        if wanted not in results[name].coords[dimension].values:
            raise NotJudged(f"the run has no {wanted} states" if dimension == "region" else f"the run has no {wanted}")
    values = np.asarray(results[name].sel(selection).values, dtype=float)
    if not np.isfinite(values).any():
        where = " ".join(str(v) for v in selection.values())
        raise NotJudged(f"{name} holds no number for {where}" if where else f"{name} holds no number")
    return values


def where(**selection: str) -> str:
    """A selection as the arguments of xarray's `sel`."""
    return ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in selection.items())


def plain(estimate: Estimate) -> Estimate:
    """The estimate as Python floats."""
    return Estimate(float(estimate.value), float(estimate.low), float(estimate.high))


def model_record(results: xr.Dataset, model: str) -> dict:
    """What the provenance says of one model; empty where it says nothing."""
    return next((dict(m) for m in provenance(results).get("models", []) if m.get("name") == model), {})


# ---- judging ------------------------------------------------------------------------------------------------------------------


def above(estimate: Estimate, threshold: float) -> Verdict:
    """Supported where the whole interval lies above the threshold, contradicted where it lies below, undecided where it straddles."""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return Verdict.UNDECIDED
    if estimate.low > threshold:
        return Verdict.SUPPORTED
    return Verdict.CONTRADICTED if estimate.high < threshold else Verdict.UNDECIDED


def below(estimate: Estimate, threshold: float) -> Verdict:
    """`above` the other way round."""
    return above(Estimate(-estimate.value, -estimate.high, -estimate.low), -threshold)


def why_undecided(verdict: Verdict, estimate: Estimate, threshold: str) -> str:
    """The reason that goes with an undecided verdict; empty for the others."""
    if verdict is not Verdict.UNDECIDED:
        return ""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return "too few items for an interval"
    return f"the interval reaches across {threshold}"


# ---- writing ------------------------------------------------------------------------------------------------------------------


def decimals(value: float, low: float, high: float) -> int:
    """Decimal places that the error deserves: two digits of the interval's half-width where it starts with 1 or 2, else one."""
    half = (high - low) / 2
    scale = half if math.isfinite(half) and half > 0 else abs(value) / 100
    if not math.isfinite(scale) or scale <= 0:
        return 2
    exponent = math.floor(math.log10(scale))
    return -exponent + (1 if scale / 10**exponent < 3 else 0)


def number_text(value: float, places: int) -> str:
    """A number with that many decimal places; negative places round to tens, hundreds…"""
    if not math.isfinite(value):
        return "?"
    text = f"{round(value, places):,.{max(0, min(places, 8))}f}"
    return text.replace("-", "−") if float(text.replace(",", "")) else text.replace("-", "")


def interval_text(estimate: Estimate, *, scale: float = 1.0, suffix: str = "", places: int | None = None) -> str:
    """`0.87 [0.85, 0.88]`, digits following the error unless `places` are given; without an interval the number alone."""
    value, low, high = (float(v) * scale for v in estimate)
    places = decimals(value, low, high) if places is None else places
    text = f"{number_text(value, places)}{suffix}"
    if not (math.isfinite(low) and math.isfinite(high)):
        return text
    return f"{text} [{number_text(low, places)}, {number_text(high, places)}]"
