"""Sweeps over timesteps: every timestep once, each as the definition has it, whatever x, eps, times, labels, schedule and memory."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope.bench.gaussian import trajectories
from scorescope.bench.synthetic import synthetic
from scorescope.empirical import shelf as shelves
from scorescope.empirical import sweep as sweeps
from scorescope.empirical.engine import FEW_ROWS, SUMMED, WHOLE
from tests.definition import agrees, bank_of, definition, state_of, unresolved

SCHEDULES = [ss.LinearSchedule(), ss.VPSchedule(), ss.CosineSchedule(), ss.VESchedule(0.005, 80.0)]
# Unsorted, repeated, with both ends of time, and from one path to the next.
TIMES = torch.tensor(
    [0.5, 1.0, 0.001, 0.9, 0.02, 0.999, 0.0, 0.7, 0.3, 0.9, 0.6, 0.1, 0.8, 0.4, 0.95, 0.55, 0.45, 0.35, 0.25, 0.2, 0.05, 0.005, 0.3],
    dtype=torch.float64,
)


pytestmark = pytest.mark.usefixtures("each_arithmetic")


def noise(count, bank, seed=0):
    return torch.randn(count, *bank.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def states_at(schedule, x, eps, t):
    alpha, sigma = schedule(t)[:2]
    return alpha * x.double() + sigma * eps.double()


def check_pairs(truth, x, eps, times, label=None, **kwargs):
    """Every timestep of the sweep against the definition at the same states."""
    seen = []
    for k, post in truth.supervision_sweep(x, eps, times, label):
        seen.append(k)
        z = states_at(truth.schedule, x, eps, float(times[k]))
        exact = definition(truth.bank, truth.schedule, z, float(times[k]), label)
        names = [f"pair {p} at t = {float(times[k])}" for p in range(len(x))]
        rounding = unresolved(truth.bank, truth.schedule, z, times[k])
        agrees(post, exact, truth.bank, truth.tolerance, names, rounding=rounding, **kwargs)
    assert sorted(seen) == list(range(len(times)))


def check_trajectories(truth, z, times, label=None, **kwargs):
    seen = []
    for k, post in truth.trajectory_sweep(z, times, label):
        seen.append(k)
        exact = definition(truth.bank, truth.schedule, z[:, k], float(times[k]), label)
        names = [f"trajectory {p} at t = {float(times[k])}" for p in range(len(z))]
        rounding = unresolved(truth.bank, truth.schedule, z[:, k], times[k])
        agrees(post, exact, truth.bank, truth.tolerance, names, rounding=rounding, **kwargs)
    assert sorted(seen) == list(range(len(times)))


def trajectories_of(bank, schedule, times, count=3, seed=0):
    """Where the Gaussian fitted to the bank would take fresh noise: smooth, and off the shells; the last bends towards a row."""
    alpha, sigma = (value.reshape(-1, *[1] * len(bank.shape)) for value in schedule(times)[:2])
    width = bank.radius / math.sqrt(bank.d)
    z = alpha * bank.mean + (alpha**2 * width**2 + sigma**2).sqrt() * noise(count, bank, seed)[:, None]
    bend = (1 - times.reshape(sigma.shape)) ** 2
    z[-1] = alpha * (bank.mean + bend * (bank[0].double() - bank.mean)) + sigma * noise(1, bank, seed + 1)[0]
    return z


KINDS = [
    ("bytes", {"flips": True, "duplicates": 4}),
    ("bytes noise", {"n": 600}),
    ("bytes black and white", {}),
    ("bytes constant", {"n": 90}),
    ("bytes", {"low": 0.0, "high": 10.0}),
    ("gauss", {"flips": True, "duplicates": 4}),
    ("spectrum", {}),
    ("half", {}),
    ("heavy", {}),
    ("far", {}),
    ("gauss", {"n": 1}),
    ("bytes", {"n": 2}),
    ("gauss", {"shape": (2,), "n": 400}),
    ("bytes", {"shape": (2,), "n": 400}),
    ("bytes", {"shape": (3, 64, 64), "n": 30}),
    ("gauss", {"shape": (3, 64, 64), "n": 30}),
]


@pytest.mark.parametrize("tolerance", [1e-4, 1e-8])
@pytest.mark.parametrize(("kind", "options"), KINDS, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v)))
def test_both_sweeps_match_the_definition(kind, options, tolerance):
    bank = bank_of(kind, **{"n": 300, **options})
    truth = ss.EmpiricalScore(bank, tolerance=tolerance)
    x = bank[np.arange(3) % len(bank)]
    # What float64 sums of 12,288 products could be off at worst is more than 1e-8; what they are off is not.
    met = tolerance > 1e-6 or bank.d < 10_000
    check_pairs(truth, x, noise(3, bank), TIMES, met=met)
    check_trajectories(truth, trajectories_of(bank, truth.schedule, TIMES), TIMES, met=met)


@pytest.mark.parametrize("n", [300, 9000])
@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_every_path_is_taken(kind, n, monkeypatch, each_arithmetic):
    """With 9,000 rows, more than one block has, too."""
    monkeypatch.setattr(shelves, "BLOCK", 4096 * 48)
    monkeypatch.setattr(sweeps, "TOGETHER", 16)
    bank = bank_of(kind, n)
    truth = ss.EmpiricalScore(bank)
    path = WHOLE if kind == "bytes noise" and each_arithmetic.startswith("integers") else SUMMED
    check_pairs(truth, bank[np.arange(3)], noise(3, bank), TIMES)
    taken = {name for name, count in truth.engine.work.items() if count}
    assert {"few rows, closed form", FEW_ROWS, path} <= taken
    truth.engine.work.clear()
    check_trajectories(truth, trajectories_of(bank, truth.schedule, TIMES), TIMES)
    assert {name for name, count in truth.engine.work.items() if count} >= {FEW_ROWS, path}


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_every_schedule(schedule, kind):
    bank = bank_of(kind, flips=True)
    truth = ss.EmpiricalScore(bank, schedule)
    check_pairs(truth, bank[np.array([3, 250])], noise(2, bank), TIMES)
    check_trajectories(truth, trajectories_of(bank, schedule, TIMES), TIMES)


@pytest.mark.parametrize("size", [0.0, 0.3, 1.2, 30.0, 1e4])
@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_noise_of_any_size(kind, size):
    """Without noise a pair's own row is at distance 0 and another is nearer to the shell; with much, rows other than its own win."""
    bank = bank_of(kind, 250, duplicates=2)
    truth = ss.EmpiricalScore(bank)
    check_pairs(truth, bank[np.arange(3)], size * noise(3, bank), TIMES)


