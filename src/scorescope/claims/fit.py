"""How well the model follows the empirical score: inside the shells, outside, on re-noised samples; and whether the measurement adds up.

Every error here is a mean over paths of the score error averaged over t from 0.1 to 1 (`statistics.integrated_error`), per dimension.
"""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from scorescope import statistics
from scorescope.claims.claim import Claim, Judged, NotJudged, Verdict, above, decimals, interval_text, measured, number_text
from scorescope.results import models
from scorescope.statistics import Estimate

CLOSE = 0.8
EXACT = 1e-6  # of the Gaussian denoiser's error: what is below is the arithmetic's, not the model's
FROM = (0.01, 0.02, 0.05, 0.1, 0.2)
RANGE = "t from 0.1 to 1"


def errors(results: xr.Dataset, model: str, region: str, name: str = "score_error", low: float = statistics.ERROR_FROM) -> np.ndarray:
    """Weighted score error of each path, averaged over t from `low` to 1: (path,)."""
    return statistics.integrated_error(measured(results, name, model=model, region=region), results["time"].values, low)


def ratio(before: np.ndarray, after: np.ndarray, level: float = 0.95) -> Estimate:
    """mean(after) / mean(before) over the same paths, with its bootstrap interval."""
    change = statistics.paired_bootstrap(before, after, level=level, relative=True)
    return Estimate(*(1 + float(v) for v in change))


def mean_text(values: np.ndarray) -> str:
    """The mean of paths in three digits, without its interval."""
    return f"{float(np.nanmean(values)):.3g}"


def none(results: xr.Dataset, model: str, *found: np.ndarray) -> bool:
    """Whether errors are the arithmetic's alone: a millionth of the Gaussian denoiser's, or of the data's scale where that is unknown."""
    try:
        scale = float(np.nanmean(errors(results, model, "supervision", "gaussian_error")))
    except (NotJudged, KeyError):
        scale = 1.0
    return max(float(np.nanmean(one)) for one in found) <= EXACT * scale


def fits(results: xr.Dataset, model: str) -> Judged:
    """How much of what the best linear denoiser leaves the model has learned: 1 − its score error over the Gaussian's."""
    inside, linear = errors(results, model, "supervision"), errors(results, model, "supervision", "gaussian_error")
    if not np.nanmean(linear) > 0:
        raise NotJudged("the Gaussian denoiser of the bank is exact: there is nothing left to learn")
    left = ratio(linear, inside)
    estimate = Estimate(1 - left.value, 1 - left.high, 1 - left.low)
    verdict, reason = above(estimate, CLOSE, f"{CLOSE:.0%}".replace("%", " %"))
    says = {
        Verdict.SUPPORTED: "Inside the training shells it fits the empirical score closely",
        Verdict.CONTRADICTED: "Inside the training shells it fits the empirical score only loosely",
        Verdict.UNDECIDED: "Whether it fits the empirical score closely inside the shells is undecided",
    }
    if estimate.high < 0:
        says[Verdict.CONTRADICTED] = "Inside the training shells it fits the empirical score worse than the best linear denoiser"
    places = min(1, decimals(*(100 * value for value in estimate)))
    figure, phrase = interval_text(estimate, scale=100, suffix=" %", places=places), "{} of what a linear denoiser leaves is learned"
    n, region = int(np.isfinite(inside).sum()), "supervision"
    note = f"Error per dimension {mean_text(inside)} ({RANGE}); the best linear denoiser, the bank's Gaussian, errs by {mean_text(linear)}."
    return Judged(says[verdict], verdict, "score_error", estimate, figure, phrase, n, region=region, reason=reason, note=note)


