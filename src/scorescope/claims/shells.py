"""Where the paths run: how early sampling leaves the training shells, and from where the model returns to the row it was noised from."""

from __future__ import annotations

import math

import numpy as np
import xarray as xr

from scorescope import statistics
from scorescope.claims.claim import UNKNOWN, Claim, Judged, NotJudged, Verdict, above, interval_text, measured, number_text
from scorescope.results import dimension, finite, first_losses, provenance
from scorescope.statistics import Estimate

HALF_WAY, EARLY = 0.5, 0.75
WIDEST = 0.3  # a band wider than 1 ± this has no outside that means anything
ALIKE = 0.05  # a step of C.4's times: training rows that come back no further than this beyond unseen ones come back like them
SEPARATE = 0.01  # shells whose overlap C(t) is below this are separate


def left(results: xr.Dataset, model: str) -> tuple[np.ndarray, np.ndarray]:
    """The bracket of each path's leaving (first t outside, last before it): as refined by the sampler, else as the grid of times has it."""
    if {"left_outside", "left_inside"} <= set(results.data_vars):
        return measured(results, "left_outside", model=model), measured(results, "left_inside", model=model)
    r = measured(results, "r_star", model=model, region="extrapolation")
    return statistics.leaving_bracket(r, results["time"].values, statistics.chi_band(dimension(results)))


def leaves(results: xr.Dataset, model: str) -> Judged:
    """Median over paths of the first time outside the band (Experiment 3.3), a bracket, judged at its unfavourable end."""
    r, d = measured(results, "r_star", model=model, region="extrapolation"), dimension(results)
    band = statistics.chi_band(d)
    outside, inside = left(results, model)
    early, late = statistics.median_interval(inside), statistics.median_interval(outside)
    estimate = Estimate((early.value + late.value) / 2, late.low, early.high)
    verdict, reason = above(estimate, HALF_WAY, "t = 0.5")
    if band[1] - band[0] > 2 * WIDEST:
        reason = f"in {d} dimensions the shells are too thick to be left: r from {band[0]:.2f} to {band[1]:.2f}"
        verdict = Verdict.NOT_JUDGED
    says = {
        Verdict.NOT_JUDGED: "How early sampling leaves the training shells can't be judged",
        Verdict.SUPPORTED: f"Sampling leaves the training shells {'early' if estimate.low >= EARLY else 'before half-way'}",
        Verdict.CONTRADICTED: "Sampling stays in the training shells for more than half of the way",
        Verdict.UNDECIDED: "Sampling leaves the training shells about half-way",
    }
    never = int((outside == 0).sum())
    figure, phrase = interval_text(estimate, places=2), "median t = {}"
    n, region = int(np.isfinite(outside).sum()), "extrapolation"
    below = int(((r < band[0]) & np.isfinite(r)).any(1).sum())
    notes = [_training_stays(results, model, band)]
    if never:
        notes.append(f"{never} of {n} paths never leave.")
    if below:
        notes.append(f"{below} of {n} paths are at some t nearer to a row than its shell.")
    note = " ".join(part for part in notes if part)
    return Judged(says[verdict], verdict, "r_star", estimate, figure, phrase, n, region=region, reason=reason, note=note)


def _training_stays(results: xr.Dataset, model: str, band: tuple[float, float]) -> str:
    """The control: how much of the training states is inside the band. Empty where it was not measured."""
    try:
        r = measured(results, "r_star", model=model, region="supervision")
    except NotJudged:
        return ""
    inside = ((r >= band[0]) & (r <= band[1]))[np.isfinite(r)].mean()
    return f"Of the training states, {100 * inside:.0f} % are inside the band."


