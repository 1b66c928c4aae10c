"""Across models (Fig. 3): does the error fall with size inside the shells and rise outside, and what drives it outside?"""

from __future__ import annotations

import numpy as np
import xarray as xr

from scorescope import statistics
from scorescope.findings.finding import (
    Judged,
    NotJudged,
    Verdict,
    above,
    below,
    interval_text,
    measured,
    model_record,
    number_text,
    plain,
    rule,
)
from scorescope.findings.fit import errors, mean_text
from scorescope.results import provenance
from scorescope.statistics import Estimate


def by_size(results: xr.Dataset) -> list[str]:
    """The models, smallest first.

    Raises:
        NotJudged: A size is unknown, or all are the same.
    """
    sizes = {str(name): int(model_record(results, str(name)).get("parameters") or 0) for name in results["model"].values}
    if not all(sizes.values()):
        raise NotJudged("the number of parameters of some model is not known")
    if len(set(sizes.values())) < 2:
        raise NotJudged("the models have the same number of parameters")
    return sorted(sizes, key=lambda name: sizes[name])


def size_text(results: xr.Dataset, model: str) -> str:
    """A model's number of parameters in three digits, with K, M or B."""
    return short_count(model_record(results, model).get("parameters") or 0)


def short_count(count: float) -> str:
    """1,234,567 as 1.23 M."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f}"


def _change(results: xr.Dataset, region: str) -> tuple[list[str], list[np.ndarray], Estimate]:
    names = by_size(results)
    values = [errors(results, name, region) for name in names]
    return names, values, plain(statistics.paired_bootstrap(values[0], values[-1]))


def _judged(
    results: xr.Dataset,
    region: str,
    found: tuple[list[str], list[np.ndarray], Estimate],
    verdict: Verdict,
    says: dict[Verdict, str],
    more: str = "",
) -> Judged:
    names, values, estimate = found
    start = float(np.nanmean(values[0]))
    relative = f" ({number_text(100 * estimate.value / start, 0)} %)" if start else ""
    steps = " → ".join(f"{mean_text(v)} ({size_text(results, name)})" for name, v in zip(names, values, strict=True))
    missing = not np.isfinite([estimate.low, estimate.high]).all()
    reason = ("too few items for an interval" if missing else "the interval contains 0") if verdict is Verdict.UNDECIDED else ""
    return Judged(
        says[verdict],
        f"{interval_text(estimate)}{relative}",
        "change {}",
        *estimate,
        len(values[0]),
        "paths",
        verdict,
        "score_error",
        f'region="{region}"',
        reason,
        f"Error per dimension, smallest to largest: {steps}.{more}",
    )


@rule(
    "shrinks",
    70,
    claim="Inside the shells the error falls as the model grows",
    rule="Score error in supervision, largest minus smallest model, on the same paths. Supported if the 95 % paired bootstrap interval "
    "lies below 0, contradicted if above.",
    chart="score_error_models",
    short="",
    needs=("score_error",),
    probe="score-error",
    about="models",
)
def shrinks(results: xr.Dataset, model: str) -> Judged:
    """Supervised error against size, smallest to largest model (Fig. 3, blue)."""
    found = _change(results, "supervision")
    says = {
        Verdict.SUPPORTED: "Inside the shells the error falls as the model grows",
        Verdict.CONTRADICTED: "Inside the shells the error rises as the model grows",
        Verdict.UNDECIDED: "Inside the shells no change of the error with size can be told",
    }
    return _judged(results, "supervision", found, below(found[2], 0), says)


@rule(
    "grows",
    75,
    claim="Outside the shells the error rises as the model grows",
    rule="Score error in extrapolation, largest minus smallest model, on paths from the same noise. Supported if the 95 % paired bootstrap "
    "interval lies above 0, contradicted if below.",
    chart="score_error_models",
    short="",
    needs=("score_error",),
    probe="score-error",
    about="models",
)
def grows(results: xr.Dataset, model: str) -> Judged:
    """Extrapolated error against size (Fig. 3, red), with what drives it: the distance of the model's mean from the nearest row."""
    found = _change(results, "extrapolation")
    says = {
        Verdict.SUPPORTED: "Outside the shells the error rises as the model grows",
        Verdict.CONTRADICTED: "Outside the shells the error falls as the model grows",
        Verdict.UNDECIDED: "Outside the shells no change of the error with size can be told",
    }
    return _judged(results, "extrapolation", found, above(found[2], 0), says, _distance_note(results, found[0]))


def _whose_states(results: xr.Dataset) -> str:
    """Whether the models were compared on the same states: comparing them on different ones confounds."""
    shared = provenance(results).get("settings", {}).get("shared_states")
    return f" All are asked on the states that {shared} samples." if shared else " Each model samples its own states, from the same noise."


def _distance_note(results: xr.Dataset, names: list[str]) -> str:
    """How far the model's posterior means lie from the nearest rows: blurry models look close, noisy ones far."""
    if "mean_to_nearest" not in results:
        return ""
    try:
        away = [
            mean_text(
                statistics.time_integral(measured(results, "mean_to_nearest", model=n, region="extrapolation"), results["time"].values)
            )
            for n in names
        ]
    except NotJudged:
        return ""
    return (
        f" What drives it: the distance of the model's posterior mean from the nearest row, per √dimension {' → '.join(away)}."
        + _whose_states(results)
    )
