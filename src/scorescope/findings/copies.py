"""Memorization of finished samples by the three criteria in use, each beside its null or named as having no threshold."""

from __future__ import annotations

import numpy as np
import xarray as xr

from scorescope import statistics
from scorescope.findings.finding import Judged, NotJudged, Verdict, below, interval_text, measured, plain, rule, where, why_undecided
from scorescope.statistics import Estimate

COPY = 1 / 3  # nearest over second-nearest distance, unsquared
FEW = 0.1


def share(hits: np.ndarray) -> Estimate:
    """Share of true items with Wilson's interval."""
    low, high = statistics.wilson(hits.sum(), len(hits))
    return Estimate(float(hits.mean()), float(low), float(high))


@rule(
    "copies",
    50,
    claim="Samples are new, not copies of training rows",
    rule="A copy is three times closer to its nearest training row than to the second-nearest (ratio below 1/3). Supported if the 95 % "
    "Wilson interval of the share of copies lies below 10 %, contradicted if above.",
    chart="memorization",
    short="copies",
    needs=("ratio_second",),
    probe="memorization",
)
def copies(results: xr.Dataset, model: str) -> Judged:
    """Share of finished samples whose nearest-to-second-nearest ratio is below 1/3, beside that of real rows."""
    ratio = measured(results, "ratio_second", model=model)
    hits = ratio[np.isfinite(ratio)] < COPY
    estimate = share(hits)
    verdict = below(estimate, FEW)
    says = {
        Verdict.SUPPORTED: "Samples are new: almost none copies a training row",
        Verdict.CONTRADICTED: "Samples copy training rows",
        Verdict.UNDECIDED: "Too few samples to say how often it copies",
    }[verdict]
    if verdict is Verdict.SUPPORTED and not hits.any():
        says = "Samples are new: none copies a training row"
    return Judged(
        says,
        interval_text(estimate, scale=100, suffix=" %"),
        "{} copies",
        *estimate,
        len(hits),
        "samples",
        verdict,
        "ratio_second",
        where(model=model),
        why_undecided(verdict, estimate, "10 %"),
        _null_note(results),
    )


def _null_note(results: xr.Dataset) -> str:
    if "null_second" not in results:
        return ""
    null = results["null_second"].values
    null = null[np.isfinite(null)]
    return f"Of {len(null):,} real rows, {(null < COPY).sum()} are that close to another row." if len(null) else ""


@rule(
    "calibrated",
    53,
    claim="Calibrated distance of samples to their nearest row, beside that of real rows",
    rule="Median of the squared distance to the nearest row over the mean of the n nearest (C.7): 0 copy, 1 new. It has no threshold, so "
    "it is not judged; compare it with the same number for real rows.",
    chart="memorization",
    short="calibrated distance",
    needs=("ratio_calibrated",),
    probe="memorization",
)
def calibrated(results: xr.Dataset, model: str) -> Judged:
    """Median calibrated ratio (C.7) with its distribution-free interval."""
    ratio = measured(results, "ratio_calibrated", model=model)
    estimate = statistics.median_interval(ratio)
    note, says = "", "Calibrated distance of the samples to their nearest row"
    if "null_calibrated" in results and np.isfinite(results["null_calibrated"].values).any():
        null = statistics.median_interval(results["null_calibrated"].values)
        note = f"Real rows: median {interval_text(null)}."
        if np.isfinite([estimate.low, estimate.high, null.low, null.high]).all():
            nearer, farther = estimate.high < null.low, estimate.low > null.high
            word = "relatively nearer to one row than real rows are" if nearer else "less near to any one row than real rows are"
            says = f"Samples lie {word}" if nearer or farther else "Samples lie as near to one row as real rows do"
    return Judged(
        says,
        interval_text(estimate),
        "median ratio {}",
        *plain(estimate),
        int(np.isfinite(ratio).sum()),
        "samples",
        Verdict.NOT_JUDGED,
        "ratio_calibrated",
        where(model=model),
        "this criterion has no threshold",
        note,
    )


@rule(
    "copier",
    56,
    claim="Samples that end nearest to the row where a perfect copier would end",
    rule="A perfect copier (the exact empirical score) starts from the same noise; counted is a sample whose nearest row is the copier's. "
    "It has no threshold, so it is not judged.",
    chart="memorization",
    short="same row as a copier",
    needs=("copier_row", "nearest_index"),
    probe="memorization",
)
def copier(results: xr.Dataset, model: str) -> Judged:
    """Share of samples whose nearest row is where the exact empirical score ends from the same noise (criterion of C.4)."""
    target, nearest = measured(results, "copier_row", model=model), measured(results, "nearest_index", model=model)[..., 0]
    known = np.isfinite(target) & np.isfinite(nearest) & (target >= 0)
    if not known.any():
        raise NotJudged("no sample has a copier's row")
    estimate = share(target[known] == nearest[known])
    return Judged(
        "Samples that end at the row where a perfect copier would",
        interval_text(estimate, scale=100, suffix=" %"),
        "{}",
        *estimate,
        int(known.sum()),
        "samples",
        Verdict.NOT_JUDGED,
        "copier_row",
        where(model=model),
        "this criterion has no threshold",
    )