@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_points_that_are_no_rows(kind):
    bank = bank_of(kind, 250)
    truth = ss.EmpiricalScore(bank)
    near, between = bank[0] + 1e-3, 0.5 * (bank[1].double() + bank[2].double())
    x = torch.stack([bank[7].double(), near.double(), between, bank.mean, 2 * noise(1, bank, 3)[0]])
    check_pairs(truth, x, noise(5, bank), TIMES)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_a_class_for_each_pair(kind, flips):
    labels = np.arange(240) % 3
    labels[7] = 3  # a class of one row
    bank = bank_of(kind, 240, flips=flips, labels=labels)
    truth = ss.EmpiricalScore(bank)
    label = torch.tensor([2, 0, 3, 0, 1])
    x = bank[np.array([2, 3, 7, 1, 4])]  # the fourth is not of its class
    check_pairs(truth, x, noise(5, bank), TIMES, label)
    check_trajectories(truth, trajectories_of(bank, truth.schedule, TIMES, 5), TIMES, label)
    check_pairs(truth, x[:2], noise(2, bank), TIMES[:4], 3)
    assert all(bank.labels[int(p.top_index[2]) % 240] == 3 for _, p in truth.supervision_sweep(x, noise(5, bank), TIMES, label))


def test_one_pair_and_one_timestep():
    bank = bank_of("bytes noise")
    truth = ss.EmpiricalScore(bank)
    for t in (0.0, 0.3, 0.9, 1.0):
        one = torch.tensor([t])
        check_pairs(truth, bank[np.array([5])], noise(1, bank), one)
        check_trajectories(truth, trajectories_of(bank, truth.schedule, one, 2)[:1], one)


