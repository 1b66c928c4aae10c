"""The few statistics that charts and findings are made of, each with its formula; all ignore NaN ("not measured here").

Intervals resample paths, never states: the states of one path share their noise and are no independent evidence.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Values = NDArray[np.float64]

STRICT = 0.99
"""Level of intervals where a verdict that is wrong by chance would say something grave."""

ERROR_FROM = 0.1
"""Where the integrated score error begins, unless asked otherwise; part of its name: "averaged over t from 0.1 to 1"."""


class Band(NamedTuple):
    """Median and two quantiles, reduced over one axis."""

    median: Values
    low: Values
    high: Values


class Estimate(NamedTuple):
    """A value with its interval; NaN ends where there is too little to tell."""

    value: Any
    low: Any
    high: Any


# ---- theory -------------------------------------------------------------------------------------------------------------------


def chi_band(d: int, level: float = 0.99) -> tuple[float, float]:
    """The exact band of r on a shell: quantiles (1 ∓ level)/2 of χ_d, divided by √d.

    z_t = α x + σ ε has r = ‖z_t − α x‖ / (σ √d) = ‖ε‖ / √d (Eq. 4), and ‖ε‖ follows χ_d. At level 0.99: 0.935–1.065 for d = 784.
    """
    low, high = stats.chi.ppf([(1 - level) / 2, (1 + level) / 2], d) / math.sqrt(d)
    return float(low), float(high)


def proposition_band(delta: float = 0.01) -> tuple[float, float]:
    """The band of r in Proposition 3.2: 1 ∓ √log(1/δ), cut at 0. It does not depend on d and holds vacuously (δ = 0.01: 0 to 3.15)."""
    half = math.sqrt(math.log(1 / delta))
    return max(0.0, 1 - half), 1 + half


def leaving_bracket(r_star: ArrayLike, time: ArrayLike, band: tuple[float, float]) -> tuple[Values, Values]:
    """Between which two measured times a path leaves the band for the first time, above or below, as sampling runs from 1 to 0.

    Args:
        r_star: (…, T); a time without a value counts as inside.
        time: (T,) ascending.
        band: Of `chi_band`.

    Returns:
        The first t outside and the last one before it, (…) each: both the largest t for a path that begins outside; 0 and the smallest t
        for one that never leaves; NaN for a path without values.
    """
    r, t = np.asarray(r_star, float), np.asarray(time, float)
    outside = ((r < band[0]) | (r > band[1]))[..., ::-1]
    first, known = np.argmax(outside, axis=-1), np.isfinite(r).any(-1)
    down = t[::-1]
    left = np.where(outside.any(-1), down[first], 0.0)
    before = np.where(outside.any(-1), down[np.maximum(first - 1, 0)], t[0])
    return np.where(known, left, np.nan), np.where(known, before, np.nan)


RETURNED = 0.9
"""Share of rows that must come back where a model is said to give rows back (Experiment 4.2)."""


def held_until(values: ArrayLike, counts: ArrayLike | None = None, share: float = RETURNED) -> Values:
    """The largest of `values` (n,) such that at least `share` of all reach it.

    With `counts` (draws, n), how often each draw has each value: one answer a draw, (draws,). Without, one number.
    """
    v = np.asarray(values, float)
    weights = np.ones((1, len(v))) if counts is None else np.asarray(counts, float)
    order = np.argsort(v)
    passed = weights[:, order].cumsum(1)
    found = v[order][np.argmax(passed > (1 - share) * passed[:, -1:] + 1e-9, axis=1)]
    return found[0] if counts is None else found


# ---- summaries ----------------------------------------------------------------------------------------------------------------


def median_band(values: ArrayLike, axis: int, low: float = 0.1, high: float = 0.9) -> Band:
    """Median and 10–90 % band over `axis` (C.2); NaN where nothing was measured."""
    moved = np.moveaxis(np.asarray(values, float), axis, 0)
    found = np.full((3, *moved.shape[1:]), np.nan)
    known = np.isfinite(moved).any(0)
    found[:, known] = np.nanquantile(moved[:, known], [0.5, low, high], axis=0)
    return Band(found[0], found[1], found[2])


def integrated_error(values: ArrayLike, time: ArrayLike, low: float = ERROR_FROM, high: float = 1.0) -> Values:
    """The score error averaged over t from `low` to `high`: 1/(high − low) ∫ D²(t)/(t² d) dt, D = ‖x̂_θ − x̂*‖.

    Off the shells D does not vanish as t → 0, so the integral from 0 has no limit (C.5's average over uniform times grows with the number
    of times); from `low` it has one. Between measured times D² is taken as linear in t and D²/t² is integrated exactly, so that the value
    hardly depends on which times were measured.

    Args:
        values: (…, T) score errors D²/(t² d); times without a value take no part.
        time: (T,) ascending, above 0; it need not be even.
        low, high: The range; what of it was not measured is left out, of the average too.

    Returns:
        (…): the average; the value itself where only one time has one; NaN where the range was not measured.
    """
    v, t = np.asarray(values, float), np.asarray(time, float)
    flat, found = v.reshape(-1, v.shape[-1]), np.full(v[..., 0].size, np.nan)
    known = np.isfinite(flat)
    for pattern in np.unique(known, axis=0):
        alike = (known == pattern).all(1)
        at = t[pattern]
        weights, span = _inverse_square_weights(at, low, high)
        if span > 0:
            found[alike] = (flat[alike][:, pattern] * at**2) @ weights / span
        elif len(at) == 1 and low <= at[0] <= high:
            found[alike] = flat[alike][:, pattern][:, 0]
    return found.reshape(v.shape[:-1])


def _inverse_square_weights(t: Values, low: float, high: float) -> tuple[Values, float]:
    """Weights (T,) such that Σ w_k f(t_k) = ∫ f(t)/t² dt over the measured part of [low, high], f linear between times; its length."""
    weights, span = np.zeros(len(t)), 0.0
    for k, (a, b) in enumerate(itertools.pairwise(t.tolist())):
        start, end = max(a, low), min(b, high)
        if start < end:
            inverse, log = 1 / start - 1 / end, math.log(end / start)
            weights[k] += (b * inverse - log) / (b - a)
            weights[k + 1] += (log - a * inverse) / (b - a)
            span += end - start
    return weights, span


def uniform_average(values: ArrayLike, time: ArrayLike, first: float = 0.0) -> Values:
    """C.5's estimator: the plain mean over times drawn uniformly from (0, 1), here over the evenly spaced ones that were measured.

    Off the shells it has no limit as the number of times grows (see `integrated_error`).

    Args:
        values: (…, T); times without a value take no part.
        time: (T,) ascending; those that are multiples of the largest gap are the even ones.
        first: Earlier times take no part.

    Returns:
        (…): the mean, NaN where no time has a value.
    """
    v, t = np.asarray(values, float), np.asarray(time, float)
    steps = t / np.diff(t).max() if len(t) > 1 else np.ones(1)
    even = (np.abs(steps - steps.round()) < 1e-6) & (t >= first)
    kept = np.where(np.isfinite(v) & even, v, np.nan)
    count = np.isfinite(kept).sum(-1)
    return np.divide(np.nansum(kept, axis=-1), count, out=np.full(count.shape, np.nan), where=count > 0)


def time_average(values: ArrayLike, time: ArrayLike, low: float = ERROR_FROM, high: float = 1.0) -> Values:
    """The average over t from `low` to `high` of a quantity that is bounded as t → 0, by the trapezoidal rule; as `integrated_error`."""
    v, t = np.asarray(values, float), np.asarray(time, float)
    ends = np.unique(np.clip([low, *t, high], max(low, t[0]), min(high, t[-1])))
    if len(ends) < 2:
        return np.where(np.isfinite(v).any(-1), np.nanmean(v, axis=-1), np.nan)
    moved = v.reshape(-1, len(t))
    found = np.full(len(moved), np.nan)
    for k, row in enumerate(moved):
        known = np.isfinite(row)
        if known.any():
            found[k] = np.trapezoid(np.interp(ends, t[known], row[known]), ends) / (ends[-1] - ends[0])
    return found.reshape(v.shape[:-1])


# ---- intervals ----------------------------------------------------------------------------------------------------------------


def wilson(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[Values, Values]:
    """Wilson's interval of a proportion p = k/n: (p + z²/2n ∓ z √(p(1−p)/n + z²/4n²)) / (1 + z²/n), z the normal quantile.

    Unlike p ∓ z √(p(1−p)/n) it has a width at 0 and at n successes. Without trials it is 0 to 1.
    """
    k, n = np.broadcast_arrays(np.asarray(successes, float), np.asarray(trials, float))
    z = stats.norm.ppf((1 + level) / 2)
    some = np.maximum(n, 1)
    p, scale = k / some, 1 + z**2 / some
    centre, half = p + z**2 / (2 * some), z * np.sqrt(p * (1 - p) / some + z**2 / (4 * some**2))
    low, high = np.clip((centre - half) / scale, 0, p), np.clip((centre + half) / scale, p, 1)
    return np.where(n > 0, low, 0.0), np.where(n > 0, high, 1.0)


def share(hits: ArrayLike, level: float = 0.95) -> Estimate:
    """Share of true items with Wilson's interval."""
    hit = np.asarray(hits, bool)
    low, high = wilson(hit.sum(), hit.size, level)
    return Estimate(float(hit.mean()) if hit.size else math.nan, float(low), float(high))


