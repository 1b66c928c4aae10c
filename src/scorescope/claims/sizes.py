"""Across models (Fig. 3): does the error fall with size inside the shells and rise outside, and what drives it outside?"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import xarray as xr

from scorescope import statistics
from scorescope.claims.claim import Claim, Judged, NotJudged, Verdict, above, below, interval_text, measured
from scorescope.claims.fit import RANGE, errors, mean_text
from scorescope.results import parameters, provenance
from scorescope.statistics import Estimate


def by_size(results: xr.Dataset) -> list[str]:
    """The models, smallest first; those of the same size in the order given.

    Raises:
        NotJudged: A size is unknown, or all are the same.
    """
    sizes = parameters(results)
    if any(math.isnan(size) for size in sizes.values()):
        raise NotJudged("the number of parameters of some model is not known")
    if len(set(sizes.values())) < 2:
        raise NotJudged("the models have the same number of parameters")
    return sorted(sizes, key=lambda name: sizes[name])


def slope(values: list[np.ndarray], sizes: list[float]) -> np.ndarray:
    """Of each path, the least-squares slope of its error against log10 of the parameters, over all models: (path,)."""
    x = np.log10(sizes) - np.mean(np.log10(sizes))
    return np.tensordot(x / (x @ x), np.stack(values), 1)


def short_count(count: float) -> str:
    """1,234,567 as 1.23 M."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f}"


def _change(
    results: xr.Dataset, region: str, where: str, judge: Callable[[Estimate, float, str], tuple[Verdict, str]], supported: str
) -> Judged:
    """The trend of the error in one region over all models, judged against 0; steps that go the other way leave it undecided."""
    names, sizes = by_size(results), parameters(results)
    values = [errors(results, name, region) for name in names]
    estimate = Estimate(*map(float, statistics.bootstrap_mean(slope(values, [sizes[name] for name in names]))))
    verdict, reason = judge(estimate, 0, "0")
    back = [f"{a} → {b}" for (a, v), (b, w) in itertools.pairwise(zip(names, values, strict=True)) if _goes(v, w, -estimate.value)]
    if verdict in (Verdict.SUPPORTED, Verdict.CONTRADICTED) and back:
        verdict, reason = Verdict.UNDECIDED, f"the error goes the other way in {', '.join(back)}"
    steps = " → ".join(f"{mean_text(v)} ({short_count(sizes[name])})" for name, v in zip(names, values, strict=True))
    opposite = {"falls": "rises", "rises": "falls"}[supported]
    says = {
        Verdict.SUPPORTED: f"{where} the shells the error {supported} as the model grows",
        Verdict.CONTRADICTED: f"{where} the shells the error {opposite} as the model grows",
        Verdict.UNDECIDED: f"{where} the shells no trend of the error with size can be told",
    }
    figure, n = interval_text(estimate), len(values[0])
    note = f"Error per dimension ({RANGE}), smallest to largest: {steps}." + (_distance_note(results, names) if where == "Outside" else "")
    phrase = f"{{}} for ten times the parameters ({RANGE})"
    return Judged(says[verdict], verdict, "score_error", estimate, figure, phrase, n, region=region, reason=reason, note=note)


def _goes(before: np.ndarray, after: np.ndarray, direction: float) -> bool:
    """Whether the error changes in a direction (its sign) from one model to the next, beyond its interval."""
    change = statistics.paired_bootstrap(before, after)
    return bool(change.low > 0 if direction > 0 else change.high < 0)


def shrinks(results: xr.Dataset, model: str) -> Judged:
    """Supervised error against size, smallest to largest model (Fig. 3, blue)."""
    return _change(results, "supervision", "Inside", below, "falls")


def grows(results: xr.Dataset, model: str) -> Judged:
    """Extrapolated error against size (Fig. 3, red), with what drives it: the distance of the model's mean from the nearest row."""
    return _change(results, "extrapolation", "Outside", above, "rises")


def _distance_note(results: xr.Dataset, names: list[str]) -> str:
    """How far the model's posterior means lie from the nearest rows (blurry models look close, noisy ones far), and on whose states."""
    if "mean_to_nearest" not in results:
        return ""
    try:
        away = [measured(results, "mean_to_nearest", model=name, region="extrapolation") for name in names]
    except NotJudged:
        return ""
    means = " → ".join(mean_text(statistics.time_average(one, results["time"].values)) for one in away)
    shared = provenance(results).get("settings", {}).get("shared_states")  # comparing models on different states confounds
    states = f"All are asked on the states that {shared} samples" if shared else "Each model samples its own states, from the same noise"
    return f" What drives it: the distance of the model's posterior mean from the nearest row, per √dimension {means}. {states}."


CLAIMS = (
    Claim(
        "shrinks",
        70,
        shrinks,
        "Inside the shells the error falls as the model grows",
        "Score error in supervision, averaged over t from 0.1 to 1: slope against the logarithm of the parameters over all models, path by "
        "path. Supported if its 95 % bootstrap interval lies below 0, contradicted if above; undecided where a step goes the other way.",
        needs=("score_error",),
        chart="score_error_models",
        about="models",
        means={
            "supported": "Larger models copy the training data better where they see it.",
            "contradicted": "Larger is not better trained here: look at the training of each.",
            "undecided": "More paths, or more models, would decide.",
        },
    ),
    Claim(
        "grows",
        75,
        grows,
        "Outside the shells the error rises as the model grows",
        "Score error in extrapolation, averaged over t from 0.1 to 1, on paths from the same noise: slope against the logarithm of the "
        "parameters over all models, path by path. Supported if its 95 % bootstrap interval lies above 0, contradicted if below; "
        "undecided where a step goes the other way.",
        needs=("score_error",),
        chart="score_error_models",
        about="models",
        means={
            "supported": "Larger models are freer where samples are made: fit and samples part ways.",
            "contradicted": "Larger models come nearer to a copier where samples are made, too.",
            "undecided": "More paths, or more models, would decide.",
        },
    ),
)
