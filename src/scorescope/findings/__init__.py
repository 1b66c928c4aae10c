"""What a run found, in sentences that follow from numbers: results → findings, a sentence for everyone, three lines for the terminal.

Reads only a results dataset. Every rule is judged for every model; one that can't be judged is listed with its reason.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import xarray as xr

from scorescope.findings.finding import CLAIMS, Claim, Finding, Judged, NotJudged, Verdict
from scorescope.findings.sentence import compose
from scorescope.results import provenance

__all__ = ["Finding", "Verdict", "capable", "claims", "headline", "judge", "sentence", "three"]

FIRST = ("leaves", "departs", "copies")  # what the first screen says, if it was judged
NEXT = ("returns", "grows", "shrinks", "guidance", "fits", "renoised")  # what steps in, in this order


def claims() -> list[Claim]:
    """Every claim that this package can test, in order."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return sorted(CLAIMS, key=lambda claim: claim.order)


def judge(results: xr.Dataset) -> list[Finding]:
    """All findings: claims in order, within a claim one finding a model (or one for the comparison, or for the bank)."""
    names = [str(name) for name in results["model"].values]
    reasons = {str(probe): str(reason) for probe, reason in provenance(results).get("not_judged", [])}
    found = []
    for claim in claims():
        if claim.about == "models" and len(names) < 2:
            continue
        for model in names if claim.about == "model" else [""]:
            found.append(_finding(claim, results, model, reasons))
    return found


def _finding(claim: Claim, results: xr.Dataset, model: str, reasons: dict[str, str]) -> Finding:
    missing = [name for name in claim.needs if name not in results]
    try:
        if missing:
            raise NotJudged(reasons.get(claim.probe, f"this run did not measure {missing[0]}"))
        judged = claim.judge(results, model)
    except NotJudged as problem:
        nan = float("nan")
        judged = Judged(claim.claim, "", "", nan, nan, nan, 0, "", Verdict.NOT_JUDGED, claim.needs[0], reason=str(problem))
    names: dict[str, Any] = {"id": claim.id, "model": model, "claim": claim.claim, "rule": claim.rule}
    return Finding(**vars(judged), **names, chart=claim.chart, short=claim.short, about=claim.about)


def capable(results: xr.Dataset) -> str:
    """The most capable model: the one with the most parameters, the last given where that is not known."""
    sizes = {m.get("name"): m.get("parameters") or 0 for m in provenance(results).get("models", [])}
    names = [str(name) for name in results["model"].values]
    return max(reversed(names), key=lambda name: sizes.get(name, 0))


def headline(results: xr.Dataset, found: list[Finding]) -> list[Finding]:
    """The three findings of the first screen, about the most capable model; one that was not judged makes room for the next."""
    model = capable(results)
    known = {f.id: f for f in found if f.model in ("", model)}
    wanted = [known[name] for name in (*FIRST, *NEXT) if name in known]
    return sorted(wanted, key=lambda f: f.verdict is Verdict.NOT_JUDGED)[:3]


def sentence(results: xr.Dataset, found: list[Finding]) -> str:
    """One sentence about the most capable model that a stranger understands."""
    return compose(results, {f.id: f for f in found if f.model == capable(results)})


def three(results: xr.Dataset) -> list[str]:
    """The three main findings as plain lines for the terminal."""
    return [finding.line for finding in headline(results, judge(results))]
