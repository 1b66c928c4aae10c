"""Outlines along few axes: bounds that hold, no row missed that matters, and the same answers as without them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope.empirical import engine, outline
from scorescope.empirical.axes import BANDS, Axes, suits, transformed
from scorescope.empirical.outline import Outlines
from scorescope.empirical.states import States
from tests.definition import agrees, bank_of, definition, states_of, unresolved

KINDS = ["shell", "tie", "near tie", "off", "mean", "outside"]
TIMES = [0.001, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9]
SHAPE = (3, 20, 24)


@pytest.fixture
def always(monkeypatch):
    """Outlines are made however small the bank and however few the states."""
    monkeypatch.setattr(outline, "SMALL", 0)
    monkeypatch.setattr(engine, "BUSY", 0)


def pictures(n=300, seed=0, **options):
    """Smooth images of floats, as natural ones are, with a few equal rows."""
    rng = np.random.default_rng(seed)
    spectrum = rng.standard_normal((n, *SHAPE)) + 1j * rng.standard_normal((n, *SHAPE))
    away = np.hypot(*np.meshgrid(np.fft.fftfreq(SHAPE[-2]), np.fft.fftfreq(SHAPE[-1]), indexing="ij"))
    x = np.fft.ifft2(spectrum / (0.02 + away) ** 1.6).real
    x = (x / x.std()).astype(np.float32)
    x[-4:] = x[:4]
    return ss.Bank.from_arrays(x, rng.integers(0, 3, n), **options)


BANKS = {
    "pictures": pictures,
    "pictures, flips": lambda: pictures(flips=True),
    "bytes": lambda: bank_of("bytes", 120, SHAPE, duplicates=4),
    "half": lambda: bank_of("half", 120, SHAPE),
    "far": lambda: bank_of("far", 120, SHAPE),
}


@pytest.mark.parametrize("shape", [SHAPE, (1, 33, 35), (2, 3, 16, 16)])
def test_axes_keep_products_and_bands_bound_what_is_not_multiplied(shape):
    d, rng = math.prod(shape), torch.Generator().manual_seed(0)
    v, x = torch.randn(2, 9, d, dtype=torch.float64, generator=rng)
    torch.testing.assert_close(transformed(v, shape) @ transformed(x, shape).T, v @ x.T)
    axes = Axes.of(shape, torch.rand(d, generator=rng))
    a, b, kept = axes.outline(v), axes.outline(x), axes.kept
    assert a.shape == (9, axes.kept + BANDS)
    missed = (v @ x.T - a[:, :kept] @ b[:, :kept].T).abs()
    assert bool((missed <= a[:, kept:] @ b[:, kept:].T).all())
    torch.testing.assert_close(a[:, kept:].square().sum(1), v.square().sum(1) - a[:, :kept].square().sum(1), rtol=1e-9, atol=0)
    mirrored = axes.outline(v.view(9, *shape).flip(-1).flatten(1))
    torch.testing.assert_close(mirrored[:, :kept], a[:, :kept] * axes.signs)
    torch.testing.assert_close(mirrored[:, kept:], a[:, kept:])
    single = transformed(x.float(), shape).double() - transformed(x.float().double(), shape)
    assert bool((single.norm(dim=1) <= axes.off * x.norm(dim=1)).all())


def test_only_shapes_whose_transform_is_quick_have_axes():
    assert [suits(shape) for shape in ((3, 32, 32), (4, 32, 32), (1, 64, 64))] == [True] * 3
    assert [suits(shape) for shape in ((3072,), (1, 2048), (1, 8, 8), (2, 3))] == [False] * 4


@pytest.mark.parametrize("kind", BANKS)
@pytest.mark.parametrize("label", [None, 1])
def test_no_row_is_missed_that_can_matter(always, kind, label):
    bank = BANKS[kind]()
    if bank.labels is None and label is not None:
        pytest.skip("no classes")
    truth = ss.EmpiricalScore(bank, arithmetic="floats")
    shelf, margin = truth.shelf, 20.0
    z, t, names = states_of(bank, truth.schedule, TIMES, KINDS)
    states = States.of(z.flatten(1), t, truth.schedule, shelf.centre, shelf.reach)
    seen = Outlines(shelf).look(states, label, margin, 10_000)
    assert not bool(seen.many.any())
    index = torch.from_numpy(bank.indices(label))
    index = torch.cat([index, index + len(bank.rows)]) if bank.flips else index
    x = bank[index].double().flatten(1)
    away = (states.z[:, None] - states.alpha[:, None, None] * x).square().sum(2) * states.precision[:, None]
    shell = (away.sqrt() - bank.d**0.5).abs()
    for k, name in enumerate(names):
        own = seen.state == k
        found = set(seen.row[own].tolist())
        assert len(found) == int(own.sum()), "each once"
        needed = index[(away[k] <= away[k].min() + 2 * margin - 1e-6) | (shell[k] == shell[k].min())]
        if "tie" not in name or t[k] > 0.01:  # else float64 can't tell
            assert found >= set(needed.tolist()), name
    constant = 0.5 * states.precision * states.norm**2
    logit = constant[:, None] - 0.5 * away
    place = torch.searchsorted(index, seen.row)
    assert bool((logit[seen.state, place] <= seen.upper + 1e-9 * constant[seen.state]).all())
    torch.testing.assert_close(logit.gather(1, torch.searchsorted(index, seen.top)[:, None])[:, 0], seen.known, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("kind", BANKS)
def test_answers_by_outlines_agree_with_the_definition(always, kind):
    bank = BANKS[kind]()
    truth = ss.EmpiricalScore(bank, arithmetic="floats")
    z, t, names = states_of(bank, truth.schedule, TIMES, KINDS)
    rounding = unresolved(bank, truth.schedule, z, t)
    agrees(truth.posterior(z, t), definition(bank, truth.schedule, z, t), bank, 1e-4, names, rounding=rounding)
    assert truth.engine.work[engine.OUTLINED] >= 10
    if bank.labels is not None:
        label = torch.arange(len(z)) % 3
        agrees(truth.posterior(z, t, label), definition(bank, truth.schedule, z, t, label), bank, 1e-4, names, rounding=rounding)


@pytest.mark.parametrize("resident", [True, False])
def test_draws_are_those_without_outlines(always, monkeypatch, resident):
    bank, memory = (pictures(flips=True), 2**26) if resident else (pictures(2500, flips=True), 9 << 20)
    truth = ss.EmpiricalScore(bank, arithmetic="floats", memory=memory)
    assert truth.shelf.resident == resident
    z, t, _ = states_of(bank, truth.schedule, TIMES, KINDS)
    some, label = truth.sample(z, t)[1], torch.arange(len(z)) % 3
    of_class = truth.sample(z, t, label)[1]
    assert truth.engine.outlines(0) is not None
    monkeypatch.setattr(engine, "BUSY", math.inf)
    without = ss.EmpiricalScore(bank, arithmetic="floats", memory=memory)
    assert torch.equal(without.sample(z, t)[1], some)
    assert torch.equal(without.sample(z, t, label)[1], of_class)
    assert without.engine.outlines(0) is None


def test_outlines_are_made_once_enough_was_asked_and_where_they_fit(monkeypatch):
    bank = pictures()
    truth = ss.EmpiricalScore(bank, arithmetic="floats")
    z, t, _ = states_of(bank, truth.schedule, [0.1], ["shell"])
    for _ in range(3):
        truth.posterior(z, t)
    assert truth.engine.outlines(0) is None, "a small bank"
    monkeypatch.setattr(outline, "SMALL", 0)
    truth.posterior(z, t)
    assert truth.engine.outlines(0) is None, "few states"
    truth.posterior(z.expand(100, *SHAPE), t.expand(100))
    assert truth.engine.outlines(0) is not None
    large = pictures(5000)
    small = ss.EmpiricalScore(large, arithmetic="floats", memory=9 << 20)
    small.posterior(z.expand(100, *SHAPE), t.expand(100))
    assert small.engine.outlines(0) is None, "no room"


def test_they_are_worth_it_near_the_data_alone():
    one = Outlines(ss.EmpiricalScore(pictures(), arithmetic="floats").shelf)
    other = Outlines(ss.EmpiricalScore(bank_of("float", 300, SHAPE), arithmetic="floats").shelf)
    assert 0 < one.least < other.least < math.inf, "noise lies along no few axes"
    shelf, schedule = one.shelf, ss.EmpiricalScore(pictures()).schedule
    t = torch.tensor([0.0, 0.05, 0.99, 1.0], dtype=torch.float64)
    states = States.of(torch.zeros(4, shelf.bank.d, dtype=torch.float64), t, schedule, shelf.centre, shelf.reach)
    assert one.worth(states).tolist() == [False, True, False, False]
