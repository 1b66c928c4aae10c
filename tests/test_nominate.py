"""Nomination by digits: no row is missed that matters."""

from __future__ import annotations

import math
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import scorescope as ss
from scorescope.empirical.digits import compiled, nominate
from scorescope.empirical.digits.engine import FEW
from scorescope.empirical.digits.family import States, alone
from scorescope.empirical.digits.nominate import Nominator
from scorescope.empirical.digits.products import Products
from tests.definition import bank_of, states_of

pytestmark = pytest.mark.skipif(not compiled.HERE, reason="numba does not run on this Python")
KINDS = ["shell", "tie", "near tie", "off", "mean", "outside"]
TIMES = [0.001, 0.02, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.99, 1.0]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(["bytes", "bytes noise", "bytes constant", "bytes nearly white", "bytes black and white"]),
    st.sampled_from(KINDS),
    st.sampled_from([0.0, *TIMES]),
    st.booleans(),
    st.floats(1.0, 40.0),
)
def test_nomination_misses_no_row_that_matters(seed, kind, state, t, flips, apart):
    """Every row within the margin of the best, and the one nearest to the shell, is listed; or the state is named as one of many."""
    if t == 0 and "tie" in state:
        return
    for few in (FEW, 6):
        with patch.object(nominate, "CROWD", 2 if few < FEW else nominate.CROWD):
            misses_nothing(bank_of(kind, 120, (1, 3, 4), seed=seed, flips=flips), [state], [t] * 3, seed, apart, few)


def misses_nothing(bank, kinds, times, seed, apart, few):
    """Nominations of states at `times` hold to the law."""
    truth = ss.EmpiricalScore(bank, arithmetic="digits")
    z, times, names = states_of(bank, truth.schedule, times, kinds, seed)
    states = States.of(z.flatten(1)[:, None], times[:, None], truth.schedule, truth.shelf.centre, truth.shelf.reach)
    family, vectors = alone(states)
    margin = torch.where(states.at_data, 0.0, torch.tensor(apart, dtype=torch.float64))
    found = Nominator(family, truth.shelf, margin, few).run(Products(truth.shelf, vectors, None, 0))
    rows = bank[np.arange(len(bank))].flatten(1).double()
    square = (z.flatten(1)[:, None] - states.alpha[:, :, None] * rows).square().sum(2)
    logit = -0.5 * states.precision * square
    for q, name in enumerate(names):
        at_data = bool(states.at_data[q])
        floor = 1e-13 * float(states.precision[q] * square[q].max())
        if not found.many[q]:
            listed = set(found.row[found.state == q].tolist())
            wanted = (logit[q] >= logit[q].max() - float(margin[q]) + floor).nonzero().flatten().tolist()
            wanted += [int(logit[q].argmax())]
            assert set(wanted) <= listed, name
        if not found.many_near[q] and not at_data:
            away = (square[q].sqrt() / (float(states.sigma[q]) * math.sqrt(bank.d)) - 1).abs()
            listed = found.near_row[found.near_state == q]
            assert len(listed), name
            assert float(away[listed].min()) <= float(away.min()) * (1 + 1e-9) + 1e-12, name
