"""How well the model follows the empirical score: inside the shells, outside, on re-noised samples; and whether the measurement adds up."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from scorescope import statistics
from scorescope.claims.claim import Claim, Judged, NotJudged, Verdict, above, below, interval_text, measured, number_text
from scorescope.results import dimension, provenance
from scorescope.statistics import Estimate

CLOSE = 0.2
EXACT = 1e-6  # a score error per dimension below this is the arithmetic's, not the model's


def errors(results: xr.Dataset, model: str, region: str) -> np.ndarray:
    """Weighted score error of each path, averaged over t as in C.5: (path,)."""
    return statistics.time_integral(measured(results, "score_error", model=model, region=region), results["time"].values)


def ratio(before: np.ndarray, after: np.ndarray) -> Estimate:
    """mean(after) / mean(before) over the same paths, with its bootstrap interval."""
    change = statistics.paired_bootstrap(np.maximum(before, EXACT), after, relative=True)
    return Estimate(*(1 + float(v) for v in change))


def mean_text(values: np.ndarray) -> str:
    """The mean of paths in three digits, without its interval."""
    return f"{float(np.nanmean(values)):.3g}"


def fits(results: xr.Dataset, model: str) -> Judged:
    """Share of the velocity's variance that the model leaves unexplained inside the shells."""
    scale = 1 + float(provenance(results)["bank"]["radius"]) ** 2 / dimension(results)
    inside = errors(results, model, "supervision")
    estimate = statistics.bootstrap_mean(inside / scale)
    verdict, reason = below(estimate, CLOSE, "20 %")
    says = {
        Verdict.SUPPORTED: "Inside the training shells it fits the empirical score closely",
        Verdict.CONTRADICTED: "Inside the training shells it fits the empirical score only loosely",
        Verdict.UNDECIDED: "Whether it fits the empirical score closely inside the shells is undecided",
    }
    figure, phrase = interval_text(estimate, scale=100, suffix=" %"), "{} of the variance unexplained"
    n, region = int(np.isfinite(inside).sum()), "supervision"
    note = f"Error per dimension {mean_text(inside)}; always answering with the mean would err by {number_text(scale, 2)}."
    return Judged(says[verdict], verdict, "score_error", estimate, figure, phrase, n, region=region, reason=reason, note=note)


def departs(results: xr.Dataset, model: str) -> Judged:
    """Score error in extrapolation over supervision (Experiment 4.1)."""
    inside, outside = errors(results, model, "supervision"), errors(results, model, "extrapolation")
    n = int((np.isfinite(inside) & np.isfinite(outside)).sum())
    if max(np.nanmean(inside), np.nanmean(outside)) < EXACT:
        says, phrase = "It follows the empirical score everywhere", "error {} in both regions"
        return Judged(says, Verdict.CONTRADICTED, "score_error", figure="0", phrase=phrase, n=n)
    estimate = ratio(inside, outside)
    verdict, reason = above(estimate, 1, "1")
    found = {
        Verdict.SUPPORTED: "It departs from the empirical score outside the shells",
        Verdict.CONTRADICTED: "It follows the empirical score better outside the shells than inside",
        Verdict.UNDECIDED: "It errs as much inside the shells as outside",
    }
    figure, phrase = interval_text(estimate, suffix="×"), "error {} that inside"
    note = f"Error per dimension {mean_text(inside)} inside, {mean_text(outside)} outside."
    return Judged(found[verdict], verdict, "score_error", estimate, figure, phrase, n, reason=reason, note=note)


def renoised(results: xr.Dataset, model: str) -> Judged:
    """Score error of re-noised samples over that of training states, paired over paths."""
    inside, again = errors(results, model, "supervision"), errors(results, model, "renoised")
    if max(np.nanmean(inside), np.nanmean(again)) < EXACT:
        raise NotJudged("there is no error in either region")
    estimate = ratio(inside, again)
    verdict, reason = above(estimate, 1, "1")
    says = {
        Verdict.SUPPORTED: "Noised afresh, its samples are still harder than training rows",
        Verdict.CONTRADICTED: "Noised afresh, its samples are easier than training rows",
        Verdict.UNDECIDED: "Noised afresh, its samples are like training rows",
    }
    figure, phrase = interval_text(estimate, suffix="×"), "error {} that of training states"
    n, region = int((np.isfinite(inside) & np.isfinite(again)).sum()), "renoised"
    note = _control_note(results, model, again)
    return Judged(says[verdict], verdict, "score_error", estimate, figure, phrase, n, region=region, reason=reason, note=note)


