"""Rows along few axes: bounds that hold, no row missed that matters, and the same answers as without them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope.empirical.digits import compiled
from scorescope.empirical.digits.coarse import Coarse, matter
from scorescope.empirical.digits.family import States
from scorescope.empirical.ranks import Alone
from scorescope.search.products import Workspace
from tests.definition import agrees, bank_of, definition, states_of

pytestmark = pytest.mark.skipif(not compiled.HERE, reason="numba does not run on this Python")
KINDS = ["shell", "tie", "near tie", "off", "mean", "outside"]
FAR = "few rows by few axes, float64 differences"


def pictures(n=300, shape=(3, 20, 24), seed=0, **options):
    """8-bit images that are smooth, as photographs are, with a few equal rows."""
    rng = np.random.default_rng(seed)
    spectrum = rng.standard_normal((n, *shape)) + 1j * rng.standard_normal((n, *shape))
    away = np.hypot(*np.meshgrid(np.fft.fftfreq(shape[-2]), np.fft.fftfreq(shape[-1]), indexing="ij"))
    x = np.fft.ifft2(spectrum / (0.02 + away) ** 1.6).real
    x = np.clip(128 + 50 * x / x.std(), 0, 255).astype(np.uint8)
    x[-4:] = x[:4]
    return ss.Bank.from_arrays(x, rng.integers(0, 3, n), **options)


@pytest.mark.parametrize("shape", [(3, 20, 24), (1, 33, 35), (2, 3, 16, 16)])
def test_axes_are_orthonormal_and_mirrored_projections_are_those_of_mirrored_vectors(shape):
    coarse = Coarse(ss.EmpiricalScore(bank_of("bytes", 40, shape, flips=True), arithmetic="digits").shelf)
    d = math.prod(shape)
    axes = coarse.project(torch.eye(d, dtype=torch.float64))
    assert axes.shape == (d, 2 * (d // 8))
    assert torch.allclose(axes.T @ axes, torch.eye(axes.shape[1], dtype=torch.float64), atol=1e-12)
    x = torch.randn(5, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(coarse.mirror(coarse.project(x)), coarse.project(coarse.shelf.mirror(x)), atol=1e-12)


@pytest.mark.parametrize("kind", ["pictures", "bytes noise", "bytes constant", "bytes nearly white"])
def test_what_is_left_of_a_row_bounds_what_products_miss(kind):
    bank = pictures() if kind == "pictures" else bank_of(kind, 60, (3, 20, 24))
    shelf = ss.EmpiricalScore(bank, arithmetic="digits").shelf
    coarse = Coarse(shelf)
    (rows,) = coarse.rows(None, 1000)
    x = bank[rows.index].flatten(1).double() - shelf.centre
    axes = coarse.project(torch.eye(bank.d, dtype=torch.float64))
    seen = coarse.step * rows.q.double() @ axes.T
    lost = coarse.lost_of(rows).double()
    assert bool(((x - seen).norm(dim=1) <= lost).all())
    assert bool((lost**2 <= 1.01 * (x - seen).square().sum(1) + 1e-4 * x.square().sum(1) + 1e-10).all()), "but not by much"
    assert float(coarse.lost.max()) == coarse.rounded
    assert coarse.worth == (kind != "bytes noise")


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize(("few", "least"), [(4, 4), (128, 18)])
def test_no_row_that_matters_is_missed(flips, few, least):
    bank, margin = pictures(flips=flips), 15.0
    truth = ss.EmpiricalScore(bank, arithmetic="digits")
    z, times, names = states_of(bank, truth.schedule, [0.001, 0.02, 0.1, 0.2, 0.3, 0.5], KINDS)
    states = States.of(z.flatten(1)[:, None], times[:, None], truth.schedule, truth.shelf.centre)
    state, row, many = matter(states, Coarse(truth.shelf), None, margin, Alone(), few, Workspace())
    rows = bank[np.arange(len(bank))].flatten(1).double()
    square = (z.flatten(1)[:, None] - states.alpha[:, :, None] * rows).square().sum(2)
    logit = -0.5 * states.precision * square
    away = (square.sqrt() / (states.sigma * bank.d**0.5) - 1).abs()
    told = 0
    for q, name in enumerate(names):
        listed = row[state == q]
        assert len(listed.unique()) == len(listed) <= few, name
        if many[q]:
            assert not len(listed), name
            continue
        told += 1
        floor = 1e-13 * float(states.precision[q] * square[q].max())
        wanted = (logit[q] >= logit[q].max() - margin + floor).nonzero().flatten()
        assert set(wanted.tolist()) <= set(listed.tolist()), name
        assert float(away[q, listed].min()) <= float(away[q].min()) * (1 + 1e-9), name
    assert told >= least, "few axes tell most of these states from all rows but a few"


@pytest.mark.parametrize("tolerance", [1e-4, 3e-6])
@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("labelled", [False, True])
def test_answers_are_those_of_the_definition(flips, tolerance, labelled):
    bank = pictures(flips=flips)
    truth = ss.EmpiricalScore(bank, tolerance=tolerance, arithmetic="digits")
    z, t, names = states_of(bank, truth.schedule, [0.0, 0.001, 0.02, 0.1, 0.2, 0.3, 0.5, 0.8], KINDS)
    label = torch.arange(len(z)) % 3 if labelled else None
    agrees(truth.posterior(z, t, label), definition(bank, truth.schedule, z, t, label), bank, tolerance, names)
    assert truth.engine.work[FAR] >= 12


@pytest.mark.parametrize("t", [1e-6, 1e-12, 1e-16, 1e-20, 1e-30])
def test_times_that_are_as_good_as_0(t):
    truth = ss.EmpiricalScore(pictures(), arithmetic="digits")
    x = truth.bank[np.arange(10, 16)].double()
    post = truth.posterior((1 - t) * x + t * torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64), t)
    assert post.top_index.tolist() == list(range(10, 16))
    assert torch.equal(post.mean, x)


def test_rows_that_few_axes_do_not_hold_are_asked_along_all():
    for kind, shape, used in (("bytes noise", (3, 20, 24), False), ("bytes", (3, 4, 4), False), ("bytes", (1440,), False)):
        truth = ss.EmpiricalScore(bank_of(kind, 60, shape), arithmetic="digits")
        z = truth.bank[np.arange(8)] * 0.95
        truth.posterior(z, 0.05)
        assert bool(truth.engine.work[FAR]) == used
