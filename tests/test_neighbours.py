"""Nearest rows and closest pairs are those of a float64 brute force: ties, copies, mirror images, and rows too close for float32."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import scorescope as ss
from scorescope import neighbours
from scorescope.empirical.shelf import Shelf
from scorescope.neighbours import NO_PAIR, Pair, closest_pair, duplicates, nearest_rows


def shelf_of(bank, memory=1 << 30):
    return Shelf(bank, "cpu", memory)


def all_rows(bank):
    """Every row of the bank, mirrored ones behind, flat and in float64."""
    return bank[np.arange(len(bank))].reshape(len(bank), -1).double().numpy()


def brute_nearest(bank, x, k, without=None):
    """Indices and distances by definition, ties by index."""
    rows, n = all_rows(bank), len(bank.rows)
    found = []
    for i, point in enumerate(x.reshape(len(x), -1).double().numpy()):
        distance = np.sqrt(np.square(rows - point).sum(1))
        usable = [j for j in range(len(rows)) if without is None or j % n != int(without[i])]
        found.append(sorted((distance[j], j) for j in usable)[:k])
    index = np.array([[j for _, j in line] for line in found], dtype=np.int64).reshape(len(x), -1)
    return index, np.array([[distance for distance, _ in line] for line in found]).reshape(len(x), -1)


def brute_pair(bank, label=None, distinct=False):
    """The closest pair by definition, ties by index."""
    rows, n, index = all_rows(bank), len(bank.rows), bank.indices(label).tolist()
    best = NO_PAIR
    for i, j in itertools.combinations(index, 2):
        for second in (j, j + n) if bank.flips else (j,):
            distance = float(np.sqrt(np.square(rows[i] - rows[second]).sum()))
            if not (distinct and distance == 0):
                best = min(best, Pair(distance, i, second))
    return best


@st.composite
def banks(draw):
    """Small banks on a coarse grid, where ties, copies and mirror images abound, near the origin or far from it."""
    n, shape = draw(st.integers(1, 12)), draw(st.sampled_from([(2,), (1, 1, 2), (1, 2, 2)]))
    size = n * int(np.prod(shape))
    values = draw(st.lists(st.integers(-2, 2), min_size=size, max_size=size))
    rows = np.array(values, dtype=np.float32).reshape(n, *shape) * draw(st.sampled_from([1.0, 0.25])) + draw(st.sampled_from([0.0, 64.0]))
    labels = draw(st.sampled_from([None, np.arange(n) % 2]))
    return ss.Bank.from_arrays(rows.astype(np.float32), labels, flips=len(shape) > 1 and draw(st.booleans()))


@given(bank=banks(), k=st.integers(1, 30), alone=st.booleans(), resident=st.booleans(), seed=st.integers(0, 99))
def test_nearest_rows_are_those_of_a_brute_force(bank, k, alone, resident, seed):
    rng = np.random.default_rng(seed)
    own = rng.integers(len(bank.rows), size=5)
    x = bank[own] + torch.from_numpy(rng.integers(-1, 2, (5, *bank.shape)).astype(np.float32)) / 2
    without = torch.from_numpy(own) if alone else None
    index, distance = nearest_rows(shelf_of(bank, 1 << 30 if resident else 0), x, k, without=without)
    expected_index, expected = brute_nearest(bank, x, k, without)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_allclose(distance, expected, rtol=1e-12, atol=1e-12)


@given(bank=banks(), distinct=st.booleans(), data=st.data())
def test_the_closest_pair_is_that_of_a_brute_force(bank, distinct, data):
    label = data.draw(st.sampled_from([None, *(np.unique(bank.labels).tolist() if bank.labels is not None else [])]))
    found, expected = closest_pair(shelf_of(bank), label, distinct=distinct), brute_pair(bank, label, distinct)
    assert found.distance == pytest.approx(expected.distance, rel=1e-12)
    if distinct or not bank.flips or expected.distance:
        assert (found.first, found.second) == (expected.first, expected.second)
    else:  # Copies are named before mirror images.
        rows = all_rows(bank)
        assert np.array_equal(rows[found.first], rows[found.second])


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_float32_can_not_tell_apart(seed):
    """400 rows around one point far from the others: their distances to it differ far below what float32 products resolve."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((1, 30)) * 100
    tight = (centre + 1e-4 * rng.standard_normal((400, 30))).astype(np.float32)
    far = (rng.standard_normal((100, 30)) * 100).astype(np.float32)
    bank = ss.Bank.from_arrays(rng.permutation(np.concatenate([tight, far])))
    x = torch.from_numpy(centre.astype(np.float32)).repeat(3, 1)
    index, distance = nearest_rows(shelf_of(bank), x, 5)
    expected_index, expected = brute_nearest(bank, x, 5)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_allclose(distance, expected, rtol=1e-9)
    found, truth = closest_pair(shelf_of(bank), None), brute_pair(bank)
    assert (found.first, found.second) == (truth.first, truth.second)


