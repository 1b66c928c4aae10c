"""The few statistics that charts and findings are made of, each with its formula; all ignore NaN ("not measured here").

Intervals resample paths, never states: the states of one path share their noise and are no independent evidence.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Values = NDArray[np.float64]


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


def leaving_time(r_star: ArrayLike, time: ArrayLike, band: tuple[float, float]) -> Values:
    """The last t, as sampling runs from 1 to 0, at which a path is inside the band.

    Args:
        r_star: (…, T).
        time: (T,) ascending.
        band: Of `chi_band`.

    Returns:
        (…): the smallest t inside; the largest t measured for a path that never is; NaN for a path without values.
    """
    r, t = np.asarray(r_star, float), np.asarray(time, float)
    inside = (r >= band[0]) & (r <= band[1])
    last = np.where(inside.any(-1), t[np.argmax(inside, axis=-1)], t[-1])
    return np.where(np.isfinite(r).any(-1), last, np.nan)


# ---- summaries ----------------------------------------------------------------------------------------------------------------


def median_band(values: ArrayLike, axis: int, low: float = 0.1, high: float = 0.9) -> Band:
    """Median and 10–90 % band over `axis` (C.2); NaN where nothing was measured."""
    moved = np.moveaxis(np.asarray(values, float), axis, 0)
    found = np.full((3, *moved.shape[1:]), np.nan)
    known = np.isfinite(moved).any(0)
    found[:, known] = np.nanquantile(moved[:, known], [0.5, low, high], axis=0)
    return Band(found[0], found[1], found[2])


def time_integral(values: ArrayLike, time: ArrayLike) -> Values:
    """The paper's average over t ~ Unif(0, 1) (C.1), by the trapezoidal rule over the times measured, divided by their span.

    Args:
        values: (…, T); times without a value take no part.
        time: (T,) ascending; it need not be even.

    Returns:
        (…): the average, NaN where no time has a value.
    """
    v, t = np.asarray(values, float), np.asarray(time, float)
    gaps = np.diff(t)
    weight = np.ones(1) if len(t) == 1 else (np.append(gaps, 0) + np.insert(gaps, 0, 0)) / 2
    weights = weight * np.isfinite(v)
    total = weights.sum(-1)
    return np.divide((weights * np.nan_to_num(v, posinf=0, neginf=0)).sum(-1), total, out=np.full(total.shape, np.nan), where=total > 0)


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
    return _summary(moved, _resampled(moved, seed, draws), _mean(moved), level)


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

    drawn = change(_resampled(a, seed, draws), _resampled(b, seed, draws))
    return _summary(a, drawn, change(_mean(a), _mean(b)), level)


def _mean(values: Values) -> Values:
    count = np.isfinite(values).sum(0)
    return np.divide(np.nansum(values, axis=0), count, out=np.full(count.shape, np.nan), where=count > 0)


def _resampled(values: Values, seed: int, draws: int) -> Values:
    """Means (draws, …) of resamples of the first axis, all from the same draws for the same seed and number of paths."""
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
