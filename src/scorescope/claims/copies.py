"""Memorization of finished samples by the three criteria in use, each beside its null or named as having no threshold."""

from __future__ import annotations

import numpy as np
import xarray as xr

from scorescope import statistics
from scorescope.claims.claim import Claim, Judged, NotJudged, Verdict, interval_text, measured, percent
from scorescope.results import COPY, finite
from scorescope.statistics import Estimate, share

FEW, RARE = 0.1, 0.01
NO_THRESHOLD = "this criterion has no threshold"


def copies(results: xr.Dataset, model: str) -> Judged:
    """Share of finished samples whose nearest-to-second-nearest ratio is below 1/3, beside that of real rows."""
    ratio = measured(results, "ratio_second", model=model)
    hits = ratio[np.isfinite(ratio)] < COPY
    estimate, k, n = share(hits), int(hits.sum()), len(hits)
    real = finite(results, "null_second") < COPY
    verdict, says, reason = _judged(estimate, k, n, float(real.mean()) if len(real) else 0.0)
    notes = [f"Of {len(real):,} real rows, {real.sum()} are that close to another row."] if len(real) else []
    if "exact_copy" in results and k:
        exact = int((results["exact_copy"].sel(model=model).values == 1).sum())
        notes += [f"{exact:,} {'copy is' if exact == 1 else 'copies are'} exact, up to rounding."] if exact else []
    if "group_size" in results and k:
        grouped = int((results["group_size"].sel(model=model).values[np.isfinite(ratio)][hits] > 1).sum())
        notes += [f"{grouped:,} of the copies are of rows with near-duplicates, which count as one row."] if grouped else []
    figure = interval_text(estimate, scale=100, suffix=" %")
    return Judged(says, verdict, "ratio_second", estimate, figure, "{} copies", n, "samples", reason=reason, note=" ".join(notes))


def _judged(estimate: Estimate, k: int, n: int, null: float) -> tuple[Verdict, str, str]:
    """Verdict, sentence and reason for k copies among n samples, where a share `null` of real rows looks like copies."""
    most = f"at most {percent(estimate.high)}"
    if estimate.low > max(RARE, null):
        return Verdict.ALARM, f"Samples copy training rows: {k:,} of {n:,} (at least {percent(estimate.low)})", ""
    if estimate.high >= FEW:
        said = f"Too few samples to say how often it copies: {k or 'none'} of {n:,} ({most})"
        return Verdict.UNDECIDED, said, f"the interval reaches across {percent(FEW)}"
    if k and estimate.high >= RARE:
        return Verdict.SUPPORTED, f"Few samples copy a training row: {k:,} of {n:,} ({most})", ""
    amount = f"almost none of {n:,} copies a training row ({k:,}, {most})" if k else f"none of {n:,} copies a training row ({most})"
    return Verdict.SUPPORTED, f"Samples are new: {amount}", ""


def calibrated(results: xr.Dataset, model: str) -> Judged:
    """Median calibrated ratio (C.7) with its distribution-free interval."""
    ratio = measured(results, "ratio_calibrated", model=model)
    estimate = statistics.median_interval(ratio)
    note, says = "", "Calibrated distance of the samples to their nearest row"
    if len(real := finite(results, "null_calibrated")):
        null = statistics.median_interval(real)
        note = f"Real rows: median {interval_text(null)}."
        if np.isfinite([estimate.low, estimate.high, null.low, null.high]).all():
            nearer, farther = estimate.high < null.low, estimate.low > null.high
            word = "relatively nearer to one row than real rows are" if nearer else "less near to any one row than real rows are"
            says = f"Samples lie {word}" if nearer or farther else "Samples lie as near to one row as real rows do"
    verdict, figure, phrase, n = Verdict.NOT_JUDGED, interval_text(estimate), "median ratio {}", int(np.isfinite(ratio).sum())
    return Judged(says, verdict, "ratio_calibrated", estimate, figure, phrase, n, "samples", reason=NO_THRESHOLD, note=note)


def copier(results: xr.Dataset, model: str) -> Judged:
    """Share of samples whose nearest row is where the exact empirical score ends from the same noise (criterion of C.4)."""
    target, nearest = measured(results, "copier_row", model=model), measured(results, "nearest_index", model=model)[..., 0]
    known = (target >= 0) & (nearest >= 0)
    if not known.any():
        raise NotJudged("no sample has a copier's row")
    estimate = share(target[known] == nearest[known])
    figure, n = interval_text(estimate, scale=100, suffix=" %"), int(known.sum())
    says = "Samples that end at the row where a perfect copier would"
    return Judged(says, Verdict.NOT_JUDGED, "copier_row", estimate, figure, n=n, unit="samples", reason=NO_THRESHOLD)


CLAIMS = (
    Claim(
        "copies",
        50,
        copies,
        "Samples are new, not copies of training rows",
        "A copy is three times closer to its nearest training row than to the nearest row that is no near-duplicate of that one (ratio "
        "below 1/3). Alarm if the 95 % Wilson interval of the share of copies lies above 1 %, and above the share of real rows that are "
        "so close to another; else supported if it lies below 10 %.",
        needs=("ratio_second",),
        chart="memorization",
        short="copies",
        means={
            "alarm": "Look at copies.csv, which names the rows, before samples are given to anyone.",
            "supported": "Copying that is rarer than the bound can't be excluded; more samples (--paths) lower it.",
            "undecided": "More samples (--paths) would decide.",
        },
    ),
    Claim(
        "calibrated",
        53,
        calibrated,
        "Calibrated distance of samples to their nearest row, beside that of real rows",
        "Median of the squared distance to the nearest row over the mean of the n nearest (C.7): 0 copy, 1 new. It has no threshold, so "
        "it is not judged; compare it with the same number for real rows.",
        needs=("ratio_calibrated",),
        chart="memorization",
        short="calibrated distance",
    ),
    Claim(
        "copier",
        56,
        copier,
        "Samples that end nearest to the row where a perfect copier would end",
        "A perfect copier (the exact empirical score) starts from the same noise; counted is a sample whose nearest row is the copier's. "
        "It has no threshold, so it is not judged.",
        needs=("copier_row", "nearest_index"),
        chart="memorization",
        short="same row as a copier",
    ),
)
