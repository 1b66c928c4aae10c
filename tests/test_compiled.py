"""Digits by compiled passes and floats answer alike, and as the definition does; what is rounded at random keeps its bounds."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope.empirical.chance import SAFE, lots
from scorescope.empirical.digits import compiled, dense
from scorescope.empirical.digits.family import States, alone, trajectories
from scorescope.empirical.reference import reference_posterior
from tests.definition import FIELDS, FLOOR, agrees, bank_of, states_of

pytestmark = pytest.mark.skipif(not compiled.HERE, reason="numba does not run on this Python")
KINDS = ["shell", "tie", "near tie", "off", "mean", "outside"]
TIMES = [0.001, 0.1, 0.4, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0]


PLAIN = [("bytes noise", 1500, True), ("bytes", 9000, True)]
PLAIN += [("bytes noise", 1500, False), ("bytes", 9000, False), ("bytes constant", 700, False), ("bytes nearly white", 700, False)]


@pytest.mark.parametrize(("kind", "n", "flips"), [*PLAIN, ("bytes constant", 700, True), ("bytes nearly white", 700, True)])
def test_both_arithmetics_answer_as_the_definition_and_alike(kind, n, flips):
    bank = bank_of(kind, n, (1, 4, 6), flips=flips, duplicates=4)
    schedule = ss.LinearSchedule()
    z, t, names = states_of(bank, schedule, TIMES, KINDS, 1)
    exact = reference_posterior(bank, schedule, z, t)
    found = {}
    for arithmetic in ("digits", "floats"):
        truth = ss.EmpiricalScore(bank, arithmetic=arithmetic)
        found[arithmetic] = truth.posterior(z, t)
        agrees(found[arithmetic], exact, bank, truth.tolerance, names)
    one, other = found.values()
    apart = (one.mean - other.mean).flatten(1).norm(dim=1)
    floor = 2 * FLOOR * (exact.mean.flatten(1).norm(dim=1) + bank.radius)
    for k, name in enumerate(names):
        assert apart[k] <= one.error_bound[k] + other.error_bound[k] + floor[k], name
    for field in FIELDS:
        torch.testing.assert_close(getattr(one, field), getattr(other, field), rtol=4e-3, atol=4e-3, msg=lambda m, f=field: f"{f}: {m}")


def test_sweeps_and_draws():
    bank = bank_of("bytes", 600, labels=np.arange(600) % 2)
    x, times = bank[np.arange(4)], torch.tensor([0.05, 0.5, 0.7, 0.85, 0.95])
    eps = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    tags = torch.tensor([0, 1, 0, 1])
    z = torch.stack([(1 - t) * x + t * eps for t in times], 1)
    drawn = []
    for arithmetic in ("digits", "floats"):
        truth = ss.EmpiricalScore(bank, arithmetic=arithmetic)
        for sweep in (truth.supervision_sweep(x, eps, times, tags), truth.trajectory_sweep(z, times, tags)):
            for k, post in sweep:
                for i, tag in enumerate(tags.tolist()):
                    exact = reference_posterior(bank, truth.schedule, z[i : i + 1, k].double(), float(times[k]), tag)
                    # float32 states are not the sums of float32 points and noises.
                    assert float((post.mean[i] - exact.mean[0]).norm()) <= 1e-4 * float(exact.mean.norm()) + 1e-5
        drawn.append(truth.sample(z[:, 3], 0.85, tags, seed=2)[1].tolist())
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("astray", [1e-3, 3.0])
def test_sums_may_begin_anywhere(astray, monkeypatch):
    """Where the largest logit is not where the first row let expect it, states are looked at again, all of them or some."""
    monkeypatch.setattr(dense, "SAMPLE", 1)
    monkeypatch.setattr(dense, "ASTRAY", astray)
    looks = []
    look = dense.Dense._look
    monkeypatch.setattr(dense.Dense, "_look", lambda self, products: (looks.append(len(self.wanted)), look(self, products)))
    bank = bank_of("bytes", 2500, (3, 6, 6), flips=True, duplicates=4)
    truth = ss.EmpiricalScore(bank, arithmetic="digits")
    z, t, names = states_of(bank, truth.schedule, [0.7, 0.8, 0.9, 0.95, 0.99], KINDS, 3)
    agrees(truth.posterior(z, t), reference_posterior(bank, truth.schedule, z, t), bank, truth.tolerance, names)
    assert len(looks) > 1
    assert looks[1] <= looks[0]


def test_lots_are_even_and_belong_to_the_row():
    index = torch.arange(200_000)
    drawn = lots(index)
    assert float(drawn.min()) >= 0
    assert float(drawn.max()) < 1
    assert abs(float(drawn.mean()) - 0.5) < 0.005
    assert abs(float((drawn[1:] * drawn[:-1]).mean()) - 0.25) < 0.005
    assert torch.equal(lots(index[1234:1240]), drawn[1234:1240])


@pytest.mark.parametrize("wanted", [None, torch.full((20, 1), 1e-3, dtype=torch.float64)])
def test_random_digits_drift_less_than_their_bound(wanted):
    """A covariance of trace 1, however lopsided, makes of the rest no more than `drift`, and a row no more than `astray`."""
    rng = np.random.default_rng(0)
    bank = bank_of("bytes", 50, (3, 16, 16))
    z = torch.from_numpy(rng.standard_normal((20, 1, bank.d)))
    states = States.of(z, torch.full((20, 1), 0.8), ss.LinearSchedule(), torch.zeros(bank.d, dtype=torch.float64))
    family, digits = alone(states, wanted)
    rest = states.centred[:, 0] - (family.coefficients[:, 0, :, None] * digits.double()).sum(1)
    assert bool((family.drift < family.rest).all())
    assert bool((rest.norm(dim=1, keepdim=True) <= family.rest * (1 + 1e-9)).all())
    unit = family.coefficients[:, 0, -1]
    assert torch.allclose(family.drift[:, 0], SAFE * unit)
    drifts_less(rest, family.drift[:, 0], rng)


def test_random_digits_of_trajectories_drift_less_than_their_bound():
    rng = np.random.default_rng(1)
    bank = bank_of("bytes", 50, (3, 16, 16))
    path = np.cumsum(rng.standard_normal((9, 12, bank.d)) * 0.1, axis=1) + rng.standard_normal((9, 1, bank.d))
    times = torch.linspace(0.9, 0.6, 12, dtype=torch.float64)
    states = States.of(torch.from_numpy(path), times.expand(9, -1), ss.LinearSchedule(), torch.zeros(bank.d, dtype=torch.float64))
    random = []
    for allowed in (3e-2, 1e-2, 3e-3, 1e-3, 3e-4):
        wanted = torch.full((9, 12), allowed, dtype=torch.float64)
        family, digits = trajectories(states, wanted)
        rest = states.centred - family.coefficients @ digits.double()
        assert bool((rest.norm(dim=2) <= family.rest * (1 + 1e-9)).all())
        assert bool((torch.minimum(family.drift, family.rest) <= wanted).all())
        drifts_less(rest.flatten(0, 1), family.drift.flatten(), rng)
        random.append(bool((family.drift < 0.9 * family.rest).all()))
        strays_less(rest.flatten(0, 1), family.astray(100).flatten(), rng)
    assert any(random), "drift is less than the norm of what is left"


def strays_less(rest, astray, rng):
    """No vector x, even or lopsided, has more of `rest` (Q, d) in it than `astray` (Q,) times its norm."""
    x = torch.from_numpy(rng.standard_normal((100, rest.shape[1])) * np.linspace(0.0, 1.0, 100)[:, None] ** np.arange(rest.shape[1]))
    x = x[x.norm(dim=1) > 0]
    assert bool(((rest @ x.T).abs() <= astray[:, None] * x.norm(dim=1)).all())


def drifts_less(rest, drift, rng):
    """Covariances of trace 1, even and lopsided, make of `rest` (Q, d) no more than `drift` (Q,)."""
    d = rest.shape[1]
    for spread in (np.ones(d), 0.5 ** np.arange(d), np.arange(d) == 7):
        axes = torch.from_numpy(np.linalg.qr(rng.standard_normal((d, 8)))[0])
        share = torch.from_numpy(np.asarray(spread[:8], float) / max(np.sum(spread[:8]), 1e-300))
        assert bool((((rest @ axes) * share).norm(dim=1) <= drift).all())
