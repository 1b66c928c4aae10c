"""What a table of runs says of its recipes, in sentences with verdicts; the first recipe is what the others are compared with."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from scorescope.claims.claim import Claim, Finding, Judged, NotJudged, Verdict, below, decimals, interval_text, number_text
from scorescope.errors import InputError
from scorescope.recipes.lines import LEAST, Line, Shift, shift
from scorescope.recipes.table import efficiency, line, logarithmic, names, of, straightness, usable
from scorescope.statistics import Estimate

STEP = 0.01  # of the loss: "a loss lower by 1 %"


def less(rise: Estimate) -> Estimate:
    """A rise of a logarithm as the share by which the number itself is lower."""
    return Estimate(*(float(-np.expm1(v)) for v in (rise.value, rise.high, rise.low)))


def minus(rise: Estimate) -> Estimate:
    """The other way round."""
    return Estimate(-rise.value, -rise.high, -rise.low)


def share_text(share: Estimate) -> str:
    """`23 % [15, 30]`."""
    return interval_text(share, scale=100, suffix=" %")


def lower(rise: Estimate, log: bool) -> tuple[str, str]:
    """Whether a score that rises so is "lower" or "higher", and by how much."""
    fall = rise.value <= 0
    if log:
        return ("lower", share_text(less(rise))) if fall else ("higher", share_text(Estimate(*(float(np.expm1(v)) for v in rise))))
    return ("lower", interval_text(minus(rise))) if fall else ("higher", interval_text(rise))


def span_text(low: float, high: float) -> str:
    """`0.1458 to 0.1529`: as many digits as tell the ends apart."""
    places = max(decimals(low, low, high), decimals(high, low, high)) + 1
    return f"{number_text(low, places)} to {number_text(high, places)}"


def power_text(low: float, high: float) -> str:
    """`1.2e13 to 3.4e14`."""
    return " to ".join(f"{value:.2g}".replace("e+", "e") for value in (low, high))


# ---- a recipe -----------------------------------------------------------------------------------------------------------------


def described(runs: xr.Dataset, recipe: str) -> str:
    """The line of a recipe, in one sentence: slope and height. Why there is none where there is none."""
    try:
        log = logarithmic(runs)
        own = line(runs, recipe, log)
    except InputError as problem:
        return problem.problem
    title, step = runs.attrs["score"], own.per(STEP * own.centre)
    fall, by = lower(minus(step), log)
    height = own.at(own.centre)
    level = Estimate(*(math.exp(v) for v in height)) if log else height
    doubt = ", which no slope can be told from" if step.low <= 0 <= step.high else ""
    where = number_text(own.centre, decimals(own.centre, own.low, own.high) + 1)
    return (
        f"{recipe}: a loss lower by 1 % goes with {title} {fall} by {by}{doubt}; at a loss of {where} the line is at "
        f"{interval_text(level)} ({len(own.x)} runs, losses {span_text(own.low, own.high)})"
    )


def judge_straighter(runs: xr.Dataset, recipe: str) -> Judged:
    """Whether the logarithm of the score is the straighter line of the loss, and how either bends.

    Raises:
        NotJudged: There is no line.
    """
    title = runs.attrs["score"]
    try:
        found = straightness(runs, recipe)
    except InputError as problem:
        raise NotJudged(problem.problem) from problem
    n, (least, most) = runs_of(runs, recipe), found.without
    ends = [least, most] + [v for v in found.ratio[1:] if math.isfinite(v)]
    verdict, reason = Verdict.UNDECIDED, "which of them depends on single runs"
    if n <= LEAST:
        reason = f"{LEAST} runs are too few to tell, {LEAST + 1} could"
    elif min(ends) > 1:
        verdict, reason = Verdict.SUPPORTED, ""
    elif max(ends) < 1:
        verdict, reason = Verdict.CONTRADICTED, ""
    elif not math.isnan(found.ratio.low) and found.ratio.low <= 1 <= found.ratio.high:
        reason = "the interval reaches across 1"
    plain, log = _bends(title, found.plain), _bends(f"ln {title}", found.log)
    says = {
        Verdict.SUPPORTED: f"{recipe}: {f'{plain} as the loss falls, ' if plain else ''}ln {title} is the straighter line of the loss",
        Verdict.CONTRADICTED: f"{recipe}: {title} itself is the straighter line of the loss",
        Verdict.UNDECIDED: f"{recipe}: whether {title} or ln {title} is the straighter line of the loss can't be told",
    }[verdict]
    turned, about = found.ratio.value < 1, f"{title} is off its line by {{}} times as much as ln {title}"
    shown = Estimate(1 / found.ratio.value, 1 / found.ratio.high, 1 / found.ratio.low) if turned else found.ratio
    if turned:
        least, most, about = 1 / most, 1 / least, f"ln {title} is off its line by {{}} times as much as {title}"
    without = f", {least:.2g} to {most:.2g} with any one run left out" if math.isfinite(least) else ""
    said = [one for one in (plain, log) if one and one not in says]
    note = f"As the loss falls {' and '.join(said)}." if said else ""
    return Judged(says, verdict, "score", shown, interval_text(shown, places=1), about + without, n, "runs", reason=reason, note=note)


def _bends(title: str, bend: Estimate) -> str:
    """What a line that can't be straight does as the loss falls; empty where it may be straight."""
    if math.isnan(bend.low) or bend.low <= 0 <= bend.high:
        return ""
    return f"{title} {'flattens' if bend.value > 0 else 'steepens'}"