def test_well_separated_rows_are_settled_without_a_second_look(monkeypatch):
    """The certificate is of use: on ordinary data it is not refused, so nothing is computed twice."""
    monkeypatch.setattr(neighbours, "_search", lambda *rest: pytest.fail("all rows were searched in float64"))
    rng = np.random.default_rng(0)
    bank = ss.Bank.from_arrays(rng.uniform(-1, 1, (2_000, 1, 8, 8)).astype(np.float32))
    x = torch.from_numpy(rng.uniform(-1, 1, (20, 1, 8, 8)).astype(np.float32))
    for k in (1, 10, 50):
        np.testing.assert_array_equal(nearest_rows(shelf_of(bank), x, k)[0], brute_nearest(bank, x, k)[0])


def test_a_row_finds_itself_first_and_never_when_told_not_to():
    rng = np.random.default_rng(0)
    bank = ss.Bank.from_arrays(rng.standard_normal((50, 1, 3, 3)).astype(np.float32), flips=True)
    own = np.arange(100)
    index, distance = nearest_rows(shelf_of(bank), bank[own], 3)
    assert index[:, 0].tolist() == own.tolist()
    assert not distance[:, 0].any()
    index, distance = nearest_rows(shelf_of(bank), bank[own], 200, without=torch.from_numpy(own % 50))
    assert index.shape == (100, 98)
    assert not (index % 50 == torch.from_numpy(own % 50)[:, None]).any()
    assert (distance.diff(dim=1) >= 0).all()


def test_one_row_has_no_neighbour():
    bank = ss.Bank.from_arrays(np.ones((1, 1, 2, 2), np.float32), flips=True)
    index, distance = nearest_rows(shelf_of(bank), torch.zeros(4, 1, 2, 2), 5)
    assert index.tolist() == [[0, 1]] * 4
    torch.testing.assert_close(distance, torch.full((4, 2), 2.0, dtype=torch.float64))
    index, distance = nearest_rows(shelf_of(bank), torch.zeros(4, 1, 2, 2), 5, without=torch.zeros(4, dtype=torch.int64))
    assert (index.shape, distance.shape) == ((4, 0), (4, 0))
    assert closest_pair(shelf_of(bank), None) == NO_PAIR
    assert nearest_rows(shelf_of(bank), torch.zeros(0, 1, 2, 2), 1)[0].shape == (0, 1)


def test_constant_data_is_answered_at_once():
    bank = ss.Bank.from_arrays(np.full((3_000, 1, 4, 4), 7, np.uint8))
    begun = time.process_time()
    assert closest_pair(shelf_of(bank), None) == Pair(0.0, 0, 1)
    assert closest_pair(shelf_of(bank), None, distinct=True) == NO_PAIR
    assert nearest_rows(shelf_of(bank), bank[np.array([5])], 3)[0].tolist() == [[0, 1, 2]]
    assert duplicates(bank) == 2_999
    assert time.process_time() - begun < 5  # pair by pair it would be minutes


def test_copies_are_those_of_equal_value():
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    bank = ss.Bank.from_arrays(rows.reshape(4, 1, 1, 2), flips=True)
    assert duplicates(bank) == 2  # a mirror image is no copy
    assert closest_pair(shelf_of(bank), None) == Pair(0.0, 0, 1)
    assert closest_pair(shelf_of(bank), None, distinct=True) == Pair(pytest.approx(2**0.5), 0, 3)
