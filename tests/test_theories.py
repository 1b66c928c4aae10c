"""Closed forms: the Gaussian denoiser is the conditional mean, whichever way its covariance is found, and no better on its own rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope.denoiser import on_linear_axis
from scorescope.theories import gaussian, theory
from scorescope.theories.gaussian import Gaussian, GaussianScore, shrinkage


def spectrum(d, n, seed=0):
    """Rows of a Gaussian with eigenvalues 1/k² in random directions, their covariance and mean."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    covariance, mean = (basis / np.arange(1, d + 1) ** 2) @ basis.T, rng.standard_normal(d)
    rows = mean + rng.standard_normal((n, d)) @ np.linalg.cholesky(covariance).T
    return rows.astype(np.float32), covariance, mean


def dense(rows, z, alpha, sigma):
    """The formula with whole matrices, in NumPy."""
    x = rows.astype(np.float64)
    mean, away = x.mean(0), x - x.mean(0)
    covariance = away.T @ away / len(x)
    trace, d = covariance.trace(), x.shape[1]
    share = shrinkage(trace, float((covariance**2).sum()), len(x), d)
    covariance = (1 - share) * covariance + share * trace / d * np.eye(d)
    return mean + (z - alpha * mean) @ np.linalg.solve(alpha**2 * covariance + sigma**2 * np.eye(d), alpha * covariance)


@pytest.mark.parametrize("n", [40, 12, 5])
@pytest.mark.parametrize("t", [1e-3, 0.3, 0.7, 1.0])
def test_it_is_the_formula_with_whole_matrices(n, t):
    rows, *_ = spectrum(20, n)
    z = np.random.default_rng(1).standard_normal((6, 20))
    found = GaussianScore(ss.Bank.from_arrays(rows))(torch.from_numpy(z), t)
    np.testing.assert_allclose(found.numpy(), dense(rows, z, 1 - t, t), rtol=1e-6, atol=1e-8)


def test_leading_directions_and_a_floor_are_nearly_all_of_many_dimensions(monkeypatch):
    monkeypatch.setattr(gaussian, "EXACT", 30)
    monkeypatch.setattr(gaussian, "RANK", 40)
    monkeypatch.setattr(gaussian, "SPARE", 10)
    rows, *_ = spectrum(100, 400)
    z = torch.from_numpy(rows[:8]).double() * 0.7 + 0.3 * torch.randn(
        8, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    found = GaussianScore(ss.Bank.from_arrays(rows))
    assert len(Gaussian.of(found.bank).values) == 40
    np.testing.assert_allclose(found(z, 0.3).numpy(), dense(rows, z.numpy(), 0.7, 0.3), atol=0.01)


def test_at_the_data_it_is_the_state_and_at_pure_noise_the_mean():
    rows, *_ = spectrum(6, 3)
    model, z = GaussianScore(ss.Bank.from_arrays(rows)), torch.randn(4, 6, dtype=torch.float64)
    torch.testing.assert_close(model(z, 0.0), z)
    torch.testing.assert_close(model(z, 1.0), torch.from_numpy(rows.astype(np.float64).mean(0)).expand(4, 6))
    constant = GaussianScore(ss.Bank.from_arrays(np.ones((5, 6), np.float32)))
    assert bool(constant(z, 0.5).isfinite().all())


def test_the_more_rows_the_nearer_to_the_true_posterior_mean():
    _, covariance, mean = spectrum(10, 1)
    rng, errors = np.random.default_rng(3), []
    x = mean + rng.standard_normal((500, 10)) @ np.linalg.cholesky(covariance).T
    z = 0.5 * x + 0.5 * rng.standard_normal((500, 10))
    best = mean + (z - 0.5 * mean) @ np.linalg.solve(0.25 * covariance + 0.25 * np.eye(10), 0.5 * covariance)
    for n in (5, 50, 5000):
        rows = (mean + rng.standard_normal((n, 10)) @ np.linalg.cholesky(covariance).T).astype(np.float32)
        errors.append(float(np.square(GaussianScore(ss.Bank.from_arrays(rows))(torch.from_numpy(z), 0.5).numpy() - best).mean()))
    assert errors[0] > errors[1] > 10 * errors[2]


def test_few_rows_are_not_taken_for_all_there_is():
    """Fewer rows than dimensions: hardly worse on rows that it has not seen."""
    rows, *_ = spectrum(60, 80, seed=5)
    model = GaussianScore(ss.Bank.from_arrays(rows[:40]))
    noise = np.random.default_rng(0).standard_normal((40, 60))
    own, other = (float(((model(torch.from_numpy(0.8 * x + 0.2 * noise), 0.2).numpy() - x) ** 2).mean()) for x in (rows[:40], rows[40:]))
    assert own < other < 2 * own


def test_each_class_has_its_own_and_mirror_images_count():
    rng = np.random.default_rng(0)
    rows, labels = rng.standard_normal((30, 1, 2, 3)).astype(np.float32), np.arange(30) % 2
    rows[labels == 1] += 3
    z = torch.randn(4, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    both = GaussianScore(ss.Bank.from_arrays(rows, labels))
    alone = GaussianScore(ss.Bank.from_arrays(rows[labels == 1]))
    torch.testing.assert_close(both(z, 0.4, 1), alone(z, 0.4))
    assert not torch.allclose(both(z, 0.4, 0), both(z, 0.4, 1))
    flipped = GaussianScore(ss.Bank.from_arrays(rows, flips=True))
    doubled = GaussianScore(ss.Bank.from_arrays(np.concatenate([rows, rows[..., ::-1]])))
    torch.testing.assert_close(flipped(z, 0.4), doubled(z, 0.4))


def test_every_schedule_agrees_on_the_linear_axis():
    rows, *_ = spectrum(6, 20)
    bank, z = ss.Bank.from_arrays(rows), torch.randn(3, 6, dtype=torch.float64)
    for schedule in (ss.VPSchedule(), ss.VESchedule(0.002, 80.0), ss.CosineSchedule()):
        torch.testing.assert_close(on_linear_axis(GaussianScore(bank, schedule))(z, 0.4), GaussianScore(bank)(z, 0.4))


def test_theories_are_made_by_name():
    bank = ss.Bank.from_arrays(np.eye(3, dtype=np.float32))
    assert isinstance(theory("gaussian", bank), GaussianScore)
    assert isinstance(ss.load("theory:gaussian", bank=bank), GaussianScore)
    for wrong, said in (
        (lambda: theory("gausian", bank), "'gaussian'"),
        (lambda: theory("gaussian", bank, rank=3), "can't be made with rank"),
        (lambda: ss.load("theory:gaussian"), "is a theory of a bank, and none is given"),
    ):
        with pytest.raises(ss.InputError, match=said):
            wrong()
