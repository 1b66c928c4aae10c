"""What a run shows, in sentences that follow from numbers: results → findings, a sentence for everyone, three lines for the terminal.

A claim is a function of a results table. Each file of this folder has some in `CLAIMS`; they are found by looking, there is no list to
edit. Nobody need judge them all: `judge` takes any. One that can't be judged is listed with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import xarray as xr

from scorescope import registry
from scorescope.claims.claim import Claim, Finding, Judged, NotJudged, Verdict
from scorescope.claims.sentence import compose
from scorescope.results import checked, largest, misread, models, not_measured, provenance, samples_only, starts_from_rows

__all__ = ["Claim", "Finding", "Judged", "NotJudged", "Verdict", "every", "headline", "judge", "records", "sentence", "three"]

FIRST = ("leaves", "departs", "copies")  # what the first screen says, if it was judged
OF_SAMPLES = ("ratio_second", "ratio_calibrated", "copier_row")  # what says something of samples from noise alone
MISREAD = "This model cannot be judged as it is read."
NEXT = ("returns", "grows", "shrinks", "guidance", "fits", "renoised")  # what steps in, in this order


def every() -> list[Claim]:
    """The claims of all files of this folder, in order."""
    found = registry.every("scorescope.claims", "CLAIMS").values()
    return sorted((claim for some in found for claim in some), key=lambda claim: claim.order)


def judge(results: xr.Dataset, claims: Iterable[Claim] | None = None) -> list[Finding]:
    """Findings: `claims` in order, within a claim one finding a model, or one for the comparison or the bank.

    Unless `claims` are given they are all those of which the run was asked to measure something.

    Raises:
        InputError: The results are not an examination's, or are damaged.
    """
    names, reasons = models(checked(results)), not_measured(results)
    return [
        Finding(claim, model, _judged(claim, results, model, reasons))
        for claim in (_asked(results, reasons) if claims is None else claims)
        if claim.about != "models" or len(names) > 1
        for model in (names if claim.about == "model" else [""])
    ]


def _asked(results: xr.Dataset, reasons: dict[str, str]) -> list[Claim]:
    """The claims whose variables are there, or are missing for a reason."""
    return [claim for claim in every() if all(name in results or name in reasons for name in claim.needs)]


def _judged(claim: Claim, results: xr.Dataset, model: str, reasons: dict[str, str]) -> Judged:
    alone = samples_only(results)
    missing = [name for name in claim.needs if name not in results]
    refused = misread(results)
    try:
        if model in refused or (claim.about == "models" and refused):
            raise NotJudged(f"{model or ', '.join(refused)} is not read right")
        if alone and (model in alone or claim.about == "models") and not set(claim.needs) <= {*OF_SAMPLES[:2]}:
            raise NotJudged(f"the target is not E[x | z_t] ({alone.get(model) or ', '.join(alone)})")
        if missing:
            raise NotJudged(reasons.get(missing[0], f"this run did not measure {missing[0]}"))
        if (start := starts_from_rows(results, model)) is not None and claim.needs[0] in OF_SAMPLES:
            raise NotJudged(f"the model's noise ends at t = {start:.2f}: its samples start from training rows noised to there")
        if claim.reaches and (last := float(results["time"].values[-1])) < claim.reaches:
            raise NotJudged(f"the times measured end at t = {last:.2f}, short of t = {claim.reaches:g}")
        return claim.judge(results, model)
    except NotJudged as problem:
        return Judged(claim.sentence, Verdict.NOT_JUDGED, claim.needs[0], reason=str(problem))


def records(results: xr.Dataset, claims: Iterable[Claim] | None = None) -> list[dict[str, Any]]:
    """`judge` as values that JSON holds, one record a finding; what is not known is None.

    Keys: name, claim (the sentence that is judged), model, region (empty for none or several), value, low, high, n, unit, verdict, rule,
    text, means (for the reader), reason, variable.
    """
    return [
        {
            "name": one.claim.name,
            "claim": one.claim.sentence,
            "model": one.model,
            "region": one.judged.region,
            **{name: float(v) if math.isfinite(v) else None for name, v in one.judged.estimate._asdict().items()},
            "n": one.judged.n,
            "unit": one.judged.unit if one.judged.n else "",
            "verdict": one.judged.verdict.value,
            "rule": one.claim.rule,
            "text": one.text,
            "means": one.means,
            "reason": one.judged.reason,
            "variable": one.judged.variable,
        }
        for one in judge(results, claims)
    ]


def headline(results: xr.Dataset, found: list[Finding]) -> list[Finding]:
    """The three findings of the first screen, about the largest model; one that was not judged makes room for the next.

    None where that model is not read right.
    """
    if largest(results) in misread(results):
        return []
    known = {f.claim.name: f for f in found if f.model in ("", largest(results))}
    wanted = [known[name] for name in (*FIRST, *NEXT) if name in known]
    if "samples" in provenance(results) or largest(results) in samples_only(results):
        wanted = [known[name] for name in ("copies", "calibrated") if name in known]
    return sorted(wanted, key=lambda f: f.judged.verdict is Verdict.NOT_JUDGED)[:3]


def sentence(results: xr.Dataset, found: list[Finding]) -> str:
    """One sentence about the largest model that a stranger understands."""
    if largest(results) in misread(results):
        return MISREAD
    return compose(results, {f.claim.name: f.judged for f in found if f.model == largest(results)})


def three(results: xr.Dataset) -> list[str]:
    """The three main findings as plain lines for the terminal."""
    return [finding.line for finding in headline(results, judge(results))] or [MISREAD]
