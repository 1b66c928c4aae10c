"""Shaped rounding and rows that are asked one by one: bounds that hold, and the answers of the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope.empirical.digits import compiled, shaped
from scorescope.empirical.digits.family import States, alone
from scorescope.empirical.digits.shaped import Shaping
from scorescope.empirical.reference import reference_posterior
from tests.definition import agrees, bank_of, states_of
from tests.test_coarse import pictures

pytestmark = pytest.mark.skipif(not compiled.HERE, reason="numba does not run on this Python")
KINDS = ["shell", "tie", "near tie", "off", "mean", "outside"]


def differences(shaping, x):
    """Hᵀx of vectors x (n, *shape) float64, by the definition."""
    for axis, factor in enumerate(shaping.factors):
        after = torch.zeros_like(x)
        count = x.shape[1 + axis] - 1
        after.narrow(1 + axis, 0, count).copy_(x.narrow(1 + axis, 1, count))
        x = x - factor * after
    return x


def some_states(bank, seed=0):
    """States of every kind, and three that digits find hard: nothing, one large value, and values of one sign."""
    shelf = ss.EmpiricalScore(bank, arithmetic="digits").shelf
    z, times, _ = states_of(bank, ss.LinearSchedule(), [0.3, 0.6, 0.9], KINDS, seed)
    hard = torch.zeros(3, *bank.shape, dtype=torch.float64)
    hard[1].view(-1)[bank.d // 2] = 50.0
    hard[2] = 1.9
    z, times = torch.cat([z, hard + shelf.centre.view(bank.shape)]), torch.cat([times, torch.full((3,), 0.999, dtype=torch.float64)])
    return States.of(z.flatten(1)[:, None], times[:, None], ss.LinearSchedule(), shelf.centre), shelf


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("shape", [(3, 20, 24), (1, 33, 35), (2, 3, 8, 16)])
def test_texture_is_the_norm_of_differences_and_bounds_what_rows_see_of_a_rest(shape, flips):
    bank = pictures(80, shape, flips=flips)
    states, shelf = some_states(bank)
    shaping = Shaping(shelf)
    assert shaping.worth
    x = bank[np.arange(len(bank))].double() - shelf.centre.view(bank.shape)
    size = differences(shaping, x).flatten(1).norm(dim=1)
    size = torch.maximum(*size.chunk(2)) if flips else size
    assert bool((shaping.texture >= size * (1 - 1e-7)).all())
    assert bool((shaping.texture <= size * (1 + 1e-3) + 1e-9).all())
    assert float(shaping.texture.max()) == shaping.most
    family, digits = shaping.states(states)
    rest = states.centred[:, 0] - family.coefficients[:, 0, :1] * digits[:, 0].double()
    assert torch.allclose(rest.norm(dim=1), family.rest[:, 0], rtol=1e-9, atol=1e-14)
    seen = (rest @ x.flatten(1).T).abs()
    bound = family.grain.each * shaping.texture.repeat(2 if flips else 1)
    assert bool((seen <= bound).all())
    plain = alone(states)[0]
    assert float(seen[:-3].max()) > 0.02 * float(bound[:-3].max()), "and not far beyond"
    assert float(bound[:-3].mean()) < 0.5 * float((plain.astray(len(bank)) * x.flatten(1).norm(dim=1))[:-3].mean())


def test_errors_are_rounding_errors_handed_on():
    """Rest = H q with every |q| below one unit: undone place by place."""
    bank = pictures(30, (3, 9, 10))
    states, shelf = some_states(bank)
    shaping = Shaping(shelf)
    family, digits = shaping.states(states)
    unit = family.coefficients[:, 0, :1]
    error = (states.centred[:, 0] / unit - digits[:, 0].double()).view(-1, *bank.shape)
    for axis, factor in enumerate(shaping.factors):
        for k in range(1, bank.shape[axis]):
            error.select(1 + axis, k).add_(error.select(1 + axis, k - 1), alpha=factor)
    assert float(error.abs().max()) < 1 + 1e-9
    assert abs(float(error.mean())) < 0.02, "right on average"
    assert torch.equal(shaping.states(states[3:5])[1], digits[3:5]), "a state's digits are its own"


def test_rows_without_likeness_are_left_alone():
    assert ss.EmpiricalScore(bank_of("bytes noise", 200, (3, 8, 8)), arithmetic="digits").engine.shaping is None
    assert ss.EmpiricalScore(pictures(200, (3, 8, 8)), arithmetic="digits").engine.shaping is not None
    assert not shaped.suits(bank_of("bytes", 20, (1, 2, 2, 2, 2))), "more axes than float32 has digits for"


@pytest.mark.parametrize(("flips", "label"), [(False, None), (True, None), (True, 1)])
def test_answers_are_those_of_the_definition(flips, label):
    bank = pictures(1200, (3, 12, 12), flips=flips)
    truth = ss.EmpiricalScore(bank, arithmetic="digits")
    z, t, names = states_of(bank, truth.schedule, [0.2, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9], KINDS, 2)
    agrees(truth.posterior(z, t, label), reference_posterior(bank, truth.schedule, z, t, label), bank, truth.tolerance, names)
    assert "shaping" in truth.engine.__dict__
    assert truth.engine.work["some rows, one by one"] > 0


@pytest.mark.parametrize("d", [2, 63, 64, 200, 3072])
def test_single_rows_by_digits_are_those_by_floats(d):
    kernels = pytest.importorskip("scorescope.empirical.digits.kernels")
    rng = np.random.default_rng(d)
    q = rng.integers(-128, 128, (50, d), dtype=np.int8)
    q[0], q[1] = -128, 127
    for state in (rng.standard_normal(d), np.zeros(d), np.full(d, -3.7), 1e6 * rng.standard_normal(d)):
        for rows in (np.arange(50), np.array([7]), np.array([0, 1, 0]), np.array([], dtype=np.int64)):
            found = np.empty((2, len(rows)))
            planes, steps = np.empty((kernels.PLANES, d), np.int8), np.empty((2, kernels.PLANES))
            ways = [(kernels._split_nothing, kernels._dots_float64)]
            ways += [(kernels._split_digits, kernels._dots_digits)] if kernels.VNNI else []
            for (split, dots), out in zip(ways, found, strict=False):
                split(state, planes, steps)
                dots(state, planes, steps, q, rows, out)
                left = np.abs(state).max() * math.sqrt(d) * np.linalg.norm(q[rows].astype(float), axis=1)
                assert (np.abs(out - q[rows].astype(float) @ state) <= (kernels.LEFT + d * 2.0**-52) * left).all()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_states_are_shared_evenly_and_each_once(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for sizes in ([1], [5, 5, 5, 5], [10**7, 1, 1], [1, 1, 10**7], [0, 0, 10**7, 0], [10**6] * 37):
        seen = np.zeros(len(sizes), int)

        def work(first, last, seen=seen):
            seen[first:last] += 1

        compiled.evenly(torch.tensor(sizes), work)
        assert (seen == 1).all()
