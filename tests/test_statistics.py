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


def test_leaving_time_is_the_last_time_inside_as_sampling_runs():
    t = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    leaves = [2.0, 1.5, 1.2, 1.0, 1.0]
    comes_back = [2.0, 1.0, 1.2, 1.0, 1.0]
    never_inside = [2.0, 2.0, 2.0, 2.0, 2.0]
    never_leaves = [1.0, 1.0, 1.0, 1.0, 1.0]
    missing = [np.nan] * 5
    found = s.leaving_time([leaves, comes_back, never_inside, never_leaves, missing], t, (0.9, 1.1))
    np.testing.assert_array_equal(found, [0.8, 0.4, 1.0, 0.2, np.nan])


def test_median_band_of_a_ramp_ignores_what_is_missing():
    ramp = np.arange(101.0)
    values = np.stack([ramp, np.where(ramp % 2 == 0, ramp, np.nan), np.full(101, np.nan)], axis=1)
    band = s.median_band(values, axis=0)
    np.testing.assert_allclose(band.median, [50, 50, np.nan])
    np.testing.assert_allclose(band.low, [10, 10, np.nan])
    np.testing.assert_allclose(band.high, [90, 90, np.nan])


@given(st.lists(st.floats(0.01, 1.0), min_size=2, max_size=12, unique=True), st.floats(-3, 3), st.floats(-3, 3))
@settings(max_examples=50, deadline=None)
def test_time_integral_is_exact_for_lines_on_any_grid(times, slope, offset):
    t = np.sort(np.array(times))
    assert s.time_integral(offset + slope * t, t) == pytest.approx(offset + slope * (t[0] + t[-1]) / 2, abs=1e-9)


def test_time_integral_leaves_out_missing_times():
    t = np.array([0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(s.time_integral([[3, np.nan, 3, 3], [np.nan] * 4], t), [3, np.nan])
    assert s.time_integral([7.0], [0.5]) == 7.0


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
