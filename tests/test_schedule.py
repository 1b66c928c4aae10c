"""Schedules and conversions: identities, at both ends of time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import scorescope as ss
from scorescope import convert

DISCRETE = ss.DiscreteSchedule(tuple(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))))
SCHEDULES = [ss.LinearSchedule(), ss.VPSchedule(), ss.CosineSchedule(), DISCRETE, ss.VESchedule(0.002, 80.0), ss.SubVPSchedule()]
named = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)


@named
def test_time_inverts_signal_to_noise(schedule):
    t = torch.linspace(0.01, 0.98, 50, dtype=torch.float64)
    scales = schedule(t)
    torch.testing.assert_close(schedule.time(scales.alpha / scales.sigma), t, rtol=1e-9, atol=1e-9)
    assert bool((scales.alpha / scales.sigma).diff().lt(0).all())


@named
def test_derivatives_are_the_derivatives(schedule):
    t = torch.linspace(0.0513, 0.9487, 40, dtype=torch.float64)
    step = 1e-6
    low, high, middle = schedule(t - step), schedule(t + step), schedule(t)
    torch.testing.assert_close((high.alpha - low.alpha) / (2 * step), middle.d_alpha, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close((high.sigma - low.sigma) / (2 * step), middle.d_sigma, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES[1:4], ids=lambda s: type(s).__name__)
def test_variance_is_preserved_to_the_last_digit(schedule):
    t = torch.tensor([1e-6, 0.01, 0.5, 0.99, 1.0], dtype=torch.float64)
    scales = schedule(t)
    torch.testing.assert_close(scales.alpha**2 + scales.sigma**2, torch.ones_like(t), rtol=1e-12, atol=1e-12)
    assert float(schedule(0.0).sigma) == 0


def test_sub_vp_has_the_variance_of_vp_squared():
    """σ = 1 − α² (the sub-VP SDE of Song et al. 2020), to the last digit at small t, where α rounds to 1."""
    t = torch.tensor([0.0, 1e-9, 0.01, 0.5, 1.0], dtype=torch.float64)
    vp, sub = ss.VPSchedule()(t), ss.SubVPSchedule()(t)
    torch.testing.assert_close(sub.alpha, vp.alpha, rtol=1e-15, atol=0)
    torch.testing.assert_close(sub.sigma, vp.sigma**2, rtol=1e-12, atol=0)
    torch.testing.assert_close(ss.SubVPSchedule().time(sub.alpha / sub.sigma), t, rtol=1e-6, atol=0)


def test_discrete_schedule_is_exact_at_its_steps():
    bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    scales = DISCRETE(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    np.testing.assert_allclose(scales.alpha.numpy() ** 2, bar, rtol=1e-10)


def test_discrete_schedule_may_end_at_zero_signal():
    schedule = ss.DiscreteSchedule((0.9, 0.5, 0.0))
    assert float(schedule(1.0).alpha) == pytest.approx(0, abs=1e-15)
    assert float(schedule.time(torch.tensor(0.0))) == 1.0


@named
@given(t=st.floats(0.01, 0.99), seed=st.integers(0, 1000))
def test_conversions_round_trip(schedule, t, seed):
    rng = torch.Generator().manual_seed(seed)
    x, eps = (torch.randn(3, 2, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    z = convert.add_noise(x, eps, t, schedule)
    scale = 1e-9 / float(schedule(t).alpha) / min(1.0, float(schedule(t).sigma))
    close = {"rtol": 0, "atol": max(scale, 1e-9) * 10}
    torch.testing.assert_close(convert.noise(z, x, t, schedule), eps, **close)
    torch.testing.assert_close(convert.mean_from_noise(z, eps, t, schedule), x, **close)
    torch.testing.assert_close(convert.mean_from_score(z, convert.score(z, x, t, schedule), t, schedule), x, **close)
    torch.testing.assert_close(convert.mean_from_v(z, convert.v(z, x, t, schedule), t, schedule), x, **close)
    torch.testing.assert_close(convert.mean_from_velocity(z, convert.velocity(z, x, t, schedule), t, schedule), x, **close)


@named
def test_the_linear_axis_and_back(schedule):
    z = torch.randn(5, 3, dtype=torch.float64)
    t = torch.linspace(0.05, 0.95, 5, dtype=torch.float64)
    linear, at = convert.to_linear(z, t, schedule)
    back, time = convert.from_linear(linear, at, schedule)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(time, t, rtol=1e-8, atol=1e-8)


def test_the_paper_s_relations():
    """v = −t/(1 − t)·s − z/(1 − t) and x̂ = t²/(1 − t)·s + z/(1 − t) (C.1); the weighted score error is the velocity error."""
    schedule, t = ss.LinearSchedule(), 0.37
    z, x, other = (torch.randn(4, 6, dtype=torch.float64) for _ in range(3))
    s = convert.score(z, x, t, schedule)
    torch.testing.assert_close(convert.velocity(z, x, t, schedule), -t / (1 - t) * s - z / (1 - t))
    torch.testing.assert_close(convert.v(z, x, t, schedule), convert.velocity(z, x, t, schedule))
    torch.testing.assert_close(x, t**2 / (1 - t) * s + z / (1 - t))
    weighted = t**2 / (1 - t) ** 2 * (s - convert.score(z, other, t, schedule)).square().sum(1)
    torch.testing.assert_close(weighted, (x - other).square().sum(1) / t**2)


def test_network_predictions_agree():
    """One exact model dressed as four kinds of network gives one posterior mean."""
    schedule, x = ss.VPSchedule(), torch.randn(2, 3, dtype=torch.float64)
    z = torch.randn(2, 3, dtype=torch.float64)
    nets = {
        "x": lambda z, t, y: x,
        "eps": lambda z, t, y: convert.noise(z, x, t, schedule),
        "score": lambda z, t, y: convert.score(z, x, t, schedule),
        "v": lambda z, t, y: schedule(t).alpha[:, None] * convert.noise(z, x, t, schedule) - schedule(t).sigma[:, None] * x,
    }
    for prediction, net in nets.items():
        torch.testing.assert_close(ss.NetworkDenoiser(net, schedule, prediction)(z, 0.4), x)


def test_a_network_may_answer_like_diffusers():
    class Output:
        def __init__(self, sample):
            self.sample = sample

    z = torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(ss.NetworkDenoiser(lambda z, t, y: Output(2 * z), ss.VPSchedule(), "x")(z, 0.4), 2 * z)
    with pytest.raises(ss.InputError, match=r"shape \(3,\) with shape \(6,\)"):
        ss.NetworkDenoiser(lambda z, t, y: torch.cat([z, z], 1), ss.VPSchedule(), "x")(z, 0.4)


@pytest.mark.parametrize(
    ("time", "value"),
    [("t", 0.5), ("steps", 499.0), ("sigma", None), ("log_snr", None), ("none", 0.0), (lambda t: 1000 * t, 500.0)],
)
def test_networks_get_the_time_they_want(time, value):
    seen = []
    model = ss.NetworkDenoiser(lambda z, t, y: seen.append(t) or z, DISCRETE, "x", time=time)
    model(torch.zeros(2, 3, dtype=torch.float64), 0.5)
    u = float(DISCRETE(0.5).alpha / DISCRETE(0.5).sigma)
    expected = {"sigma": 1 / u, "log_snr": 2 * math.log(u)}.get(time, value) if isinstance(time, str) else value
    assert seen[0].tolist() == pytest.approx([expected] * 2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ss.LinearSchedule()(1.2), r"\[0, 1\]"),
        (lambda: ss.LinearSchedule()(float("nan")), r"\[0, 1\]"),
        (lambda: ss.DiscreteSchedule((0.5, 0.6)), "fall strictly"),
        (lambda: ss.VESchedule(2.0, 1.0), "sigma_min"),
        (lambda: convert.score(torch.zeros(1, 2), torch.zeros(1, 2), 0.0, ss.LinearSchedule()), "t = 0"),
        (lambda: convert.mean_from_noise(torch.zeros(1, 2), torch.zeros(1, 2), 1.0, ss.LinearSchedule()), "t = 1"),
        (lambda: ss.NetworkDenoiser(lambda *a: a[0], ss.LinearSchedule(), "epsilon"), "'eps'"),
        (lambda: ss.NetworkDenoiser(lambda *a: a[0], ss.LinearSchedule(), "x", time="steps"), "DiscreteSchedule"),
        (lambda: ss.NetworkDenoiser(lambda *a: a[0], ss.LinearSchedule(), "x", classes=3)(torch.zeros(1, 2), 0.5), "null label"),
        (lambda: ss.NetworkDenoiser(lambda *a: a[0], ss.LinearSchedule(), "x", classes=3)(torch.zeros(1, 2), 0.5, 3), "label 3"),
        (lambda: ss.NetworkDenoiser(lambda *a: a[0], ss.LinearSchedule(), "x", shape=(3,))(torch.zeros(1, 2), 0.5), "shape"),
        (lambda: convert.broadcast(torch.zeros(3), torch.zeros(2, 4)), "does not match 2 states"),
    ],
)
def test_bad_input_is_one_clear_error(call, message):
    with pytest.raises(ss.InputError, match=message):
        call()