def median_interval(values: ArrayLike, level: float = 0.95) -> Estimate:
    """Median with the distribution-free interval between two order statistics; NaN ends where there are too few values for `level`."""
    known = np.asarray(values, float)
    known = known[np.isfinite(known)]
    if not len(known):
        return Estimate(math.nan, math.nan, math.nan)
    ends = stats.quantile_test(known, q=0.0, p=0.5).confidence_interval(level)
    return Estimate(float(np.median(known)), float(ends.low), float(ends.high))


def bootstrap_mean(values: ArrayLike, axis: int = 0, seed: int = 0, level: float = 0.95, draws: int = 2000) -> Estimate:
    """Mean over paths with its percentile bootstrap interval.

    Args:
        values: Any shape; paths lie along `axis`.
        axis: The axis to resample and to average over.
        seed: Of the resampling.
        level: Of the interval.
        draws: Number of resamples.

    Returns:
        Arrays without `axis`; the interval is NaN where fewer than two paths were measured.
    """
    moved = np.moveaxis(np.asarray(values, float), axis, 0)
    return _summary(moved, resampled_means(moved, seed, draws), _mean(moved), level)


def paired_bootstrap(
    first: ArrayLike, second: ArrayLike, axis: int = 0, seed: int = 0, level: float = 0.95, draws: int = 2000, relative: bool = False
) -> Estimate:
    """Change of the mean from `first` to `second`, measured on the same paths, with its percentile bootstrap interval.

    Both are resampled together, so that what their paths share cancels: mean(second) − mean(first), or with `relative` that
    divided by mean(first). Paths that either lacks are left out of both. Arguments as in `bootstrap_mean`.
    """
    a, b = (np.moveaxis(np.asarray(v, float), axis, 0) for v in (first, second))
    both = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(both, a, np.nan), np.where(both, b, np.nan)

    def change(before: Values, after: Values) -> Values:
        if not relative:
            return after - before
        return np.divide(after - before, before, out=np.full(np.shape(before), np.nan), where=before != 0)

    drawn = change(resampled_means(a, seed, draws), resampled_means(b, seed, draws))
    return _summary(a, drawn, change(_mean(a), _mean(b)), level)


def _mean(values: Values) -> Values:
    count = np.isfinite(values).sum(0)
    return np.divide(np.nansum(values, axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)


def resampled_means(values: Values, seed: int = 0, draws: int = 2000) -> Values:
    """Means (draws, …) of resamples of the first axis, all from the same draws for the same seed and number of paths; NaN is left out."""
    n = len(values)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws).astype(float)
    known = np.isfinite(values).reshape(n, -1)
    total, weight = counts @ np.where(known, values.reshape(n, -1), 0.0), counts @ known
    means = np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
    return means.reshape(draws, *values.shape[1:])


def _summary(values: Values, drawn: Values, value: Values, level: float) -> Estimate:
    ends = np.full((2, *np.shape(value)), np.nan)
    enough = (np.isfinite(values).sum(0) >= 2) & np.isfinite(drawn).any(0)
    ends[:, enough] = np.nanquantile(drawn[:, enough], [(1 - level) / 2, (1 + level) / 2], axis=0)
    return Estimate(value, ends[0], ends[1])