def returns(results: xr.Dataset, model: str) -> Judged:
    """The largest t up to which at least 90 % of noised training rows return to their origin (Experiment 4.2, C.4), beside unseen rows."""
    measured(results, "returned", model=model)
    last, lost, reached = first_losses(results, model)
    draws = _resampled(len(last))
    estimate = _until(last, lost, draws)
    if reached < HALF_WAY and estimate.high >= reached:
        raise NotJudged(f"rows could be noised to t = {number_text(reached, 2)} at most, short of t = 0.5")
    verdict, reason = above(estimate, np.nextafter(HALF_WAY, 0), "t = 0.5")
    figure, phrase, beyond = interval_text(estimate, places=2), "up to t = {}", ""
    if finite(results.sel(model=model), "returned_held_out").size:
        unseen_last, unseen_lost, _ = first_losses(results, model, "_held_out")
        unseen = _until(unseen_last, unseen_lost, draws)
        more = _further((last, lost), (unseen_last, unseen_lost), draws)
        phrase += f", unseen rows up to {interval_text(unseen, places=2)}, a difference of {interval_text(more, places=2)}"
        if verdict is Verdict.SUPPORTED:
            verdict, reason = above(more, 0.0, "0: training and unseen rows may return alike")
            if verdict is Verdict.UNDECIDED and more.high <= ALIKE + 1e-9:
                verdict, reason = Verdict.CONTRADICTED, ""
            beyond = {Verdict.SUPPORTED: ", further than unseen ones", Verdict.CONTRADICTED: ", and unseen ones alike"}.get(verdict, "")
    elif verdict is Verdict.SUPPORTED:
        verdict, reason = Verdict.UNDECIDED, "no held-out rows to compare with"
    says = {
        Verdict.SUPPORTED: "Inside the shells it gives its training rows back",
        Verdict.CONTRADICTED: "It gives its training rows back only from little noise",
        Verdict.UNDECIDED: "It gives its training rows back from up to about half noise",
    }
    back = Verdict.SUPPORTED if estimate.low >= HALF_WAY else verdict
    start, again = onset(results), _again(results, model)
    overlap = f"The closest two shells begin to overlap at t = {number_text(start, 2)}." if math.isfinite(start) else ""
    return Judged(
        says[back] + beyond, verdict, "returned", estimate, figure, phrase, len(last), "training rows", reason=reason,
        note=f"{overlap} {again}".strip(),
    )  # fmt: skip


def _resampled(n: int) -> np.ndarray:
    """(1000, n) how often each draw of n rows has each row."""
    draws = np.random.default_rng(0).integers(n, size=(1000, n))
    return np.stack([np.bincount(pick, minlength=n) for pick in draws])


def _until(last: np.ndarray, lost: np.ndarray, draws: np.ndarray) -> Estimate:
    """The time up to which at least 90 % always come back; each end of its interval at the unfavourable end of what is known of a row."""
    low, high = (np.quantile(statistics.held_until(end, draws), q) for end, q in ((last, 0.025), (lost, 0.975)))
    return Estimate(float(statistics.held_until(last)), float(low), float(high))


def _further(first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], draws: np.ndarray) -> Estimate:
    """How much further the first come back than the second, which are paired by their noise: one draw for both."""
    if len(first[0]) != len(second[0]):
        return UNKNOWN
    (last, lost), (other_last, other_lost) = ([statistics.held_until(end, draws) for end in pair] for pair in (first, second))
    value = statistics.held_until(first[0]) - statistics.held_until(second[0])
    return Estimate(float(value), float(np.quantile(last - other_lost, 0.025)), float(np.quantile(lost - other_last, 0.975)))


def _again(results: xr.Dataset, model: str) -> str:
    """How many rows come back at a larger t than one at which they are lost; empty for none."""
    back = measured(results, "returned", model=model)
    count = int((np.diff(back, axis=1) > 0).any(1).sum())
    return f"{count} of {len(back)} rows, once lost, {'comes' if count == 1 else 'come'} back at a larger t." if count else ""


def onset(results: xr.Dataset) -> float:
    """The first t at which the shells of the closest two distinct rows overlap by more than 0.01; NaN if they never do or it is unknown."""
    if "overlap_distinct" not in results:
        return math.nan
    touching = results["overlap_distinct"].values > SEPARATE
    return float(results["time"].values[np.argmax(touching)]) if touching.any() else math.nan