def test_more_timesteps_than_share_a_basis_and_states_without_order():
    """States of one trajectory need have nothing to do with each other."""
    bank = bank_of("bytes noise")
    truth = ss.EmpiricalScore(bank)
    times = torch.linspace(0, 1, 64, dtype=torch.float64)
    rng = np.random.default_rng(0)
    kinds = ["shell", "off", "near tie", "mean", "outside"]
    z = [torch.stack([state_of(bank, truth.schedule, float(t), kinds[k % 5], rng) for k, t in enumerate(times)]) for _ in range(2)]
    # Which of two mirrored or tied rows wins at t = 0 is for rounding to say.
    check_trajectories(truth, torch.stack(z)[:, 1:], times[1:])


@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_rows_read_from_disk_in_order_give_the_same(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(shelves, "LEAST", 4)
    bank = bank_of(kind, 700, (1, 4, 4), labels=np.arange(700) % 2)
    bank.save(tmp_path / "bank")
    opened = ss.Bank.open(tmp_path / "bank")
    resident, streamed = ss.EmpiricalScore(bank), ss.EmpiricalScore(opened, memory=2 * 16 * 700 + 4 * 16 * 64)
    assert resident.shelf.resident
    assert not streamed.shelf.resident
    x, eps, label = bank[np.arange(4)], noise(4, bank), torch.tensor([0, 1, 0, 1])
    check_pairs(streamed, x, eps, TIMES, label)
    one, other = (dict(truth.supervision_sweep(x, eps, TIMES)) for truth in (resident, streamed))
    for k in range(len(TIMES)):
        assert bool(((one[k].mean - other[k].mean).flatten(1).norm(dim=1) <= one[k].error_bound + other[k].error_bound).all())
    z = trajectories_of(bank, resident.schedule, TIMES)
    check_trajectories(streamed, z, TIMES)


@pytest.mark.parametrize("kind", ["bytes noise", "gauss"])
def test_sweeps_and_single_queries_agree_within_their_bounds(kind):
    bank = bank_of(kind, 400)
    truth = ss.EmpiricalScore(bank)
    x, eps = bank[np.arange(6)], noise(6, bank)
    for k, post in truth.supervision_sweep(x, eps, TIMES):
        t = float(TIMES[k])
        single = truth.posterior(states_at(truth.schedule, x, eps, t), t)
        apart = (post.mean - single.mean).flatten(1).norm(dim=1)
        assert bool((apart <= post.error_bound + single.error_bound).all())
        torch.testing.assert_close(post.r_star, single.r_star, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gap", [0.3, 1.0, 3.0])
def test_the_largest_logit_may_rise_from_block_to_block(gap, monkeypatch):
    """Weights that were made relative to a smaller one are bounded, too."""
    monkeypatch.setattr(shelves, "BLOCK", 1 << 12)
    steps = gap * np.repeat(np.arange(10.0), 64)[:, None, None, None]
    bank = ss.Bank.from_arrays((steps + 0.1 * np.random.default_rng(0).standard_normal((640, 1, 2, 2))).astype(np.float32))
    truth = ss.EmpiricalScore(bank)
    z, t = bank[np.arange(4, 640, 64)], torch.tensor([0.5, 0.7, 0.8, 0.9, 0.95], dtype=torch.float64)
    check_pairs(truth, z, noise(len(z), bank), t)
    for time in t.tolist():
        states = states_at(truth.schedule, z, noise(len(z), bank), time)
        exact = definition(bank, truth.schedule, states, time, None)
        names = [f"state {k} at t = {time}" for k in range(len(z))]
        agrees(truth.posterior(states, time), exact, bank, truth.tolerance, names, rounding=unresolved(bank, truth.schedule, states, time))
    assert SUMMED in truth.path


def test_what_float32_rounded_of_states_takes_nothing_from_the_noisiest():
    """Of trajectories of float32 states none is asked twice."""
    bank = synthetic("synthetic:latents:1000")
    truth = ss.EmpiricalScore(bank)
    for _ in trajectories(bank, 4, 40, 0, torch.device("cpu")).sweep(truth):
        pass
    assert SUMMED in truth.path
    assert "again" not in truth.path


def test_the_callers_precision_is_untouched_between_timesteps():
    bank = bank_of("gauss")
    truth = ss.EmpiricalScore(bank)
    x, eps = bank[np.arange(3)], noise(3, bank)
    expected = dict(truth.supervision_sweep(x, eps, TIMES))
    a = torch.randn(64, 64)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", torch.bfloat16):
            for k, post in truth.supervision_sweep(x.requires_grad_(), eps, TIMES):
                assert torch.get_float32_matmul_precision() == "medium"
                assert torch.is_autocast_enabled("cpu")
                assert torch.is_grad_enabled()
                assert (a @ a).dtype == torch.bfloat16
                assert torch.equal(post.mean, expected[k].mean)
                assert not post.mean.requires_grad
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_sweep_that_is_left_early_leaves_nothing_behind():
    bank = bank_of("gauss")
    truth = ss.EmpiricalScore(bank)
    for _ in truth.supervision_sweep(bank[np.arange(2)], noise(2, bank), TIMES):
        break
    assert torch.is_grad_enabled()
    check_pairs(truth, bank[np.arange(2)], noise(2, bank), TIMES)


def test_nothing_to_do_is_no_error():
    bank = bank_of("gauss", shape=(4,))
    truth = ss.EmpiricalScore(bank)
    nobody, one = torch.zeros(0, 4), torch.zeros(1, 4)
    assert list(truth.supervision_sweep(nobody, nobody, TIMES)) == []
    assert list(truth.supervision_sweep(one, one, torch.zeros(0))) == []
    assert list(truth.trajectory_sweep(torch.zeros(0, 2, 4), TIMES[:2])) == []
    assert list(truth.trajectory_sweep(torch.zeros(2, 0, 4), torch.zeros(0))) == []


POINT = torch.zeros(2, 4)
BROKEN = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, torch.nan, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda truth: truth.supervision_sweep(BROKEN, POINT, TIMES), r"x 1 contain"),
        (lambda truth: truth.supervision_sweep(POINT, BROKEN, TIMES), r"eps 1 contain"),
        (lambda truth: truth.supervision_sweep(POINT, POINT[:1], TIMES), "2 points x do not match 1 noises"),
        (lambda truth: truth.supervision_sweep(POINT[:, :3], POINT, TIMES), "do not match the bank's rows"),
        (lambda truth: truth.supervision_sweep(POINT, POINT, torch.tensor([0.5, 1.5])), r"\[0, 1\].*1.5"),
        (lambda truth: truth.supervision_sweep(POINT, POINT, torch.tensor([0.5, torch.nan])), r"\[0, 1\]"),
        (lambda truth: truth.supervision_sweep(POINT, POINT, TIMES, 5), "no row of the bank has label 5"),
        (lambda truth: truth.supervision_sweep(POINT, POINT, TIMES, torch.tensor([0, 5])), "no row of the bank has label 5"),
        (lambda truth: truth.supervision_sweep(POINT, POINT, TIMES, torch.tensor([0, 1, 1])), "do not match 2 states"),
        (lambda truth: truth.trajectory_sweep(torch.zeros(2, 3, 4), TIMES), "do not match 23 times"),
        (lambda truth: truth.trajectory_sweep(torch.stack([POINT, BROKEN], 1), TIMES[:2]), "states 1 contain"),
        (lambda truth: truth.trajectory_sweep(torch.zeros(2, 2, 4), torch.tensor([0.5, -1.0])), r"\[0, 1\]"),
        (lambda truth: truth.trajectory_sweep(torch.zeros(2, 2, 3), TIMES[:2]), "do not match the bank's rows"),
    ],
)
def test_bad_sweeps_are_one_clear_error(call, message):
    bank = bank_of("gauss", 40, (4,), labels=np.arange(40) % 2)
    with pytest.raises(ss.InputError, match=message):
        call(ss.EmpiricalScore(bank))  # before the first step is asked for