def remembers(results: xr.Dataset, model: str) -> Judged:
    """Denoising loss on held-out rows over that on training rows, paired by noise and class."""
    seen, unseen = (errors(results, model, region, "dsm_loss") for region in ("supervision", "held-out"))
    estimate = Estimate(*(v - 1 for v in ratio(seen, unseen, statistics.STRICT)))
    verdict, reason = above(estimate, 0, "0")
    says = {
        Verdict.SUPPORTED: "It denoises its training rows better than rows it never saw",
        Verdict.CONTRADICTED: "It denoises held-out rows better than these: it was not trained on these rows",
        Verdict.UNDECIDED: "It denoises held-out rows as well as training rows: no sign that it was trained on just these",
    }
    figure, phrase = interval_text(estimate, scale=100, suffix=" %"), "on held-out rows the loss changes by {}"
    n = int((np.isfinite(seen) & np.isfinite(unseen)).sum())
    notes = [f"Denoising loss per dimension {mean_text(seen)} on training rows, {mean_text(unseen)} on held-out ones ({RANGE})."]
    if "gaussian_loss" in results:
        linear = errors(results, model, "held-out", "gaussian_loss")
        notes.append(f"The Gaussian denoiser of the bank: {mean_text(linear)} on held-out rows.")
    note, region = " ".join(notes), "held-out"
    return Judged(says[verdict], verdict, "dsm_loss", estimate, figure, phrase, n, region=region, reason=reason, note=note)


def departs(results: xr.Dataset, model: str) -> Judged:
    """Score error in extrapolation over supervision (Experiment 4.1)."""
    inside, outside = errors(results, model, "supervision"), errors(results, model, "extrapolation")
    n = int((np.isfinite(inside) & np.isfinite(outside)).sum())
    if none(results, model, inside, outside):
        says, phrase = "It follows the empirical score everywhere", "error {} in both regions"
        return Judged(says, Verdict.CONTRADICTED, "score_error", figure="0", phrase=phrase, n=n)
    if not np.nanmean(inside) > 0:
        says, phrase = "It departs from the empirical score outside the shells", "error 0 inside, {} outside"
        return Judged(says, Verdict.SUPPORTED, "score_error", figure=mean_text(outside), phrase=phrase, n=n)
    estimate = ratio(inside, outside)
    verdict, reason = above(estimate, 1, "1")
    found = {
        Verdict.SUPPORTED: "It departs from the empirical score outside the shells",
        Verdict.CONTRADICTED: "It follows the empirical score better outside the shells than inside",
        Verdict.UNDECIDED: "It errs as much inside the shells as outside",
    }
    figure, phrase = interval_text(estimate, suffix="×"), f"error {{}} that inside ({RANGE})"
    note = f"Error per dimension {mean_text(inside)} inside, {mean_text(outside)} outside."
    return Judged(found[verdict], verdict, "score_error", estimate, figure, phrase, n, reason=reason, note=note)


def renoised(results: xr.Dataset, model: str) -> Judged:
    """Score error of re-noised samples over that of training states, paired over paths."""
    inside, again = errors(results, model, "supervision"), errors(results, model, "renoised")
    if none(results, model, inside, again):
        raise NotJudged("there is no error in either region")
    if not np.nanmean(inside) > 0:
        raise NotJudged("there is no error on training states to compare with")
    estimate = ratio(inside, again)
    verdict, reason = above(estimate, 1, "1")
    says = {
        Verdict.SUPPORTED: "Noised afresh, its samples are still harder than training rows",
        Verdict.CONTRADICTED: "Noised afresh, its samples are easier than training rows",
        Verdict.UNDECIDED: "Noised afresh, its samples are like training rows",
    }
    figure, phrase = interval_text(estimate, suffix="×"), f"error {{}} that of training states ({RANGE})"
    n, region = int((np.isfinite(inside) & np.isfinite(again)).sum()), "renoised"
    note = _control_note(results, model, again)
    return Judged(says[verdict], verdict, "score_error", estimate, figure, phrase, n, region=region, reason=reason, note=note)


REGION_WORDS = {"supervision": "in training", "renoised": "re-noised", "held-out": "on held-out rows", "extrapolation": "while sampling"}