def runs_of(runs: xr.Dataset, recipe: str) -> int:
    """How many runs a recipe has."""
    return int(of(runs, recipe).sizes["run"])


# ---- two recipes --------------------------------------------------------------------------------------------------------------


def first(runs: xr.Dataset) -> str:
    """What others are compared with."""
    return names(runs)[0]


def judge_extrapolates(runs: xr.Dataset, recipe: str) -> Judged:
    """Whether a recipe's line lies below the first one's at equal loss, on the common range alone.

    Raises:
        NotJudged: A line is missing, or the losses have no range in common.
    """
    title, log, base = runs.attrs["score"], logarithmic(runs), first(runs)
    try:
        found, other = (_shift(runs, base, recipe, scale) for scale in (log, not log))
    except InputError as problem:
        raise NotJudged(problem.problem) from problem
    verdict, reason = below(found.middle, 0, "0")
    crossing = found.ends[0].high < 0 < found.ends[1].low or found.ends[1].high < 0 < found.ends[0].low
    if crossing:
        verdict, reason = Verdict.UNDECIDED, "the lines cross: which is lower depends on the loss"
    better, worse = (recipe, base) if verdict is Verdict.SUPPORTED else (base, recipe)
    says = f"{better} extrapolates better than {worse}"
    if verdict is Verdict.UNDECIDED:
        says = f"which of {base} and {recipe} extrapolates better can't be told"
    side, by = lower(found.middle, log)
    text = f"at equal loss {title} of {recipe} is {side} by {{}}, over losses {span_text(found.low, found.high)}"
    counts = f"{runs_of(runs, base)} and {runs_of(runs, recipe)}"
    note = ""
    if other is not None:
        side, other_by = lower(other.middle, not log)
        note = f"By lines of {title if log else f'ln {title}'}: {side} by {other_by}. {counts} runs."
    return Judged(says, verdict, "score", found.middle, by, text, 0, "runs", reason=reason, note=note)


def _shift(runs: xr.Dataset, base: str, recipe: str, log: bool) -> Shift:
    return shift(line(runs, base, log), line(runs, recipe, log))


def judge_fits(runs: xr.Dataset, recipe: str) -> Judged:
    """Whether a recipe has the lower loss at equal compute, on the common range alone.

    Raises:
        NotJudged: Compute is not known, or has no range in common.
    """
    base = first(runs)
    try:
        found = shift(efficiency(runs, base), efficiency(runs, recipe))
    except InputError as problem:
        best = {name: float(of(runs, name)["loss"].min()) for name in (base, recipe)}
        said = ", ".join(f"{name} {value:.4g}" for name, value in best.items())
        known = np.isfinite(of(runs, base)["compute"]).all() and np.isfinite(of(runs, recipe)["compute"]).all()
        why = problem.problem if known else "the compute of some runs is not known"
        raise NotJudged(f"{why}; lowest losses: {said}") from problem
    verdict, reason = below(found.middle, 0, "0")
    better, worse = (recipe, base) if verdict is Verdict.SUPPORTED else (base, recipe)
    says = f"{better} fits better than {worse}"
    if verdict is Verdict.UNDECIDED:
        says = f"which of {base} and {recipe} fits better can't be told"
    side, by = lower(found.middle, True)
    compute = power_text(math.exp(found.low), math.exp(found.high))
    return Judged(says, verdict, "loss", found.middle, by, f"at equal compute the loss of {recipe} is {side} by {{}}, over {compute} FLOP",
                  reason=reason)  # fmt: skip


