"""Copies are told as copies, whatever else the bank holds beside their originals; what is new is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope.demo import digits
from scorescope.probes import memorization
from scorescope.search import groups

CPU = torch.device("cpu")


def photos(n, seed=0, shape=(1, 8, 8)):
    """Smooth 8-bit images whose distances vary."""
    rng = np.random.default_rng(seed)
    rows = np.cumsum(np.cumsum(rng.normal(size=(n, *shape)), -1), -2)
    rows -= rows.min((1, 2, 3), keepdims=True)
    return (255 * rows / rows.max((1, 2, 3), keepdims=True)).astype(np.uint8)


def nudged(rows, seed=1):
    """The same, each value a grey level up or down, or left alone."""
    return np.clip(rows.astype(int) + np.random.default_rng(seed).integers(-1, 2, rows.shape), 0, 255).astype(np.uint8)


def measured(bank, samples):
    return memorization.nearest(bank, torch.as_tensor(samples, dtype=torch.float32))


@pytest.mark.parametrize("flips", [False, True])
def test_an_exact_copier_in_a_bank_that_holds_every_row_twice_copies(flips):
    rows = photos(100)
    bank = ss.Bank.from_arrays(np.concatenate([rows, nudged(rows)]), flips=flips)
    run = ss.examine(ss.EmpiricalScore(bank), bank, ["memorization"], preset="quick", paths=24, solver="heun", steps=20, quiet=True)
    assert (run.results["ratio_second"] < 0.1).all()
    assert (run.results["group_size"] == 2).all()
    assert (run.results["null_group_size"] == 2).mean() > 0.95
    assert (run.results["null_second"] >= 1 / 3).all()
    (copies,) = (claim for claim in run.claims if claim["name"] == "copies")
    assert copies["verdict"] == "alarm"
    assert copies["text"].startswith("Samples copy training rows: 24 of 24 (at least 86 %)")
    assert any(line.startswith("◆") for line in run.findings())


def test_a_point_between_near_duplicates_copies_them_and_their_group_is_counted():
    rows = photos(200)
    several = [rows, *(nudged(rows[:3], seed) for seed in range(1, 5))]
    bank = ss.Bank.from_arrays(np.concatenate(several))
    between = np.stack([bank[np.array([k, *range(200 + k, 212, 3)])].mean(0).numpy() for k in range(3)])
    found = measured(bank, between)
    assert (found["ratio_second"] < 1 / 3).all()
    assert (found["ratio_second_plain"] > 1 / 3).all()
    assert found["group_size"].tolist() == [5, 5, 5]
    assert measured(bank, bank[np.arange(3, 9)])["group_size"].tolist() == [1] * 6


def test_a_mirror_image_is_of_its_rows_group():
    rows = photos(60).copy()
    rows[0] = (rows[0].astype(int) + rows[0][..., ::-1]) // 2  # nearly its own mirror image
    rows[0, 0, 0, 0] = 255 - rows[0, 0, 0, 0]
    bank = ss.Bank.from_arrays(rows, flips=True)
    found = measured(bank, (bank[np.array([0])] + bank[np.array([60])]) / 2)
    assert found["ratio_second_plain"][0] == pytest.approx(1)
    assert found["ratio_second"][0] < 1 / 3
    assert found["group_size"].tolist() == [1]


def test_real_digits_that_the_bank_does_not_hold_copy_none():
    rows = digits().stored(0, 1500)[::1]
    bank, unseen = ss.Bank.from_arrays(rows[np.arange(1500) % 10 > 0]), ss.Bank.from_arrays(rows[::10])
    found = measured(bank, unseen[np.arange(150)])
    assert (found["ratio_second"] > 1 / 3).all()
    assert not found["exact_copy"].any()
    null = memorization.null(bank, 100, 0, CPU)
    assert (null["null_second"] > 1 / 3).all()


@pytest.mark.parametrize(("d", "allowed"), [(1, 0.45), (2, 0.2), (3, 0.1), (8, 0.01), (100, 0.0)])
def test_points_of_the_data_copy_no_more_than_chance_has_them(d, allowed):
    x = np.random.default_rng(d).normal(size=(1500, d)).astype(np.float32)
    bank = ss.Bank.from_arrays(x[:1000])
    found = measured(bank, x[1000:])
    assert (found["ratio_second"] < 1 / 3).mean() <= allowed
    assert found["exact_copy"].mean() < 0.05


def test_exact_copies_are_equal_up_to_a_grey_level():
    rows = photos(50)
    bank = ss.Bank.from_arrays(rows)
    step = 2 / 255
    moved = bank[np.arange(2)] + torch.tensor([0.49, 0.51])[:, None, None, None] * step
    assert measured(bank, moved)["exact_copy"].tolist() == [1, 0]
    floats = ss.Bank.from_arrays(rows.astype(np.float32))
    moved = floats[np.arange(2)] + torch.tensor([0.0, 0.1])[:, None, None, None]
    assert measured(floats, moved)["exact_copy"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("rows", "exact", "size"),
    [([[1, 2]], 1, 1), ([[1, 2], [1, 2]], 1, 2), ([[1, 2]] * 70, 1, 70), ([[1, 2], [1, 2], [9, 9]], 1, 2), ([[5, 5], [9, 9]], 0, 1)],
)
def test_tiny_banks_and_banks_of_one_group(rows, exact, size):
    bank = ss.Bank.from_arrays(np.array(rows, np.float32))
    found = measured(bank, [[1, 2], [1.5, 2.5]])
    assert found["exact_copy"].tolist() == [exact, 0]
    assert (found["ratio_second"][0] == 0) == bool(exact)
    assert np.isfinite(found["ratio_second"][1]) == (len(np.unique(rows, axis=0)) > 1)
    assert found["group_size"][0] == size
    null = memorization.null(bank, 5, 0, CPU)
    assert all(len(null[name]) == len(null["null_row"]) for name in null if name.startswith("null"))


def test_a_group_larger_than_the_rows_looked_at_first_is_seen_whole():
    rows = photos(100)
    bank = ss.Bank.from_arrays(np.concatenate([rows, np.repeat(rows[:1], 60, axis=0)]))
    found = measured(bank, bank[np.array([0])] + 0.02)
    assert found["group_size"].tolist() == [61]
    assert found["ratio_second"][0] < 1 / 3
    assert found["ratio_second_plain"][0] == 1


def test_what_is_close_belongs_to_the_bank():
    rows = photos(300)
    first, again = ss.Bank.from_arrays(rows), ss.Bank.from_arrays(rows)
    assert groups.closeness(first) == groups.closeness(again)
    clean = groups.closeness(first).near
    twice = groups.closeness(ss.Bank.from_arrays(np.concatenate([rows, nudged(rows)]))).near
    assert 0.5 * clean < twice < 2 * clean  # not that of the twins