REGION_WORDS = {"supervision": "in training", "renoised": "re-noised", "extrapolation": "while sampling"}


def _control_note(results: xr.Dataset, model: str, again: np.ndarray) -> str:
    notes = []
    try:
        outside = errors(results, model, "extrapolation")
        notes.append(f"Error per dimension {mean_text(again)} re-noised, {mean_text(outside)} on the sampling states themselves.")
        if "r_star" in results:
            middle = np.abs(results["time"].values - 0.5).argmin()
            r = {region: measured(results, "r_star", model=model, region=region)[:, middle] for region in REGION_WORDS}
            parts = [f"{np.nanmedian(r[region]):.2f} {word}" for region, word in REGION_WORDS.items()]
            notes.append(f"Median r* at t = {results['time'].values[middle]:.2f}: {', '.join(parts)}.")
    except NotJudged:
        pass
    return " ".join(notes)


def adds_up(results: xr.Dataset, model: str) -> Judged:
    """A check of the measurement itself: Eq. 3 says that the two losses differ by a constant, the optimum."""
    time = results["time"].values
    loss, best = (measured(results, name, model=model, region="supervision") for name in ("dsm_loss", "dsm_optimum"))
    error = measured(results, "score_error", model=model, region="supervision")
    left = statistics.time_integral(loss - best - error, time)
    estimate = statistics.bootstrap_mean(left, level=0.99)
    size = float(np.nanmean(statistics.time_integral(error, time)))
    verdict, reason = Verdict.CONTRADICTED, ""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        verdict, reason = Verdict.UNDECIDED, "too few items for an interval"
    elif min(abs(estimate.low), abs(estimate.high)) < EXACT or estimate.low <= 0 <= estimate.high:
        narrow = estimate.high - estimate.low <= 2 * max(size, EXACT)
        verdict, reason = (Verdict.SUPPORTED, "") if narrow else (Verdict.UNDECIDED, "the interval is wider than the score error itself")
    says = {
        Verdict.SUPPORTED: "The measurement adds up: supervision loss is denoising loss minus its optimum",
        Verdict.CONTRADICTED: "The measurement does not add up: supervision loss is not denoising loss minus its optimum",
        Verdict.UNDECIDED: "Too few paths to check the measurement against the denoising loss",
    }
    figure, phrase = interval_text(estimate), "difference {}"
    n, region = int(np.isfinite(left).sum()), "supervision"
    note = f"Denoising loss {mean_text(statistics.time_integral(loss, time))}, supervision loss {number_text(size, 3)}."
    return Judged(says[verdict], verdict, "dsm_loss", estimate, figure, phrase, n, region=region, reason=reason, note=note)


CLAIMS = (
    Claim(
        "fits",
        20,
        fits,
        "Inside the training shells the model fits the empirical score closely",
        "Score error in supervision, averaged over t, as a share of the error of always answering with the mean: 1 + variance of the data "
        "per dimension. Supported if the 95 % bootstrap interval lies below 20 %, contradicted if above.",
        needs=("score_error",),
        chart="score_error_time",
        short="error inside, share of variance",
    ),
    Claim(
        "departs",
        30,
        departs,
        "The model departs from the empirical score outside the shells",
        "Ratio of the score errors, averaged over t: sampling states over training states, paired over paths. Supported if the 95 % "
        "bootstrap interval lies above 1, contradicted if below, or if there is no error in either region.",
        needs=("score_error",),
        chart="score_error_time",
        short="error outside ÷ inside",
    ),
    Claim(
        "renoised",
        60,
        renoised,
        "Its finished samples lie off the training shells even when noised afresh",
        "The control for the path taken: finished samples are noised again, and the score error is set against that on training states. "
        "Supported if the 95 % interval of the ratio lies above 1, contradicted if below.",
        needs=("score_error",),
        chart="score_error_time",
        short="error re-noised ÷ inside",
    ),
    Claim(
        "adds-up",
        80,
        adds_up,
        "The measurement adds up: supervision loss equals denoising loss minus its optimum",
        "Per path, denoising loss − optimum − score error in supervision, averaged over t. Supported if the 99 % bootstrap interval of "
        "its mean contains 0 and is narrower than the score error, contradicted if it misses 0.",
        needs=("score_error", "dsm_loss", "dsm_optimum"),
        chart="supervision_loss",
    ),
)
