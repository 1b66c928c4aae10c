"""The empirical score against its float64 definition: on shells, off them, on ties, at both ends of time, with flips and labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import scorescope as ss
from scorescope.empirical import shelf
from scorescope.empirical.engine import ALL_DOUBLE, FEW_ROWS, SUMMED, TOGETHER, WHOLE
from scorescope.empirical.partial import Partial
from tests.definition import agrees, bank_of, definition, partial_of, state_of, states_of, unresolved
from tests.problems import GaussianMixture

SCHEDULES = [ss.LinearSchedule(), ss.VPSchedule(), ss.CosineSchedule(), ss.VESchedule(0.01, 50.0)]
TIMES = [0.001, 0.005, 0.02, 0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.97, 0.999]
KINDS = ["shell", "tie", "near tie", "off", "mean", "outside"]

pytestmark = pytest.mark.usefixtures("each_arithmetic")


def make_bank(n=300, shape=(1, 6, 6), classes=3, flips=False, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, *shape)).astype(np.float32)
    return ss.Bank.from_arrays(x, rng.integers(0, classes, n) if classes else None, flips=flips)


def check(bank, schedule, tolerance, times, kinds, *, label=None, memory=None, **kwargs):
    """All kinds of states at all times against the definition; returns which paths were taken."""
    truth = ss.EmpiricalScore(bank, schedule, tolerance, memory=memory)
    z, t, names = states_of(bank, schedule, times, kinds)
    exact, rounding = definition(bank, schedule, z, t, label), unresolved(bank, schedule, z, t)
    agrees(truth.posterior(z, t, label), exact, bank, tolerance, names, rounding=rounding, **kwargs)
    return {path for path, count in truth.engine.work.items() if count}


@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_every_schedule_at_every_time_matches_the_definition(schedule, kind, flips, tolerance):
    bank = bank_of(kind, 150, flips=flips, duplicates=5)
    check(bank, schedule, tolerance, [0.0, *TIMES, 1.0], KINDS)


BANKS = [
    ("bytes", {}),
    ("bytes noise", {"shape": (3, 16, 16), "n": 400}),
    ("bytes black and white", {}),
    ("bytes constant", {}),
    ("bytes nearly white", {"shape": (3, 32, 32)}),
    ("bytes", {"low": 0.0, "high": 1.0}),
    ("bytes", {"low": -3.0, "high": 4.0}),
    ("gauss", {}),
    ("half", {}),
    ("spectrum", {"shape": (3, 32, 32), "n": 120}),
    ("heavy", {}),
    ("tiny", {}),
    ("far", {}),
    ("gauss", {"n": 1}),
    ("bytes", {"n": 1}),
    ("gauss", {"n": 2}),
    ("bytes", {"n": 2}),
    ("gauss", {"shape": (2,)}),
    ("bytes", {"shape": (2,)}),
    ("bytes", {"shape": (1,)}),
    ("gauss", {"shape": (3, 64, 64), "n": 20}),
    ("bytes", {"shape": (3, 64, 64), "n": 20}),
]


@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
@pytest.mark.parametrize(("kind", "options"), BANKS, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values())))
def test_every_kind_of_bank_matches_the_definition(kind, options, tolerance):
    """On the shells, off them and on near-ties, from t = 0.001 to 1: at most 1e-4, or 1e-6 at tolerance 1e-8."""
    bank = bank_of(kind, **{"n": 200, **options})
    # Where σ is 10⁻⁶ of the numbers that enter, float64 can't vouch for what it gets right.
    met = kind not in ("bytes nearly white", "heavy")
    check(bank, ss.LinearSchedule(), tolerance, [*TIMES, 1.0], KINDS, met=met)


@pytest.mark.parametrize("kind", ["gauss", "bytes noise"])
def test_rows_of_a_huge_scale(kind):
    """No ties: at σ = 10⁻⁸ of the radius they are beyond what float64 states can express."""
    options = {"low": -1e6, "high": 1e6} if kind == "bytes noise" else {}
    bank = bank_of("huge" if kind == "gauss" else kind, 200, **options)
    check(bank, ss.LinearSchedule(), 1e-4, TIMES, ["shell", "off", "outside"], met=False, fields=())


@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_states_that_have_flown_away_are_answered(kind, tolerance):
    """A sampler that diverges asks for states that no number of digits resolves; the bound says what is known."""
    bank, schedule = bank_of(kind, 200, duplicates=100), ss.LinearSchedule()
    rng = torch.Generator().manual_seed(0)
    for t in (0.001, 0.1, 0.9):
        for away in (1e3, 1e6, 1e10):
            z = away * torch.randn(2, *bank.shape, generator=rng, dtype=torch.float64)
            post, exact = ss.EmpiricalScore(bank, schedule, tolerance).posterior(z, t), definition(bank, schedule, z, t)
            error = (post.mean - exact.mean).flatten(1).norm(dim=1)
            resolved = unresolved(bank, schedule, z, t) < 1e-6 * bank.radius
            assert bool((error <= post.error_bound + unresolved(bank, schedule, z, t))[resolved].all())
            assert bool(post.mean.isfinite().all())


@pytest.mark.parametrize("sigma", [0.005, 0.01, 0.02])
@pytest.mark.parametrize(
    ("kind", "shape"), [("bytes", (3, 32, 32)), ("gauss", (3, 32, 32)), ("bytes", (3, 64, 64)), ("gauss", (3, 64, 64))]
)
def test_halfway_between_two_rows(kind, shape, sigma):
    """The weights of two rows hang on the last digits: exactly halfway, and so little off it that they differ by some nats."""
    bank, schedule = bank_of(kind, 40, shape), ss.LinearSchedule()
    a, b = bank[0].double(), bank[1].double()
    nat = sigma**2 / ((1 - sigma) ** 2 * float((a - b).square().sum()))
    off = torch.tensor([0.0, 0.3, -1.0, 2.0, 5.0], dtype=torch.float64).reshape(-1, 1, 1, 1) * nat
    z = (1 - sigma) * ((0.5 + off) * a + (0.5 - off) * b)
    exact = definition(bank, schedule, z, sigma)
    assert 0.45 < float(exact.top_weight[0]) < 0.55
    assert 0.5 < float(exact.top_weight[1]) < 0.9
    for tolerance in (1e-4, 1e-8):
        rounding = unresolved(bank, schedule, z, sigma)
        agrees(ss.EmpiricalScore(bank, schedule, tolerance).posterior(z, sigma), exact, bank, tolerance, rounding=rounding)


@pytest.mark.parametrize("kind", ["bytes", "gauss"])
def test_ties_between_crowds_of_duplicates(kind):
    """More rows than are settled one by one; float64 says what it does not resolve."""
    bank, schedule = bank_of(kind, 200, (3, 16, 16), duplicates=160), ss.LinearSchedule()
    for sigma in (0.005, 0.05):
        z = ((1 - sigma) * (bank[0].double() + bank[1].double()) / 2)[None] + sigma * 1e-3 * torch.randn(3, *bank.shape)
        exact = definition(bank, schedule, z, sigma)
        assert bool((exact.ess > 64).all())
        for tolerance in (1e-4, 1e-8):
            agrees(ss.EmpiricalScore(bank, schedule, tolerance).posterior(z, sigma), exact, bank, tolerance, met=False)


@pytest.mark.parametrize(
    ("kind", "tolerance", "paths"),
    [
        ("bytes noise", 1e-4, {FEW_ROWS, SUMMED}),
        ("bytes nearly white", 1e-4, {SUMMED}),
        ("bytes noise", 1e-8, {FEW_ROWS, ALL_DOUBLE}),
        ("gauss", 1e-4, {FEW_ROWS, SUMMED}),
    ],
)
@pytest.mark.parametrize("flips", [False, True])
def test_every_path_is_taken_and_right_with_more_rows_than_one_product(kind, tolerance, paths, flips, monkeypatch, each_arithmetic):
    monkeypatch.setattr(shelf, "BLOCK", 4096 * 16)
    bank = bank_of(kind, 8500, (1, 4, 4), flips=flips, duplicates=100)
    taken = check(bank, ss.LinearSchedule(), tolerance, [0.001, 0.05, 0.15, 0.3, 0.7, 0.99], ["shell", "off", "mean"])
    if each_arithmetic == "integers" and kind.startswith("bytes"):
        taken = {SUMMED if path == WHOLE else path for path in taken - {SUMMED}}
    if "at once" in each_arithmetic and tolerance > 1e-8:
        paths = {TOGETHER}
    assert paths <= taken


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_conditional_on_each_class(kind, flips, streamed, monkeypatch):
    labels = np.arange(600) % 3
    labels[9] = 3  # a class of one row
    bank = bank_of(kind, 600, flips=flips, labels=labels)
    if streamed:
        monkeypatch.setattr(shelf, "LEAST", 4)
    memory = 2 * 16 * 600 + 4 * bank.d * 64 if streamed else None
    assert ss.EmpiricalScore(bank, memory=memory).shelf.resident == (not streamed)
    label = torch.arange(len(KINDS) * 4) % 4
    check(bank, ss.LinearSchedule(), 1e-4, [0.02, 0.4, 0.7, 0.95], KINDS, label=label, memory=memory)
    z = 0.5 * torch.randn(4, *bank.shape)
    top = ss.EmpiricalScore(bank, memory=memory).posterior(z, 0.5, torch.arange(4)).top_index % 600
    assert bank.labels[top].tolist() == [0, 1, 2, 3]


def test_a_time_for_each_state_and_any_batch():
    bank = make_bank()
    truth = ss.EmpiricalScore(bank)
    t = torch.linspace(0.02, 0.98, 300, dtype=torch.float64)
    rng = np.random.default_rng(0)
    z = torch.stack([state_of(bank, truth.schedule, float(v), "shell", rng) for v in t])
    together = truth.posterior(z, t)
    alone = [truth.posterior(z[k : k + 1], float(t[k])) for k in range(0, 300, 37)]
    for k, post in zip(range(0, 300, 37), alone, strict=True):
        torch.testing.assert_close(together.mean[k : k + 1], post.mean, rtol=0, atol=2e-5 * bank.radius)
        assert int(together.top_index[k]) == int(post.top_index)


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
    z = 0.3 * torch.randn(6, *bank.shape, generator=torch.Generator().manual_seed(1))
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


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_r_star_is_that_of_the_row_nearest_to_the_shell_on_either_side(kind, flips):
    """Rows at distance 0 are farther from the shell than rows at nearly twice its radius."""
    bank = bank_of(kind, 150, flips=flips)
    schedule = ss.LinearSchedule()
    for t in (0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5):
        z = (1 - t) * bank[np.arange(20)].double()
        exact = definition(bank, schedule, z, t)
        post = ss.EmpiricalScore(bank, schedule).posterior(z, t)
        torch.testing.assert_close(post.r_star, exact.r_star, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["bytes", "gauss"])
def test_r_star_with_crowds_on_either_side_of_the_shell(kind):
    """So many rows that they are not looked at one by one; a step inside counts for more than the same change of the logit outside."""
    inside, outside = np.tile([[20, 0]], (100, 1)), np.tile([[0, 58]], (100, 1))
    x = np.concatenate([inside, outside])
    options = {"low": 0.0, "high": 255.0 / 28.28}
    bank = ss.Bank.from_arrays(x.astype(np.uint8), **options) if kind == "bytes" else ss.Bank.from_arrays((x / 28.28).astype(np.float32))
    schedule = ss.LinearSchedule()
    t = torch.linspace(0.3, 0.7, 41, dtype=torch.float64)
    z = torch.zeros(41, 2)
    exact = definition(bank, schedule, z, t)
    assert bool((exact.r_star > 1).any())
    assert bool((exact.r_star < 1).any())
    post = ss.EmpiricalScore(bank, schedule).posterior(z, t)
    torch.testing.assert_close(post.r_star, exact.r_star, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(2,), (1, 4, 4)])
def test_r_star_of_float_rows_that_are_too_many_to_tell_apart_by_their_digits(shape):
    bank = bank_of("heavy", 900, shape)
    truth = ss.EmpiricalScore(bank)
    z, t, names = states_of(bank, truth.schedule, [0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6], ["shell", "off", "mean", "outside"])
    agrees(truth.posterior(z, t), definition(bank, truth.schedule, z, t), bank, truth.tolerance, names, fields=("r_star",))


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
        return partial_of(logit[:, start:stop], x[start:stop], index[start:stop])

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
        (lambda truth: truth.posterior(torch.zeros(2, 1, 6, 6), torch.nan), r"\[0, 1\]"),
        (
            lambda truth: truth.posterior(torch.tensor([1.0, torch.inf, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 6, 6), 0.5),
            "states 1 contain",
        ),
        (lambda truth: truth.posterior(torch.zeros(2, 1, 6, 6), 0.5, torch.tensor([0, 7])), "label 7"),
        (lambda truth: truth.posterior(torch.zeros(2, 1, 6, 6), 0.5, torch.tensor([0, 1, 1])), "do not match 2 states"),
        (lambda truth: ss.EmpiricalScore(truth.bank, tolerance=0), "tolerance"),
    ],
)
def test_bad_queries_are_one_clear_error(call, message):
    with pytest.raises(ss.InputError, match=message):
        call(ss.EmpiricalScore(make_bank(n=20)))


def test_no_states_have_no_posteriors():
    bank = make_bank(n=20)
    post = ss.EmpiricalScore(bank).posterior(torch.zeros(0, *bank.shape), 0.5)
    assert post.mean.shape == (0, *bank.shape)
    assert len(post.r_star) == 0


def test_a_score_says_which_way_it_answered(each_arithmetic):
    truth = ss.EmpiricalScore(ss.Bank.from_arrays(np.eye(4, dtype=np.float32)))
    assert truth.path == ""
    truth.posterior(torch.eye(4)[:3], 0.01)
    assert truth.path == ("all rows at once: 3" if "at once" in each_arithmetic else "few rows, float64 differences: 3")