def _control_note(results: xr.Dataset, model: str, again: np.ndarray) -> str:
    notes = []
    try:
        outside = errors(results, model, "extrapolation")
        notes.append(f"Error per dimension {mean_text(again)} re-noised, {mean_text(outside)} on the sampling states themselves.")
        if "held-out" in results["region"].values:
            notes.append(f"On held-out rows, which generalizing alone would give: {mean_text(errors(results, model, 'held-out'))}.")
        if "r_star" in results:
            middle = np.abs(results["time"].values - 0.5).argmin()
            present = [region for region in REGION_WORDS if region in results["region"].values]
            r = {region: measured(results, "r_star", model=model, region=region)[:, middle] for region in present}
            parts = [f"{np.nanmedian(r[region]):.2f} {REGION_WORDS[region]}" for region in present]
            notes.append(f"Median r* at t = {results['time'].values[middle]:.2f}: {', '.join(parts)}.")
    except NotJudged:
        pass
    return " ".join(notes)


def adds_up(results: xr.Dataset, model: str) -> Judged:
    """A check of the measurement itself: Eq. 3 says that the two losses differ by a constant, the optimum."""
    time = results["time"].values
    loss, best = (measured(results, name, model=model, region="supervision") for name in ("dsm_loss", "dsm_optimum"))
    error = measured(results, "score_error", model=model, region="supervision")
    left = statistics.integrated_error(loss - best - error, time)
    estimate = statistics.bootstrap_mean(left, level=statistics.STRICT)
    size, scale = float(np.nanmean(statistics.integrated_error(error, time))), float(np.nanmean(statistics.integrated_error(loss, time)))
    verdict, reason = Verdict.CONTRADICTED, ""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        verdict, reason = Verdict.UNDECIDED, "too few items for an interval"
    elif min(abs(estimate.low), abs(estimate.high)) <= EXACT * scale or estimate.low <= 0 <= estimate.high:
        narrow = estimate.high - estimate.low <= 2 * max(size, EXACT * scale)
        verdict, reason = (Verdict.SUPPORTED, "") if narrow else (Verdict.UNDECIDED, "the interval is wider than the score error itself")
    says = {
        Verdict.SUPPORTED: "The measurement adds up: supervision loss is denoising loss minus its optimum",
        Verdict.CONTRADICTED: "The measurement does not add up: supervision loss is not denoising loss minus its optimum",
        Verdict.UNDECIDED: "Too few paths to check the measurement against the denoising loss",
    }
    figure, phrase = interval_text(estimate), "difference {}"
    n, region = int(np.isfinite(left).sum()), "supervision"
    note = f"Denoising loss {number_text(scale, 3)}, supervision loss {number_text(size, 3)} ({RANGE})."
    return Judged(says[verdict], verdict, "dsm_loss", estimate, figure, phrase, n, region=region, reason=reason, note=note)


def integrals(results: xr.Dataset) -> list[tuple[str, dict[str, tuple[str, ...]]]]:
    """The mean score error from several t to 1, and by the paper's own estimator: for each line its name, and by model one text a column.

    The columns are those of `INTEGRALS`. C.5's estimator, the mean over even times, grows with their number off the shells.
    """
    time, found = results["time"].values, []

    def cell(model: str, name: str, region: str, low: float | None) -> str:
        try:
            values = measured(results, name, model=model, region=region)
        except (NotJudged, KeyError):
            return "–"
        averaged = statistics.uniform_average(values, time) if low is None else statistics.integrated_error(values, time, low)
        return f"{float(np.nanmean(averaged)):.3g}" if np.isfinite(averaged).any() else "–"

    reached = [low for low in FROM if low >= time[0] - 1e-9]
    for low in [*reached, None]:
        name = "mean over even times (C.5)" if low is None else f"t from {low:g} to 1"
        found.append((name, {m: tuple(cell(m, v, region, low) for v, region in INTEGRALS.values()) for m in models(results)}))
    return found


