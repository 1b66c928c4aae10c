"""Draws from r_z: the rows come as often as the posterior says, and belong to their item."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from scorescope.empirical import EmpiricalScore, draw
from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.seeds import gumbel

pytestmark = pytest.mark.usefixtures("each_arithmetic")

SHAPE = (3, 8, 8)


def bank_of(kind, rows=300):
    values = np.random.default_rng(5).integers(0, 256, (rows, *SHAPE)).astype(np.uint8)
    labels = np.arange(rows) % 3
    if kind == "bytes":
        return Bank.from_arrays(values, labels, flips=True)
    return Bank.from_arrays(values.astype(np.float32) / 127.5 - 1, labels, flips=True)


def weights(bank, z, t, label=None):
    """The definition, in float64, of every row and its mirror image."""
    x = bank[np.arange(len(bank))].double().flatten(1)
    logit = -((z.double().flatten() - (1 - t) * x) ** 2).sum(1) / (2 * t**2)
    if label is not None:
        logit[torch.from_numpy(np.tile(bank.labels, 2) != label)] = -torch.inf
    return torch.softmax(logit, 0).numpy()


@pytest.mark.parametrize("kind", ["bytes", "floats"])
@pytest.mark.parametrize("t", [0.7, 0.9, 0.97])
@pytest.mark.parametrize("label", [None, 1])
def test_draws_follow_the_posterior(kind, t, label):
    bank, n = bank_of(kind), 4000
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    z = (1 - t) * (bank[4] + bank[7]) / 2 + t * noise
    rows, index = EmpiricalScore(bank).sample(z.expand(n, *SHAPE), t, label, seed=3)
    assert torch.equal(rows, bank[index])
    expected = n * weights(bank, z, t, label)
    # Rows that are expected less than eight times count as one.
    rare = expected < 8
    seen = np.bincount(index.numpy(), minlength=len(bank)).astype(float)
    cells = np.append(seen[~rare], seen[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    kept = cells[1] > 1
    assert seen[expected == 0].sum() == 0
    if kept.sum() > 1:
        assert chisquare(cells[0][kept], cells[1][kept] * cells[0][kept].sum() / cells[1][kept].sum()).pvalue > 1e-4
    else:
        assert cells[0][kept].sum() >= n - 8


def test_a_draw_belongs_to_its_item():
    bank, n = bank_of("bytes"), 40
    z = torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(2))
    score = EmpiricalScore(bank)
    _, together = score.sample(z, 0.95, seed=9)
    _, alone = score.sample(z[17:18], 0.95, seed=9, items=[17])
    assert together[17] == alone[0]
    assert not torch.equal(together, score.sample(z, 0.95, seed=10)[1])
    streamed = EmpiricalScore(bank, memory=8 << 20)
    assert torch.equal(together, streamed.sample(z, 0.95, seed=9)[1])


@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_more_candidates_than_can_be_listed_draw_the_same(kind, monkeypatch):
    bank, z = bank_of(kind), torch.randn(40, *SHAPE, generator=torch.Generator().manual_seed(2))
    label = torch.arange(40) % 3
    _, listed = EmpiricalScore(bank).sample(z, 0.95, label, seed=9)
    ways, of_all = [], draw._of_all
    monkeypatch.setattr(draw, "FINE", 1 << 60)
    monkeypatch.setattr(draw, "LEAST", 0)
    monkeypatch.setattr(draw, "_of_all", lambda *given: ways.append(given) or of_all(*given))
    assert torch.equal(listed, EmpiricalScore(bank).sample(z, 0.95, label, seed=9)[1])
    assert ways


@pytest.mark.parametrize("crowd", [False, True])
@pytest.mark.parametrize("kind", ["bytes", "floats"])
def test_states_without_a_class_may_stand_among_others(kind, crowd, monkeypatch):
    bank, rng = bank_of(kind), torch.Generator().manual_seed(3)
    label = torch.tensor([0, -1, 1, -1, 1] * 6)
    t = torch.rand(30, dtype=torch.float64, generator=rng)
    z = (1 - t).view(-1, 1, 1, 1) * bank[torch.arange(0, 300, 10)] + t.view(-1, 1, 1, 1) * torch.randn(30, *SHAPE, generator=rng)
    if crowd:
        monkeypatch.setattr(draw, "FINE", 1 << 60)
        monkeypatch.setattr(draw, "LEAST", 0)
    truth, free = EmpiricalScore(bank), label < 0
    found = truth.sample(z, t, label, seed=4)[1]
    for some, tags in ((free, None), (~free, label[~free])):
        apart = truth.sample(z[some], t[some], tags, seed=4, items=some.nonzero().flatten().tolist())[1]
        assert torch.equal(found[some], apart)
    with pytest.raises(InputError, match="label -2"):
        truth.sample(z, t, label - 1)


@pytest.mark.parametrize("apart", [0.0, 1e-7])
def test_copies_draw_the_same_in_any_batch_near_the_data(apart):
    """Their logits are so large that rounding would tell them apart."""
    rng = torch.Generator().manual_seed(0)
    base = torch.randn(8, 1000, generator=rng).repeat(12, 1)
    score = EmpiricalScore(Bank.from_arrays(base * (1 + apart * torch.randn(base.shape, generator=rng))))
    noise = torch.randn(20, 1000, generator=rng, dtype=torch.float64)
    for t in (1e-5, 1e-6, 1e-8):
        z = (1 - t) * base[0] + t * noise
        together = score.sample(z, t, seed=1)[1]
        assert together.tolist() == [int(score.sample(z[k : k + 1], t, seed=1, items=[k])[1]) for k in range(20)]
        assert len(together.unique()) > 3 or apart


def test_at_the_data_the_nearest_rows_share_the_draws():
    x = np.zeros((4, 5), np.float32)
    x[2:] = 3.0
    _, index = EmpiricalScore(Bank.from_arrays(x)).sample(torch.zeros(2000, 5), 0.0)
    assert set(index.tolist()) == {0, 1}
    assert abs(index.double().mean() - 0.5) < 0.06


def test_pure_noise_draws_every_row_alike():
    bank = bank_of("bytes", 8)
    _, index = EmpiricalScore(bank).sample(torch.randn(4000, *SHAPE), 1.0)
    assert chisquare(np.bincount(index.numpy(), minlength=16)).pvalue > 1e-4


def test_gumbel_numbers_are_gumbel():
    found = gumbel(torch.arange(50)[:, None] * 7919, torch.arange(2000)).flatten()
    assert abs(found.mean() - np.euler_gamma) < 0.02
    assert abs(found.var() - np.pi**2 / 6) < 0.05
    assert len(found.unique()) == len(found)


def test_items_must_match_states():
    with pytest.raises(InputError, match="2 items do not match 1 states"):
        EmpiricalScore(bank_of("bytes", 8)).sample(torch.zeros(1, *SHAPE), 0.5, items=[1, 2])