def overlap(results: xr.Dataset, model: str) -> Judged:
    """Onset of the shell overlap C(t) (B.2, Fig. 4 right); a maximum over all pairs, so it has no sampling error."""
    measured(results, "overlap_distinct")
    start, rows = onset(results), int(provenance(results)["bank"]["rows"])
    figure, phrase = number_text(start, 2), "the first two overlap at t = {}"
    if math.isnan(start):
        figure, phrase = "no two", "{} overlap at any t measured"
    says, verdict = "The training shells are separate for most of the time", Verdict.SUPPORTED
    if start <= HALF_WAY:
        says, verdict = "The closest training shells overlap for most of the time", Verdict.CONTRADICTED
    note = ""
    if "closest_pair" in results and "closest_distance" in results:
        first, second = (int(i) for i in results["closest_pair"].values)
        note = f"The closest pair is rows {first} and {second}, {float(results['closest_distance']):.3g} apart."
    estimate = UNKNOWN._replace(value=start)
    return Judged(says, verdict, "overlap_distinct", estimate, figure, phrase, rows, "training rows", note=note)


def duplicates(results: xr.Dataset, model: str) -> Judged:
    """Exact duplicates: one is enough to make C(t) equal to 1, so the curve is also shown without them."""
    count, rows = int(results["duplicates"]), int(provenance(results)["bank"]["rows"])
    says, verdict, note = "No training row repeats another", Verdict.SUPPORTED, ""
    if count:
        says = "One training row repeats another exactly" if count == 1 else "Some training rows repeat another exactly"
        verdict, note = Verdict.CONTRADICTED, "With them C(t) is 1 at every t; the charts also show it with each row counted once."
    estimate = UNKNOWN._replace(value=float(count))
    return Judged(says, verdict, "duplicates", estimate, f"{count:,}", f"{{}} of {rows:,}", rows, "training rows", note=note)


CLAIMS = (
    Claim(
        "leaves",
        10,
        leaves,
        "Sampling leaves the training shells before half-way",
        "As sampling runs from t = 1 to 0, a path leaves where its r* is for the first time above or below the exact 99 % χ band. What is "
        "known is a bracket, between two times that were asked. Supported if the 95 % interval of the median, brackets taken at the "
        "unfavourable end, lies above t = 0.5, contradicted if below; “early” from 0.75.",
        needs=("r_star",),
        reaches=HALF_WAY,
        chart="r_star",
        short="leaves the shells at t",
        means={
            "supported": "Most of a sample is made where training gave no target: the training loss alone tells little of samples.",
            "contradicted": "Most of a sample is made where the model was trained: what it learned there, it draws.",
            "undecided": "More paths (--paths) would narrow the interval.",
        },
    ),
    Claim(
        "returns",
        40,
        returns,
        "Inside the shells the model gives its training rows back, further than rows that it never saw",
        "From training rows noised to t, the largest t up to which at least 90 % come back as their own nearest row, and the same for "
        "held-out rows with the same noise; 95 % paired bootstrap over rows. Supported if the interval lies at or above t = 0.5 and "
        "that of the difference above 0; contradicted if the first lies below, or the difference is at most 0.05. Undecided without "
        "held-out rows.",
        needs=("returned",),
        chart="return_to_origin",
        short="gives rows back up to t",
        means={
            "supported": "Noise up to this t does not hide a training row from the model, which restores it further than one it never saw.",
            "contradicted": "Beyond this t noise hides a row from the model, or training rows are hidden no less than others.",
            "undecided": "More rows (--origins), beside held-out ones, would decide.",
        },
    ),
    Claim(
        "overlap",
        90,
        overlap,
        "The training shells are separate for most of the time",
        "The first t at which C(t) of the closest two distinct rows exceeds 0.01. Supported if above t = 0.5, contradicted if not.",
        needs=("overlap_distinct",),
        reaches=HALF_WAY,
        chart="overlap",
        about="bank",
        means={
            "supported": "Inside the shells a noised row belongs to one training row for most of the time.",
            "contradicted": "At least two training rows are so alike that noise soon mixes them up; the pair is shown below the chart.",
        },
    ),
    Claim(
        "duplicates",
        95,
        duplicates,
        "No training row repeats another",
        "Supported if no row repeats an earlier one exactly, contradicted otherwise.",
        needs=("duplicates",),
        chart="overlap",
        about="bank",
        means={
            "contradicted": "Rows that occur more than once are what models memorize first: think of removing them.",
        },
    ),
)
