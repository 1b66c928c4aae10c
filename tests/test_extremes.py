"""Where float64 ends: times next to 0, rows far from or next to zero, near-ties at the data. Answers within their bound, never NaN."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch

import scorescope as ss

TIMES = [0.0, 1e-100, 1e-60, 1e-30, 1e-20, 1e-10, 1e-3, 0.5, 1 - 1e-6, 1.0]
BEYOND = [1e-300, 1e-160, 1e-154]
pytestmark = pytest.mark.usefixtures("each_arithmetic")


def definition(rows, z, t):
    """The posterior mean (Eq. 2) in 60 digits."""
    with mpmath.workdps(60):
        alpha, sigma = mpmath.mpf(1) - mpmath.mpf(t), mpmath.mpf(t)
        square = [sum((mpmath.mpf(float(v)) - alpha * mpmath.mpf(float(x))) ** 2 for v, x in zip(z, row, strict=True)) for row in rows]
        least = min(square)
        weight = [mpmath.exp((least - s) / (2 * sigma**2)) if t else mpmath.mpf(s == least) for s in square]
        return [float(sum(w * mpmath.mpf(float(row[k])) for w, row in zip(weight, rows, strict=True)) / sum(weight)) for k in range(len(z))]


@pytest.mark.parametrize("equal", [False, True])
@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("scale", [1.0, 1e15, 1e-30])
def test_every_answer_is_finite_and_within_its_bound(scale, n, equal):
    rng = np.random.default_rng(n)
    rows = (rng.standard_normal((n, 4)) * scale).astype(np.float32)
    rows[:] = rows[:1] if equal else rows
    for tolerance in (1e-4, 1e-8):
        truth = ss.EmpiricalScore(ss.Bank.from_arrays(rows), tolerance=tolerance)
        for t in TIMES:
            between = (rows[0].astype(np.float64) + rows[-1]) / 2
            for z in ((1 - t) * rows[0].astype(np.float64), rng.standard_normal(4) * scale, (1 - t) * between):
                found = truth.posterior(torch.from_numpy(z)[None], t)
                expected = np.array(definition(rows, z, t))
                error = np.linalg.norm(found.mean[0].numpy() - expected)
                assert error <= float(found.error_bound[0]) + 1e-12 * abs(expected).max(), t
                assert not any(bool(value.isnan().any()) for value in (found.entropy, found.log_density, found.r_star, found.ess)), t


@pytest.mark.parametrize("scale", [1.0, 10.0, 1e-6, 1e12])
@pytest.mark.parametrize("away", [1e20, 1e38, 1e45])
def test_states_beyond_float32_are_answered(away, scale):
    """The row that lies farthest on the way to a state takes all; draws are that row."""
    truth = ss.EmpiricalScore(ss.Bank.from_arrays((scale * np.eye(3, 4)).astype(np.float32)))
    z = away * torch.eye(4, dtype=torch.float64)[:3] + 0.1 * away
    for t in (1e-3, 0.5, 0.999):
        found = truth.posterior(z, t)
        assert torch.equal(found.top_index, torch.arange(3))
        torch.testing.assert_close(found.mean, truth.rows(torch.arange(3)), rtol=1e-6, atol=0)
        assert bool((found.error_bound <= 1e-4 * scale).all())
        assert torch.equal(truth.sample(z, t)[1], torch.arange(3))
    if away < 3e38:
        assert bool(truth.posterior(torch.full((1, 4), away), 0.5).mean.isfinite().all())


@pytest.mark.parametrize("t", BEYOND)
def test_a_time_whose_variance_is_no_number_is_refused(t):
    truth = ss.EmpiricalScore(ss.Bank.from_arrays(np.eye(3, 4, dtype=np.float32)))
    with pytest.raises(ss.InputError, match=r"is too near 0: σ² is beyond float64"):
        truth.posterior(torch.zeros(1, 4), t)


def test_rows_whose_squares_are_no_numbers_are_refused():
    with pytest.raises(ss.InputError, match=r"have squares beyond float32"):
        ss.EmpiricalScore(ss.Bank.from_arrays(1e30 * np.eye(3, 4, dtype=np.float32)))


def test_near_ties_at_the_data_are_decided_rightly_or_covered_by_the_bound():
    """Two rows that differ in one value by its last bit, and states next to the middle between them."""
    rng = np.random.default_rng(1)
    for _ in range(100):
        d = int(rng.integers(2, 40))
        rows = np.repeat(rng.standard_normal((1, d)).astype(np.float32), 2, axis=0)
        k = rng.integers(d)
        rows[1, k] = np.nextafter(rows[1, k], np.float32(9))
        rows = rows[rng.permutation(2)]
        z = rows.astype(np.float64).mean(0) + rng.standard_normal(d) * rng.choice([1e-3, 1.0, 1e3])
        z[k] = rows[:, k].astype(np.float64).mean() * (1 + rng.choice([0, 1e-16, -1e-16, 3e-16]))
        exact = [sum((Fraction(float(a)) - Fraction(float(b))) ** 2 for a, b in zip(z, row, strict=True)) for row in rows]
        nearest = rows[[square == min(exact) for square in exact]].astype(np.float64).mean(0)
        found = ss.EmpiricalScore(ss.Bank.from_arrays(rows)).posterior(torch.from_numpy(z)[None], 0.0)
        assert np.linalg.norm(found.mean[0].numpy() - nearest) <= float(found.error_bound[0]) + 1e-13
