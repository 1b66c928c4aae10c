"""NearestRowsScore says how much it misses: a bound with a flat index, a fair estimate with any other."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope.empirical import reference_posterior

needs_faiss = pytest.mark.skipif(find_spec("faiss") is None, reason="faiss is not installed")
# SWIG's modules warn on newer Pythons.
pytestmark = pytest.mark.filterwarnings("ignore:builtin type:DeprecationWarning")

TIMES = (0.0, 0.001, 0.05, 0.3, 0.6, 0.9, 1.0)


def make_bank(n=400, flips=False, seed=0):
    """Clusters of rows, some of them copies."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((8, 1, 4, 4))
    x = centres[np.arange(n) % 8] + 0.4 * rng.standard_normal((n, 1, 4, 4))
    x[-3:] = x[:3]
    return ss.Bank.from_arrays(x.astype(np.float32), np.arange(n) % 3, flips=flips)


def states(bank, t, count=24, seed=0):
    rng = np.random.default_rng(seed)
    own = bank[rng.integers(len(bank), size=count)].double()
    return (1 - t) * own + t * torch.from_numpy(rng.standard_normal(own.shape))


def exact(bank, z, t, label=None):
    """All weights (B, len(bank)), 0 outside the class, and the exact means."""
    weights = torch.zeros(len(z), len(bank), dtype=torch.float64)
    among = torch.from_numpy(bank.indices(label))
    among = torch.cat([among, among + len(bank.rows)]) if bank.flips else among
    rows = bank[among].double().flatten(1)
    apart = (z.flatten(1)[:, None] - (1 - t) * rows).square().sum(2)
    weights[:, among] = torch.softmax(-apart / (2 * t**2 if t else 1e-9), 1)
    return weights, reference_posterior(bank, ss.LinearSchedule(), z, t, label).mean


def left_out(weights, index):
    """The share of the rows that are not in index (B, k)."""
    return 1 - torch.stack([w[found[found >= 0]].sum() for w, found in zip(weights, index, strict=True)])


@needs_faiss
@pytest.mark.parametrize("label", [None, 1])
@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_with_a_flat_index_what_is_missed_is_bounded(flips, label, given):
    import faiss

    bank, index = make_bank(flips=flips), "Flat"
    if given:
        index = faiss.IndexFlatL2(bank.d)
        index.add(bank[np.arange(len(bank.rows))].flatten(1).numpy())
    score = ss.NearestRowsScore(bank, k=20, index=index)
    for t in TIMES:
        z = states(bank, t)
        found = score.posterior(z, t, label)
        weights, mean = exact(bank, z, t, label)
        assert found.is_bound
        assert not found.standard_error.any()
        missed = left_out(weights, found.index)
        assert (missed <= found.missed + 1e-12).all()
        assert ((found.mean - mean).flatten(1).norm(dim=1) <= found.error_bound).all()
        # It is of use: near the data it says that nothing is missing, near noise that nearly everything is.
        assert t > 0.05 or t == 0 or found.missed.max() < 1e-6
        assert t < 1 or found.missed.min() > 0.8
        torch.testing.assert_close(score(z, t, label), found.mean)


@needs_faiss
def test_all_rows_are_the_exact_score():
    bank = make_bank(60, flips=True)
    score = ss.NearestRowsScore(bank, k=1_000)
    for t in TIMES:
        z = states(bank, t)
        found = score.posterior(z, t)
        assert found.index.shape == (24, 120)
        assert not found.missed.any()
        weights, mean = exact(bank, z, t)
        torch.testing.assert_close(found.weight, weights.gather(1, found.index), rtol=1e-7, atol=1e-12)
        assert ((found.mean - mean).flatten(1).norm(dim=1) <= found.error_bound + 1e-12).all()


