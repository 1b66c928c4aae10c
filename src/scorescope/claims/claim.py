"""What a claim is, and what is found when it is judged.

A claim's `judge` is a function `(results, model) -> Judged`; it raises `NotJudged(reason)` where the results do not allow a judgement.
What follows the classes is for such functions: reading results, judging an estimate by a threshold, writing a number with its interval.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import xarray as xr

from scorescope.statistics import Estimate

UNKNOWN = Estimate(math.nan, math.nan, math.nan)


class Verdict(StrEnum):
    """What the data say about the sentence that a finding shows. One without a threshold is not judged, never passed.

    An alarm is a sentence that the data support, and that somebody should act on.
    """

    SUPPORTED = "supported"
    ALARM = "alarm"
    CONTRADICTED = "contradicted"
    UNDECIDED = "undecided"
    NOT_JUDGED = "not judged"

    @property
    def symbol(self) -> str:
        """The sign that stands for the verdict beside the word, so that colour is never needed."""
        return {"supported": "●", "alarm": "◆", "contradicted": "▲", "undecided": "○"}.get(self.value, "–")


class NotJudged(Exception):
    """Raised by a judge: the claim can't be judged on these results, and why."""


@dataclass(frozen=True)
class Judged:
    """What a judge found.

    Attributes:
        says: The sentence that the data support, whatever the claim was; no full stop.
        verdict: On the claim, or, for an alarm, on the sentence.
        variable: Where the number comes from in the results.
        estimate: The number and its interval; NaN where there is none.
        figure: The same as text, digits following the error.
        phrase: The words around the figure, which stands for `{}`.
        n: How many independent items the number rests on.
        unit: What these items are.
        region: The region that the number is of; empty for none or several.
        reason: Why undecided or not judged; empty otherwise.
        note: What else a reader should know.
    """

    says: str
    verdict: Verdict
    variable: str
    estimate: Estimate = UNKNOWN
    figure: str = ""
    phrase: str = "{}"
    n: int = 0
    unit: str = "paths"
    region: str = ""
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Claim:
    """A claim that can be tested, and the rule that tests it.

    Attributes:
        name: Of the claim, as `records` give it.
        order: Place in lists.
        judge: From results and a model's name to what was found; the name is empty where the claim is not about one model.
        sentence: The sentence tested.
        rule: How the verdict is reached, in words.
        needs: Variables of the results without which it can't be judged.
        chart: Name of the chart that shows the number; empty for none.
        short: Heading of its line in a table of models; without one it has no line.
        means: What a verdict means for whoever uses the model or the data, by verdict; those that are left out say nothing more.
        about: "model", "models" (their comparison) or "bank".
        reaches: A time to which the rule looks; where the models' noise ends before it, the claim can't be judged.
    """

    name: str
    order: int
    judge: Callable[[xr.Dataset, str], Judged]
    sentence: str
    rule: str
    needs: tuple[str, ...]
    chart: str = ""
    short: str = ""
    means: Mapping[str, str] = field(default_factory=dict)
    about: str = "model"
    reaches: float = 0.0


@dataclass(frozen=True)
class Finding:
    """A claim, judged: about one model, or, where `model` is empty, about all of them or about the bank."""

    claim: Claim
    model: str
    judged: Judged

    @property
    def value(self) -> str:
        """The figure in its words."""
        return self.judged.phrase.format(self.judged.figure) if self.judged.figure else ""

    @property
    def count(self) -> str:
        """What the number rests on ("100 paths"); empty for facts about the bank, which are exact."""
        return f"{self.judged.n:,} {self.judged.unit}" if self.judged.n and self.claim.about != "bank" else ""

    @property
    def text(self) -> str:
        """What was found, with its number, in one line."""
        tail = f": {', '.join(part for part in (self.value, self.count) if part)}" if self.value else ""
        return f"{self.judged.says}{tail}" + (f" ({self.judged.reason})" if self.judged.reason else "")

    @property
    def line(self) -> str:
        """The same behind the sign of its verdict; what contradicts the claim says so."""
        against = f"; this contradicts “{self.claim.sentence}”" if self.judged.verdict is Verdict.CONTRADICTED else ""
        return f"{self.judged.verdict.symbol} {self.text}{against}"

    @property
    def means(self) -> str:
        """What that means for the reader, if anything."""
        return self.claim.means.get(self.judged.verdict, "")

    @property
    def source(self) -> str:
        """Python that reads the finding's variable from the results."""
        chosen = {"model": self.model, "region": self.judged.region}
        where = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in chosen.items() if value)
        return f'results["{self.judged.variable}"]' + (f".sel({where})" if where else "")


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


# ---- judging ------------------------------------------------------------------------------------------------------------------


def above(estimate: Estimate, threshold: float, named: str) -> tuple[Verdict, str]:
    """Supported where the whole interval lies above the threshold, contradicted where it lies below, undecided where it straddles.

    The reason that goes with an undecided verdict calls the threshold `named`; it is empty for the others.
    """
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return Verdict.UNDECIDED, "too few items for an interval"
    if estimate.low > threshold:
        return Verdict.SUPPORTED, ""
    return (Verdict.CONTRADICTED, "") if estimate.high < threshold else (Verdict.UNDECIDED, f"the interval reaches across {named}")


def below(estimate: Estimate, threshold: float, named: str) -> tuple[Verdict, str]:
    """`above` the other way round."""
    return above(Estimate(-estimate.value, -estimate.high, -estimate.low), -threshold, named)


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


def percent(share: float) -> str:
    """A share with about two digits: `5.7 %`, `16 %`."""
    return f"{number_text(100 * share, 0 if share >= 0.0995 else 1 if share >= 0.00995 or not share else 2)} %"