CLAIMS = {
    "straighter": Claim(
        "straighter",
        10,
        judge_straighter,
        "The logarithm of the score is a straighter line of the supervision loss than the score",
        "Residuals of both lines in one unit (ln score times the scores' geometric mean). Supported if those of ln score are smaller with "
        "any one run left out, and in 95 % of what other states and samples would have given; contradicted if larger in all of these. "
        "Four runs or more.",
        needs=("loss", "score"),
        about="recipe",
    ),
    "fits": Claim(
        "fits",
        20,
        judge_fits,
        "The recipe has a lower supervision loss than the first at equal compute",
        "Lines of ln loss against ln compute; their difference averaged over the common range of compute. Supported if its 95 % interval "
        "lies below 0, contradicted if above.",
        needs=("loss", "compute"),
        about="recipe",
    ),
    "extrapolates": Claim(
        "extrapolates",
        30,
        judge_extrapolates,
        "The recipe has a lower score than the first at equal supervision loss",
        "Lines of the score against the loss, or of ln score where those are straighter over all recipes; their difference averaged over "
        "the common range of losses. Supported if its 95 % interval lies below 0, contradicted if above; undecided where the lines cross.",
        needs=("loss", "score"),
        about="recipe",
    ),
}


def findings(runs: xr.Dataset) -> list[Finding]:
    """All that is said: of every recipe whether its line is straight, of every one but the first how it compares."""
    recipes = names(runs)
    asked = [("straighter", name) for name in usable(runs)]
    asked += [(claim, name) for name in recipes[1:] for claim in ("fits", "extrapolates")]
    return [Finding(CLAIMS[claim], name, judged(runs, claim, name)) for claim, name in asked]


def judged(runs: xr.Dataset, claim: str, recipe: str) -> Judged:
    """A claim's verdict on a recipe; "not judged", with the reason, where it can't be."""
    one = CLAIMS[claim]
    says = one.sentence if claim == "straighter" else f"whether {recipe} or {first(runs)} {claim} better"
    try:
        return one.judge(runs, recipe)
    except NotJudged as problem:
        return Judged(says, Verdict.NOT_JUDGED, one.needs[-1], reason=str(problem))


def sign(verdict: Verdict) -> str:
    """● where the data can tell, whichever way; ○ where they can't; – where nothing was to be judged."""
    return Verdict.SUPPORTED.symbol if verdict is Verdict.CONTRADICTED else verdict.symbol


def sentences(runs: xr.Dataset) -> list[str]:
    """Everything in words, a line each."""
    told = [f"  {described(runs, name)}" for name in names(runs)]
    for one in findings(runs):
        told.append(f"{sign(one.judged.verdict)} {one.text}{f'. {one.judged.note}' if one.judged.note else ''}")
    return told


# ---- numbers ------------------------------------------------------------------------------------------------------------------


def record(runs: xr.Dataset) -> dict[str, Any]:
    """Lines, shifts and verdicts as plain values; numbers that are not known are null."""
    recipes, log = names(runs), logarithmic(runs)
    both = (False, True) if (runs["score"].values > 0).all() else (False,)
    lines: list[dict[str, Any]] = []
    shifts: list[dict[str, Any]] = []
    for name in usable(runs):
        lines += [_line(name, "ln score" if scale else "score", line(runs, name, scale)) for scale in both]
    for name in recipes[1:]:
        for scale in both:
            try:
                found = _shift(runs, recipes[0], name, scale)
            except InputError:
                continue
            shifts.append({"recipe": name, "against": recipes[0], "of": "ln score" if scale else "score", **_plain(asdict(found))})
    said = [
        {"claim": one.claim.name, "recipe": one.model, "verdict": one.judged.verdict.value, "text": one.text, "note": one.judged.note,
         "rule": one.claim.rule}
        for one in findings(runs)
    ]  # fmt: skip
    attrs = {name: runs.attrs[name] for name in ("score", "loss")}
    return {**attrs, "compared_by": "ln score" if log else "score", "lines": lines, "shifts": shifts, "claims": said}


def _line(recipe: str, of_what: str, own: Line) -> dict[str, Any]:
    slope = own.per(1.0)
    told = {"slope": slope._asdict(), "height": own.at(own.centre)._asdict(), "bend": own.bend._asdict()}
    ends = {"at": own.centre, "low": own.low, "high": own.high, "runs": len(own.x)}
    return {"recipe": recipe, "of": of_what, **_plain({**told, **ends})}


def _plain(value: Any) -> Any:
    """Estimates as records, and NaN as None, which JSON has."""
    if isinstance(value, Estimate):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
