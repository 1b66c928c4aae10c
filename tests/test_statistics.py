"""Statistics against closed forms, and intervals against the coverage that they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from scorescope import statistics as s


def test_chi_band_is_what_the_paper_notes_state():
    assert s.chi_band(784) == pytest.approx((0.935, 1.065), abs=5e-4)
    assert s.chi_band(3072) == pytest.approx((0.967, 1.033), abs=5e-4)
    low, high = s.chi_band(4096)
    assert (high - low) / 2 == pytest.approx(0.028, abs=1e-3)


@pytest.mark.parametrize("d", [1, 16, 784])
def test_chi_band_holds_its_share_of_fresh_noise(d):
    noise = np.random.default_rng(1).standard_normal((20_000, d)) if d < 100 else None
    r = np.sqrt(np.random.default_rng(1).chisquare(d, 20_000) / d) if noise is None else np.linalg.norm(noise, axis=1) / d**0.5
    low, high = s.chi_band(d, 0.9)
    assert np.mean((r >= low) & (r <= high)) == pytest.approx(0.9, abs=0.01)


def test_the_propositions_band_is_vacuous_and_free_of_d():
    assert s.proposition_band(0.01) == pytest.approx((0.0, 3.146), abs=1e-3)
    assert s.proposition_band(0.9) == pytest.approx((1 - np.log(1 / 0.9) ** 0.5, 1 + np.log(1 / 0.9) ** 0.5))


def test_a_path_leaves_between_the_last_time_inside_and_the_first_outside():
    t = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    paths = {
        "leaves": ([2.0, 1.5, 1.2, 1.0, 1.0], 0.6, 0.8),
        "leaves below, and crosses the band later": ([2.0, 1.0, 0.5, 0.5, 1.0], 0.8, 1.0),
        "comes back": ([2.0, 1.0, 1.2, 1.0, 1.0], 0.6, 0.8),
        "begins outside": ([2.0, 2.0, 2.0, 2.0, 2.0], 1.0, 1.0),
        "never leaves": ([1.0, 1.0, 1.0, 1.0, 1.0], 0.0, 0.2),
        "not measured": ([np.nan] * 5, np.nan, np.nan),
    }
    outside, inside = s.leaving_bracket([r for r, _, _ in paths.values()], t, (0.9, 1.1))
    np.testing.assert_array_equal(outside, [low for _, low, _ in paths.values()])
    np.testing.assert_array_equal(inside, [high for _, _, high in paths.values()])


def test_median_band_of_a_ramp_ignores_what_is_missing():
    ramp = np.arange(101.0)
    values = np.stack([ramp, np.where(ramp % 2 == 0, ramp, np.nan), np.full(101, np.nan)], axis=1)
    band = s.median_band(values, axis=0)
    np.testing.assert_allclose(band.median, [50, 50, np.nan])
    np.testing.assert_allclose(band.low, [10, 10, np.nan])
    np.testing.assert_allclose(band.high, [90, 90, np.nan])


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=12, unique=True), st.floats(0, 3), st.floats(-1, 3))
@settings(max_examples=50, deadline=None)
def test_the_integrated_error_is_exact_for_squared_distances_that_are_lines(times, offset, slope):
    """∫ (p + q t)/t² dt = p (1/a − 1/b) + q ln(b/a), over the part of [0.1, 1] that was measured."""
    t = np.sort(np.array(times))
    a, b = max(t[0], 0.1), t[-1]
    found = s.integrated_error((offset + slope * t) / t**2, t)
    if b <= a:
        assert np.isnan(found)
    else:
        assert found == pytest.approx((offset * (1 / a - 1 / b) + slope * np.log(b / a)) / (b - a), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("low", [0.02, 0.1, 0.2])
def test_the_integrated_error_does_not_depend_on_the_grid(power, low):
    """D² = t^p: off the shells (p = 0) the error is 1/t², on them it is bounded."""
    found = []
    for count in (25, 50, 100, 200, 20_000):
        t = np.unique(np.round([*(np.arange(1, count + 1) / count), 0.01, 0.02, 0.05, 0.1, 0.2], 12))
        found.append(float(s.integrated_error(t ** (power - 2), t, low)))
    np.testing.assert_allclose(found[:-1], found[-1], rtol=0.03)


def test_the_papers_average_over_uniform_times_has_no_limit_off_the_shells():
    """Which is why it is not the headline: it doubles with the number of times."""
    averages = []
    for count in (25, 50, 100):
        t = np.unique(np.round([*(np.arange(1, count + 1) / count), 0.01, 0.02, 0.05, 0.1, 0.2], 12))
        averages.append(float(s.uniform_average(1 / t**2, t)))
        assert averages[-1] == pytest.approx(np.mean((np.arange(1, count + 1) / count) ** -2.0))
    assert averages[1] / averages[0] > 1.9
    assert averages[2] / averages[1] > 1.9


def test_averages_leave_out_missing_times():
    t = np.array([0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(s.time_average([[3, np.nan, 3, 3], [np.nan] * 4], t), [3, np.nan])
    np.testing.assert_allclose(
        s.integrated_error(np.array([[4, np.nan, 4, 4], [np.nan] * 4]) / t**2, t), [4 * (1 / 0.25 - 1) / 0.75, np.nan]
    )
    assert s.time_average([7.0], [0.5]) == 7.0
    assert s.integrated_error([7.0], [0.5]) == 7.0
    assert np.isnan(s.integrated_error([7.0], [0.05]))
    np.testing.assert_allclose(s.time_average(2 * t + 1, t, low=0.5), 2 * 0.75 + 1)


@pytest.mark.parametrize(("k", "n"), [(0, 20), (20, 20), (7, 20), (81, 263), (1, 1)])
def test_wilson_agrees_with_scipy(k, n):
    low, high = s.wilson(k, n)
    known = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert (low, high) == pytest.approx((known.low, known.high), abs=1e-12)


def test_wilson_of_nothing_says_nothing():
    assert s.wilson(0, 0) == (0.0, 1.0)


def test_median_interval_covers_and_admits_too_few_values():
    rng = np.random.default_rng(3)
    found = [s.median_interval(rng.exponential(size=41)) for _ in range(400)]
    covered = np.mean([e.low <= np.log(2) <= e.high for e in found])
    assert 0.93 <= covered <= 1.0
    assert np.isnan(s.median_interval([1.0, 2.0]).low)
    assert np.isnan(s.median_interval([np.nan]).value)


def test_bootstrap_mean_covers_a_gaussian_mean():
    values = np.random.default_rng(4).normal(2.0, 1.0, (50, 1000))
    found = s.bootstrap_mean(values, axis=0, draws=1000)
    covered = np.mean((found.low <= 2.0) & (found.high >= 2.0))
    assert covered == pytest.approx(0.94, abs=0.02)
    np.testing.assert_allclose(found.value, values.mean(0))


def test_bootstrap_is_repeatable_and_admits_too_few_paths():
    values = np.random.default_rng(5).normal(size=(30, 4))
    assert np.array_equal(s.bootstrap_mean(values, seed=1).low, s.bootstrap_mean(values, seed=1).low)
    assert not np.array_equal(s.bootstrap_mean(values, seed=1).low, s.bootstrap_mean(values, seed=2).low)
    lone = s.bootstrap_mean(np.array([[1.0, np.nan], [np.nan, np.nan], [np.nan, np.nan]]))
    np.testing.assert_array_equal(lone.value, [1.0, np.nan])
    assert np.isnan(lone.low).all()


def test_bootstrap_of_constant_values_is_a_point():
    assert s.bootstrap_mean(np.zeros(10)) == (0.0, 0.0, 0.0)


def test_pairing_sees_a_change_that_the_spread_hides():
    rng = np.random.default_rng(6)
    shared = rng.lognormal(0, 1, 100)
    first, second = shared, 1.01 * shared + rng.normal(0, 1e-3, 100)
    change = s.paired_bootstrap(first, second, relative=True)
    assert 0.005 < change.low < 0.01 < change.high < 0.015
    wide = s.bootstrap_mean(second)
    assert wide.high - wide.low > 10 * first.mean() * (change.high - change.low)


def test_paired_change_of_nothing_has_no_ratio():
    change = s.paired_bootstrap(np.zeros(5), np.ones(5), relative=True)
    assert np.isnan(change).all()
    assert s.paired_bootstrap(np.zeros(5), np.ones(5)) == (1.0, 1.0, 1.0)


def test_paired_change_counts_shared_paths_only():
    change = s.paired_bootstrap([1.0, 2.0, np.nan, 4.0], [2.0, 3.0, 100.0, np.nan])
    assert change.value == pytest.approx(1.0)
