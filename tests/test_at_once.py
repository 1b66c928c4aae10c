"""All rows at once: where it is taken, that its answers are those of other ways, and what it leaves to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope.empirical import engine, score
from scorescope.empirical.engine import FEW_ROWS, TOGETHER
from scorescope.empirical.integers import Costs
from tests.definition import agrees, bank_of, definition, states_of, unresolved

TIMES = [0.001, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0]


def ways(truth):
    return {name for name, count in truth.engine.work.items() if count}


@pytest.mark.parametrize("arithmetic", ["floats", "integers"])
@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("kind", ["bytes noise", "bytes nearly white", "gauss", "spectrum", "half", "heavy", "far"])
def test_answers_are_within_their_bounds_and_as_near_as_those_of_other_ways(kind, flips, arithmetic, monkeypatch):
    bank = bank_of(kind, 300, (3, 8, 8), flips=flips, duplicates=4)
    truth = ss.EmpiricalScore(bank, arithmetic=arithmetic)
    z, t, names = states_of(bank, truth.schedule, TIMES, ["shell", "off", "mean", "near tie"])
    one = truth.posterior(z, t)
    assert TOGETHER in ways(truth)
    exact, rounding = definition(bank, truth.schedule, z, t), unresolved(bank, truth.schedule, z, t)
    agrees(one, exact, bank, 1e-4, names, rounding=rounding, met=kind != "far")
    monkeypatch.setattr(engine, "AT_ONCE", 0)
    truth.engine.work.clear()
    other = truth.posterior(z, t)
    assert TOGETHER not in ways(truth)
    apart = (one.mean - other.mean).flatten(1).norm(dim=1)
    assert bool((apart <= one.error_bound + other.error_bound).all())
    shell = torch.tensor([name == "shell" for name in names])  # of which r* says something
    torch.testing.assert_close(one.r_star[shell], other.r_star[shell], rtol=1e-6, atol=0)


def test_states_that_its_logits_do_not_tell_apart_go_other_ways():
    """Between two rows and a hair off, at a noise by which the hair decides."""
    bank = bank_of("gauss", 100, (1, 4, 4))
    truth = ss.EmpiricalScore(bank)
    x = bank[np.arange(2)].double()
    z = (0.999 * (x[0] + x[1]) / 2 + 1e-13 * (x[0] - x[1]))[None]
    post = truth.posterior(z, 0.001)
    assert ways(truth) == {FEW_ROWS}
    agrees(post, definition(bank, truth.schedule, z, torch.full((1,), 0.001, dtype=torch.float64)), bank, 1e-4)


def test_rows_that_are_equal_are_told_by_the_first_of_them():
    bank = bank_of("bytes noise", 50, duplicates=10)
    truth = ss.EmpiricalScore(bank)
    post = truth.posterior(bank[np.arange(1)].double() * 0.9, 0.1)
    assert post.top_index.tolist() == [0]
    assert float(post.top_weight) == pytest.approx(1 / 6, rel=1e-12)  # five duplicates of row 0


def test_what_takes_longer_than_a_look_is_not_asked_at_once(monkeypatch):
    bank = bank_of("gauss", 100)
    for double, taken in ((2.5e-12, True), (1e-5, False)):
        monkeypatch.setattr(score, "costs_of", lambda *given, double=double: Costs(1e-12, double, torch.inf))
        truth = ss.EmpiricalScore(bank)
        truth.posterior(bank[np.arange(8)].double(), 0.5)
        assert (TOGETHER in ways(truth)) == taken
    truth = ss.EmpiricalScore(bank, tolerance=1e-8, arithmetic="floats")
    truth.posterior(bank[np.arange(8)].double(), 0.5)
    assert TOGETHER not in ways(truth)
