"""Memorization of finished samples by the three criteria in use, each beside its null or named as having no threshold."""

from __future__ import annotations

import numpy as np
import xarray as xr

from scorescope import statistics
from scorescope.claims.claim import Claim, Judged, NotJudged, Verdict, below, interval_text, measured
from scorescope.results import COPY, finite
from scorescope.statistics import Estimate

FEW = 0.1
NO_THRESHOLD = "this criterion has no threshold"


def share(hits: np.ndarray) -> Estimate:
    """Share of true items with Wilson's interval."""
    low, high = statistics.wilson(hits.sum(), len(hits))
    return Estimate(float(hits.mean()), float(low), float(high))


def copies(results: xr.Dataset, model: str) -> Judged:
    """Share of finished samples whose nearest-to-second-nearest ratio is below 1/3, beside that of real rows."""
    ratio = measured(results, "ratio_second", model=model)
    hits = ratio[np.isfinite(ratio)] < COPY
    estimate = share(hits)
    verdict, reason = below(estimate, FEW, "10 %")
    says = {
        Verdict.SUPPORTED: f"Samples are new: {'almost none' if hits.any() else 'none'} copies a training row",
        Verdict.CONTRADICTED: "Samples copy training rows",
        Verdict.UNDECIDED: "Too few samples to say how often it copies",
    }
    null = finite(results, "null_second")
    note = f"Of {len(null):,} real rows, {(null < COPY).sum()} are that close to another row." if len(null) else ""
    figure, n = interval_text(estimate, scale=100, suffix=" %"), len(hits)
    return Judged(says[verdict], verdict, "ratio_second", estimate, figure, "{} copies", n, "samples", reason=reason, note=note)


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
        "A copy is three times closer to its nearest training row than to the second-nearest (ratio below 1/3). Supported if the 95 % "
        "Wilson interval of the share of copies lies below 10 %, contradicted if above.",
        needs=("ratio_second",),
        chart="memorization",
        short="copies",
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
