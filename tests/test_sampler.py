"""Trajectories: exact ones are followed, batch size does not matter, and a batch of one agrees with torchdiffeq."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope import seeds
from tests.problems import Gaussian, GaussianMixture

TIMES = [0.0, 0.05, 0.3, 0.5, 0.77, 1.0]


@pytest.fixture
def mixture():
    centres = torch.tensor([[2.0, 0.0], [-2.0, 1.0], [0.0, -2.0]])
    return GaussianMixture(centres, 0.3)


@pytest.mark.parametrize(("method", "steps", "close"), [("dopri5", 0, 4e-3), ("heun", 400, 2e-3), ("euler", 2000, 5e-3)])
def test_known_trajectories_are_followed(method, steps, close):
    model, noise = Gaussian(7, 0.5), seeds.normal(0, "path", range(5), (7,))
    states = ss.trajectory(model, noise, TIMES, solver=ss.Solver(method, max(steps, 1)))
    for k, t in enumerate(TIMES):
        torch.testing.assert_close(states[:, k], model.state(noise, t), rtol=0, atol=close)


def test_heun_converges_with_the_second_order():
    model, noise = Gaussian(3, 0.5), seeds.normal(0, "path", range(4), (3,)).double()
    errors = [
        (ss.trajectory(model, noise, [0.3], solver=ss.Solver("heun", n))[:, 0] - model.state(noise, 0.3)).abs().max() for n in (20, 40, 80)
    ]
    slopes = np.log2([float(errors[0] / errors[1]), float(errors[1] / errors[2])])
    assert slopes == pytest.approx([2, 2], abs=0.3)


@pytest.mark.parametrize("method", ["dopri5", "euler", "heun", "ancestral"])
def test_a_path_does_not_depend_on_its_batch(mixture, method):
    noise = seeds.normal(3, "path", range(9), (2,))
    together = ss.trajectory(mixture, noise, TIMES, solver=ss.Solver(method), seed=3)
    small = ss.trajectory(mixture, noise, TIMES, solver=ss.Solver(method, batch=2), seed=3)
    alone = ss.trajectory(mixture, noise[4:5], TIMES, solver=ss.Solver(method), seed=3, items=[4])
    torch.testing.assert_close(together, small, rtol=0, atol=1e-6)
    torch.testing.assert_close(together[4:5], alone, rtol=0, atol=1e-6)


def test_one_path_agrees_with_torchdiffeq(mixture):
    torchdiffeq = pytest.importorskip("torchdiffeq")
    noise = seeds.normal(1, "path", range(6), (2,)).double()
    for k in range(6):
        start = noise[k : k + 1]
        grid = torch.tensor([1.0, 0.77, 0.5, 0.3, 0.05], dtype=torch.float64)
        theirs = torchdiffeq.odeint(lambda t, z: mixture.velocity(z, t.clamp(1e-3, 1)), start, grid, method="dopri5", atol=1e-10, rtol=1e-7)
        ours = ss.trajectory(mixture, start, TIMES[1:], solver=ss.Solver(atol=1e-10, rtol=1e-7))
        torch.testing.assert_close(ours[:, :-1].flip(1).swapaxes(0, 1), theirs[1:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("schedule", [ss.VPSchedule(), ss.CosineSchedule(), ss.VESchedule(0.002, 500.0)], ids=lambda s: type(s).__name__)
def test_every_schedule_lies_in_one_chart(schedule):
    """The same data seen through another schedule has the same trajectories on the linear axis."""
    noise, times = seeds.normal(0, "path", range(4), (5,)), [0.0, 0.2, 0.6, 0.9]
    linear = ss.trajectory(Gaussian(5, 0.5), 0.99 * noise, times, start=0.99)
    other = ss.trajectory(Gaussian(5, 0.5, schedule), 0.99 * noise, times, start=0.99)
    torch.testing.assert_close(linear, other, rtol=0, atol=2e-3)


def test_ancestral_sampling_has_the_data_variance():
    model = Gaussian(1, 0.5)
    draws = ss.sample(model, 2000, solver=ss.Solver("ancestral", 100, batch=2000))
    assert float(draws.std()) == pytest.approx(0.5, rel=0.06)


def test_the_exact_score_returns_training_rows():
    x = np.random.default_rng(0).standard_normal((12, 1, 4, 4)).astype(np.float32)
    truth = ss.EmpiricalScore(ss.Bank.from_arrays(x))
    draws = ss.sample(truth, 8)
    nearest = torch.cdist(draws.flatten(1), torch.from_numpy(x).flatten(1)).min(1).values
    assert float(nearest.max()) < 1e-3


def test_guidance_of_one_changes_nothing_and_is_linear():
    x = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    truth = ss.EmpiricalScore(ss.Bank.from_arrays(x, np.arange(30) % 3))
    z, t = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), 0.7
    conditional, free = truth(z, t, 1), truth(z, t)
    torch.testing.assert_close(ss.Guided(truth, 1.0)(z, t, 1), conditional)
    torch.testing.assert_close(ss.Guided(truth, 3.0)(z, t, 1), conditional + 2 * (conditional - free))


def test_nan_is_reported_with_time_and_path():
    class Broken(ss.Denoiser):
        shape, name = (2,), "broken"

        def forward(self, z, t, label=None):
            return torch.where((t < 0.5)[:, None] & (z[:, :1] > 0), torch.nan, z * 0)

    noise = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ss.InputError, match=r"broken returned NaN or Inf at t = 0\.4\d* for path 1"):
        ss.trajectory(Broken(), noise, [0.0], solver=ss.Solver("euler", 50))


def test_a_field_that_is_not_smooth_ends_with_an_error_and_not_with_a_hang(monkeypatch):
    class Noise(ss.Denoiser):
        shape, name = (1,), "noise"

        def forward(self, z, t, label=None):
            return 1e3 * torch.sin(1e9 * t)[:, None] + 0 * z

    with pytest.raises(ss.InputError, match=r"stalls at t = [\d.]+ on path 0: after 606 evaluations .*not smooth.*unit"):
        ss.sample(Noise(), 1)
    monkeypatch.setattr("scorescope.sampler.MOST_STEPS", 50)
    with pytest.raises(ss.InputError, match=r"after 306 evaluations"):
        ss.sample(Noise(), 1)


def test_unknown_solver_suggests_the_near_one():
    with pytest.raises(ss.InputError, match="dopri5"):
        ss.sample(Gaussian(2, 1.0), 1, solver=ss.Solver("dopri"))