INTEGRALS = {
    "in supervision": ("score_error", "supervision"),
    "in extrapolation": ("score_error", "extrapolation"),
    "on held-out rows": ("score_error", "held-out"),
    "Gaussian, supervision": ("gaussian_error", "supervision"),
    "Gaussian, extrapolation": ("gaussian_error", "extrapolation"),
}


CLAIMS = (
    Claim(
        "fits",
        20,
        fits,
        "Inside the training shells the model fits the empirical score closely",
        "Score error in supervision, averaged over t from 0.1 to 1, as a share of what the Gaussian denoiser of the bank (of each class, "
        "where the model has classes), the best linear one, leaves at the same states. Supported if the 95 % bootstrap interval of what is "
        "learned of it lies above 80 %, contradicted if below.",
        needs=("score_error", "gaussian_error"),
        chart="score_error_time",
        short="learned of what a linear denoiser leaves",
        means={
            "supported": "Near its training rows the model is almost a copier; whether it copies is decided where it samples.",
            "contradicted": "A larger model or longer training could learn more of its training rows; that need not make better samples.",
            "undecided": "More paths (--paths) would narrow the interval.",
        },
    ),
    Claim(
        "remembers",
        25,
        remembers,
        "The model denoises its training rows better than rows it never saw",
        "Denoising loss, averaged over t from 0.1 to 1, on held-out rows over that on training rows of the same classes with the same "
        "noise, less 1. Supported if the 99 % paired bootstrap interval lies above 0, contradicted if below: some rows are harder than "
        "others, and what is said here should not be said by chance.",
        needs=("dsm_loss", "held_out_row"),
        chart="held_out",
        short="change of the loss on held-out rows",
        means={
            "supported": "The model knows its training rows: on average one can tell whether a row was among them.",
            "contradicted": "Was this the bank it was trained on? If not, what is said of training rows here is said of others.",
            "undecided": "Nothing here tells its training rows from others of their kind; more --paths would show smaller differences.",
        },
    ),
    Claim(
        "departs",
        30,
        departs,
        "The model departs from the empirical score outside the shells",
        "Ratio of the score errors, averaged over t from 0.1 to 1: sampling states over training states, paired over paths. Supported if "
        "the 95 % bootstrap interval lies above 1, contradicted if below, or if there is no error in either region.",
        needs=("score_error",),
        chart="score_error_time",
        short="error outside ÷ inside",
        means={
            "supported": "Where samples are made the model does not do what a copier would: what is new in them comes from there.",
            "contradicted": "Where samples are made the model is as near to a copier as in training, or nearer: look at the copies.",
            "undecided": "More paths (--paths) would narrow the interval.",
        },
    ),
    Claim(
        "renoised",
        60,
        renoised,
        "Its finished samples lie off the training shells even when noised afresh",
        "The control for the path taken: finished samples are noised again, and the score error, averaged over t from 0.1 to 1, is set "
        "against that on training states. Supported if the 95 % interval of the ratio lies above 1, contradicted if below.",
        needs=("score_error",),
        chart="score_error_time",
        short="error re-noised ÷ inside",
        means={
            "supported": "The error while sampling is not that of an odd path alone: the samples themselves are unlike training rows.",
            "contradicted": "To the model its samples are as easy as training rows: the error while sampling is that of the path.",
            "undecided": "More paths (--paths) would narrow the interval.",
        },
    ),
    Claim(
        "adds-up",
        80,
        adds_up,
        "The measurement adds up: supervision loss equals denoising loss minus its optimum",
        "Per path, denoising loss − optimum − score error in supervision, averaged over t from 0.1 to 1. Supported if the 99 % bootstrap "
        "interval of its mean contains 0 and is narrower than the score error, contradicted if it misses 0.",
        needs=("score_error", "dsm_loss", "dsm_optimum"),
        chart="supervision_loss",
        means={
            "contradicted": "Something is wrong with the measurement, or with how the model is read: rely on no error on this page.",
        },
    ),
)
