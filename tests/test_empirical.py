"""The empirical score against its float64 definition: on shells, off them, on ties, at both ends of time, with flips and labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import scorescope as ss
from scorescope.empirical.partial import Partial
from scorescope.empirical.reference import reference_posterior
from tests.problems import GaussianMixture

SCHEDULES = [ss.LinearSchedule(), ss.VPSchedule(), ss.CosineSchedule(), ss.VESchedule(0.01, 50.0)]


def make_bank(n=300, shape=(1, 6, 6), classes=3, flips=False, seed=0, duplicates=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, *shape)).astype(np.float32)
    if duplicates:
        x[-duplicates:] = x[:duplicates]
    return ss.Bank.from_arrays(x, rng.integers(0, classes, n) if classes else None, flips=flips)


def states_of(bank, kind, t, schedule, count=6, seed=1):
    """States on the shells, off them (pure noise, data mean) and on constructed near-ties."""
    rng = torch.Generator().manual_seed(seed)
    alpha, sigma = (float(v) for v in schedule(t)[:2])
    rows = torch.randint(len(bank), (count, 2), generator=rng)
    eps = torch.randn(count, *bank.shape, generator=rng)
    if kind == "shell":
        return alpha * bank[rows[:, 0]] + sigma * eps
    if kind == "tie":
        return alpha * 0.5 * (bank[rows[:, 0]] + bank[rows[:, 1]]) + 1e-3 * sigma * eps
    return 0.3 * eps


def agrees(post, exact, bank, tolerance):
    scale = bank.radius
    error = (post.mean - exact.mean).flatten(1).norm(dim=1)
    assert bool((error <= post.error_bound + 1e-13 * scale).all()), "the bound must hold"
    # Rounding of float64 itself is reported on top: at t = 0.001 it reaches 1e-7 on constructed ties.
    assert bool((post.error_bound <= (tolerance + 1e-7) * scale).all()), "the bound must meet the tolerance"
    for name in ("log_density", "entropy", "ess", "top_weight", "r_star"):
        torch.testing.assert_close(
            getattr(post, name),
            getattr(exact, name),
            rtol=20 * tolerance + 1e-7,
            atol=20 * tolerance + 1e-7,
            msg=lambda m, n=name: f"{n}: {m}",
        )


@pytest.mark.parametrize("tolerance", [1e-5, 1e-8])
@pytest.mark.parametrize("kind", ["shell", "tie", "far"])
@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_every_time_matches_the_definition(schedule, flips, kind, tolerance):
    bank = make_bank(flips=flips, duplicates=5)
    truth = ss.EmpiricalScore(bank, schedule, tolerance)
    for t in (0.0, 0.001, 0.01, 0.3, 0.7, 0.95, 1.0):
        if t == 0.0 and kind != "shell":
            continue
        z = states_of(bank, kind, t, schedule)
        agrees(truth.posterior(z, t), reference_posterior(bank, schedule, z, t), bank, tolerance)


@pytest.mark.parametrize("memory", [None, 1])
@pytest.mark.parametrize("flips", [False, True])
def test_conditional_on_each_class(flips, memory):
    bank = make_bank(flips=flips, n=120)
    truth = ss.EmpiricalScore(bank, memory=memory)
    z = states_of(bank, "far", 0.6, truth.schedule)
    label = torch.tensor([0, 2, 1, 0, 1, 2])
    post = truth.posterior(z, 0.6, label)
    for k in range(6):
        exact = reference_posterior(bank, truth.schedule, z[k : k + 1], 0.6, int(label[k]))
        agrees(post[k : k + 1], exact, bank, 1e-5)
        assert bank.labels[int(post.top_index[k]) % 120] == label[k]


def test_a_time_for_each_state_and_any_batch():
    bank = make_bank()
    truth = ss.EmpiricalScore(bank)
    t = torch.linspace(0.02, 0.98, 300, dtype=torch.float64)
    z = torch.cat([states_of(bank, "shell", float(v), truth.schedule, 1, seed=k) for k, v in enumerate(t)])
    together = truth.posterior(z, t)
    alone = [truth.posterior(z[k : k + 1], float(t[k])) for k in range(0, 300, 37)]
    for k, post in zip(range(0, 300, 37), alone, strict=True):
        torch.testing.assert_close(together.mean[k : k + 1], post.mean, rtol=0, atol=2e-5 * bank.radius)
        assert int(together.top_index[k]) == int(post.top_index)


def test_memory_budget_and_storage_do_not_matter(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (500, 1, 8, 8), dtype=np.uint8)
    bank = ss.Bank.from_arrays(x)
    z = states_of(bank, "shell", 0.8, ss.LinearSchedule())
    resident, streamed = ss.EmpiricalScore(bank), ss.EmpiricalScore(bank, memory=1)
    assert resident.shelf.resident
    assert not streamed.shelf.resident
    torch.testing.assert_close(resident.posterior(z, 0.8).mean, streamed.posterior(z, 0.8).mean, rtol=1e-12, atol=1e-12)


def test_reduced_precision_of_the_caller_changes_nothing():
    bank = make_bank()
    truth = ss.EmpiricalScore(bank)
    z = states_of(bank, "tie", 0.05, truth.schedule)
    expected = truth.posterior(z, 0.05).mean
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            found = truth.posterior(z, 0.05).mean
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.equal(found, expected)


def test_score_is_the_gradient_of_log_density():
    bank = make_bank(n=40, shape=(5,), classes=0)
    for schedule in SCHEDULES:
        z = torch.randn(3, 5, dtype=torch.float64) * 0.5
        t = 0.6
        alpha, sigma = schedule(t)[:2]
        z.requires_grad_()
        square = (z[:, None] - alpha * bank[np.arange(40)].double()).square().sum(2)
        density = torch.logsumexp(-square / (2 * sigma**2), 1)
        (gradient,) = torch.autograd.grad(density.sum(), z)
        truth = ss.EmpiricalScore(bank, schedule, 1e-10)
        torch.testing.assert_close(truth.score(z.detach(), t), gradient, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_a_mixture_of_points_has_its_closed_form(schedule):
    """Rows are a Gaussian mixture of width 0, whose posterior mean and density are known."""
    centres = torch.tensor([[1.0, 0.0], [-1.0, 0.5], [0.0, -2.0]])
    truth, mixture = ss.EmpiricalScore(ss.Bank.from_arrays(centres), schedule, 1e-9), GaussianMixture(centres, 0.0, schedule)
    for t in (0.05, 0.4, 0.9):
        alpha, sigma = schedule(t)[:2]
        z = alpha * torch.randn(20, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        post = truth.posterior(z, t)
        torch.testing.assert_close(post.mean, mixture(z, t), rtol=1e-7, atol=1e-7)
        parts = [torch.distributions.MultivariateNormal(alpha * c.double(), sigma**2 * torch.eye(2, dtype=torch.float64)) for c in centres]
        density = torch.stack([part.log_prob(z) for part in parts]).logsumexp(0) - math.log(3)
        torch.testing.assert_close(post.log_density, density, rtol=1e-6, atol=1e-6)


def test_ends_of_time():
    bank = make_bank()
    truth = ss.EmpiricalScore(bank)
    z = states_of(bank, "far", 1.0, truth.schedule)
    post = truth.posterior(z, 1.0)
    torch.testing.assert_close(post.mean, bank.mean.expand_as(post.mean), rtol=0, atol=1e-6)
    torch.testing.assert_close(post.entropy, torch.full((6,), math.log(len(bank)), dtype=torch.float64))
    torch.testing.assert_close(post.ess, torch.full((6,), float(len(bank)), dtype=torch.float64))
    late = truth.posterior(bank[np.arange(6)] + 0.05 * z, 1e-3)
    torch.testing.assert_close(late.mean, bank[np.arange(6)].double(), rtol=0, atol=1e-9)
    assert late.top_index.tolist() == list(range(6))


def test_at_zero_the_nearest_row_takes_all_and_duplicates_share():
    x = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    truth = ss.EmpiricalScore(ss.Bank.from_arrays(x))
    post = truth.posterior(torch.tensor([[0.9, 0.1], [0.0, 0.0]]), 0.0)
    assert post.mean.tolist() == [[1.0, 0.0], [0.0, 0.0]]
    assert post.ess.tolist() == [2.0, 1.0]
    assert post.log_density[0] == -math.inf
    assert post.log_density[1] == math.inf
    with pytest.raises(ss.InputError, match="t = 0"):
        truth.score(torch.zeros(1, 2), 0.0)


@pytest.mark.parametrize("d", [2, 784])
def test_fresh_noise_has_r_star_like_chi(d):
    from scipy.stats import chi, kstest

    x = np.zeros((1, d), dtype=np.float32)
    truth = ss.EmpiricalScore(ss.Bank.from_arrays(x))
    eps = torch.randn(400, d, generator=torch.Generator().manual_seed(0))
    r_star = truth.posterior(0.5 * eps, 0.5).r_star.numpy()
    assert kstest(r_star * math.sqrt(d), chi(d).cdf).pvalue > 1e-3


def test_one_row_and_constant_data():
    one = ss.EmpiricalScore(ss.Bank.from_arrays(np.ones((1, 4), np.float32)))
    post = one.posterior(torch.randn(3, 4), 0.5)
    torch.testing.assert_close(post.mean, torch.ones(3, 4, dtype=torch.float64))
    assert post.ess.tolist() == pytest.approx([1, 1, 1])
    same = ss.EmpiricalScore(ss.Bank.from_arrays(np.ones((200, 4), np.float32)))
    for t in (0.0, 0.001, 0.5, 1.0):
        post = same.posterior(torch.randn(3, 4), t)
        torch.testing.assert_close(post.mean, torch.ones(3, 4, dtype=torch.float64))
        assert post.ess.tolist() == pytest.approx([200] * 3)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.floats(-300, 300))
def test_partials_merge_like_sets(seed, n, shift):
    rng = torch.Generator().manual_seed(seed)
    logit = 30 * torch.randn(3, n, generator=rng, dtype=torch.float64) + shift
    x = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    index = torch.arange(n)
    a, b = sorted((torch.randint(0, n + 1, (2,), generator=rng)).tolist())

    def part(start, stop):
        if start == stop:
            return Partial.nothing(3, 2, "cpu")
        return Partial.of_rows(logit[:, start:stop], x[start:stop], x[start:stop].square().sum(1), index[start:stop])

    whole = part(0, n)
    pieces = [part(0, a), part(a, b), part(b, n)]
    left = pieces[0].merge(pieces[1]).merge(pieces[2])
    right = pieces[2].merge(pieces[0].merge(pieces[1]))
    for name in vars(whole):
        torch.testing.assert_close(getattr(left, name), getattr(whole, name), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(getattr(right, name), getattr(whole, name), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda truth: truth.posterior(torch.zeros(2, 1, 6, 5), 0.5), "do not match"),
        (lambda truth: truth.posterior(torch.full((2, 1, 6, 6), torch.nan), 0.5), "states 0, 1 contain NaN"),
        (lambda truth: truth.posterior(torch.zeros(2, 1, 6, 6), 1.5), r"\[0, 1\]"),
        (lambda truth: truth.posterior(torch.zeros(2, 1, 6, 6), 0.5, 7), "label 7"),
        (lambda truth: truth.posterior(torch.zeros(2, 1, 6, 6), torch.zeros(3)), "does not match 2 states"),
        (lambda truth: ss.EmpiricalScore(truth.bank, tolerance=0), "tolerance"),
    ],
)
def test_bad_queries_are_one_clear_error(call, message):
    with pytest.raises(ss.InputError, match=message):
        call(ss.EmpiricalScore(make_bank(n=20)))