@needs_faiss
@pytest.mark.parametrize("flips", [False, True])
def test_with_another_index_the_estimate_is_fair(flips):
    """One of 16 lists is visited, so neighbours are missed at every t. Over draws the estimate of the missing sum has no bias, and
    its standard error is the spread of the draws."""
    bank = make_bank(2_000, flips=flips)
    scores = [ss.NearestRowsScore(bank, k=10, index="IVF16,Flat", sample=64, seed=seed) for seed in range(16)]
    for t in (0.05, 0.5, 0.8):
        z = states(bank, t, 12)
        weights, _ = exact(bank, z, t)
        found = [score.posterior(z, t) for score in scores]
        assert not any(one.is_bound or one.error_bound.isfinite().any() for one in found)
        missed = left_out(weights, found[0].index)
        share = torch.stack([one.missed for one in found])
        error = torch.stack([one.standard_error for one in found])
        ratio = share / (1 - share).clamp(min=1e-300)  # missing sum over found sum
        usual = missed < 0.99
        spread = ratio.std(0) / len(found) ** 0.5
        wrong = (ratio.mean(0) - missed / (1 - missed)).abs()
        assert (wrong[usual] <= 4 * spread[usual] + 1e-9).all()
        assert ((share.mean(0) - missed).abs() <= 2 * share.std(0) + 1e-6).all()  # a ratio's bias is small beside its spread
    assert missed.max() > 0.3
    shown, seen = error.square().mean(0).sqrt(), share.std(0)
    assert (seen > 1e-3).all()
    assert (shown / seen).log().abs().mean() < 0.4


@needs_faiss
def test_a_missed_nearest_row_is_noticed():
    bank = make_bank(3_000)
    score = ss.NearestRowsScore(bank, k=2, index="IVF64,Flat")
    z = (bank[np.arange(0, 3_000, 30)].double() + bank[np.arange(15, 3_000, 30)].double()) / 2
    found = score.posterior(0.98 * z, 0.02)
    weights, _ = exact(bank, 0.98 * z, 0.02)
    missed = left_out(weights, found.index)
    assert (missed > 0.5).any()
    assert ((found.missed > 0.5) == (missed > 0.5)).float().mean() > 0.95


@needs_faiss
def test_draws_belong_to_the_state():
    bank = make_bank(1_000)
    score = ss.NearestRowsScore(bank, k=5, index="IVF8,Flat", sample=16)
    z = states(bank, 0.7)
    whole, part = score.posterior(z, 0.7), score.posterior(z[7:9], 0.7)
    torch.testing.assert_close(part.missed, whole.missed[7:9], rtol=0, atol=0)
    other = ss.NearestRowsScore(bank, k=5, index="IVF8,Flat", sample=16, seed=1).posterior(z, 0.7)
    assert not torch.equal(other.missed, whole.missed)


@needs_faiss
def test_states_are_not_written_to():
    bank = make_bank(1_000)
    z = states(bank, 0.7)
    kept = z.clone()
    ss.NearestRowsScore(bank, k=5, index="IVF8,Flat").posterior(z, 0.0)
    assert torch.equal(z, kept)


@needs_faiss
def test_what_can_not_be_asked_is_refused():
    import faiss

    bank = make_bank()
    other = faiss.IndexFlatL2(bank.d)
    other.add(bank[np.arange(399)].flatten(1).numpy())
    with pytest.raises(ss.InputError, match="holds 399 vectors of 16 values, the bank 400 rows of 16"):
        ss.NearestRowsScore(bank, index=other)
    other.add(np.zeros((1, 16), np.float32))
    with pytest.raises(ss.InputError, match="vector 399 of the index is not row 399"):
        ss.NearestRowsScore(bank, index=other)
    with pytest.raises(ss.InputError, match="can't build the index 'Flatt'"):
        ss.NearestRowsScore(bank, index="Flatt")
    with pytest.raises(ss.InputError, match="too few rows"):
        ss.NearestRowsScore(bank, k=0)
    z = states(bank, 0.5)
    z[3] = torch.nan
    flat, lists = ss.NearestRowsScore(bank), ss.NearestRowsScore(bank, index="IVF4,Flat")
    with pytest.raises(ss.InputError, match="states 3 contain NaN"):
        flat.posterior(z, 0.5)
    with pytest.raises(ss.InputError, match="has label 7"):
        flat.posterior(z[:2], 0.5, 7)
    with pytest.raises(ss.InputError, match="can't be asked for the rows of one class"):
        lists.posterior(z[:2], 0.5, 1)
    with pytest.raises(ss.InputError, match="no classes"):
        lists(z[:2], 0.5, 1)


def test_without_faiss_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ss.InputError, match="needs faiss") as refused:
        ss.NearestRowsScore(make_bank())
    assert "scorescope[approximate]" in refused.value.hint
