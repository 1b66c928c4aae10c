"""Nearest rows and closest pairs are those of a float64 brute force: ties, copies, mirror images, and rows too close for float32."""

from __future__ import annotations

import gc
import itertools
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import scorescope as ss
from scorescope.search import nearest, neighbours, pairs
from scorescope.search.pairs import NO_PAIR, Pair
from scorescope.search.sketch import PRECISE, Axes, Sketches, limit_of, squares
from scorescope.search.units import Units

CPU = torch.device("cpu")


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
    """The closest pair by definition, ties by index; with `distinct` of rows that repeat no earlier one, at a distance above 0."""
    rows, n, index, best = all_rows(bank), len(bank.rows), bank.indices(label).tolist(), NO_PAIR
    if distinct:
        index = [j for j in index if not any(np.array_equal(rows[i], rows[j]) for i in index if i < j)]
    for i, j in itertools.combinations(index, 2):
        for second in (j, j + n) if bank.flips else (j,):
            distance = float(np.sqrt(np.square(rows[i] - rows[second]).sum()))
            if not (distinct and distance == 0):
                best = min(best, Pair(distance, i, second))
    return best


def same_pair(found, expected):
    assert found.distance == pytest.approx(expected.distance, rel=1e-12)
    assert (found.first, found.second) == (expected.first, expected.second)


@st.composite
def banks(draw):
    """Small banks on a coarse grid, where ties, copies and mirror images abound, near the origin or far from it."""
    n, shape = draw(st.integers(1, 12)), draw(st.sampled_from([(2,), (1, 1, 2), (1, 2, 2)]))
    size = n * int(np.prod(shape))
    values = np.array(draw(st.lists(st.integers(-2, 2), min_size=size, max_size=size))).reshape(n, *shape)
    if draw(st.booleans()):
        # 255 steps from −127.5 to 127.5 are wide enough apart that float32 model space keeps ties.
        rows, span = (values + draw(st.sampled_from([2, 128, 253]))).astype(np.uint8), {"low": -127.5, "high": 127.5}
    else:
        rows, span = values * draw(st.sampled_from([1.0, 0.25])) + draw(st.sampled_from([0.0, 64.0])), {}
    labels = draw(st.sampled_from([None, np.arange(n) % 2]))
    return ss.Bank.from_arrays(rows, labels, flips=len(shape) > 1 and draw(st.booleans()), **span)


@settings(max_examples=60, deadline=None)
@given(bank=banks(), k=st.integers(1, 30), alone=st.booleans(), seed=st.integers(0, 99))
def test_nearest_rows_are_those_of_a_brute_force(bank, k, alone, seed):
    rng = np.random.default_rng(seed)
    own = rng.integers(len(bank.rows), size=5)
    x = bank[own] + torch.from_numpy(rng.integers(-1, 2, (5, *bank.shape)).astype(np.float32)) / 2
    without = torch.from_numpy(own) if alone else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nearest, "QUERIES", 2)
        patch.setattr(nearest, "SPARE", 0)
        index, distance = neighbours(bank, x, k, without=without)
    expected_index, expected = brute_nearest(bank, x, k, without)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_allclose(distance, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(bank=banks(), tile=st.integers(1, 5), many=st.sampled_from([0, 3, 1000]), panel=st.sampled_from([1, 40, 1 << 27]))
def test_the_closest_pairs_are_those_of_a_brute_force(bank, tile, many, panel):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs, "PANEL", panel)
        patch.setattr(pairs, "TILE", tile)
        patch.setattr(pairs, "MANY", many)
        found = pairs.closest_pairs(bank)
    labels = [] if bank.labels is None else np.unique(bank.labels).tolist()
    assert list(found.by_class) == list(found.by_class_distinct) == labels
    same_pair(found.distinct, brute_pair(bank, distinct=True))
    for label in labels:
        same_pair(found.by_class_distinct[label], brute_pair(bank, label, distinct=True))
    for label, pair in [(None, found.whole), *found.by_class.items()]:
        expected = brute_pair(bank, label)
        if pair.distance or not bank.flips:
            same_pair(pair, expected)
        else:  # Copies are named before mirror images.
            rows = all_rows(bank)
            assert expected.distance == 0
            assert pair.first < pair.second
            assert np.array_equal(rows[pair.first], rows[pair.second])


@settings(max_examples=60, deadline=None)
@given(bank=banks())
def test_every_copy_is_named_with_the_first_row_that_it_repeats(bank):
    rows = all_rows(bank)[: len(bank.rows)].tolist()
    expected = [(i, rows.index(row)) for i, row in enumerate(rows) if rows.index(row) < i]
    assert pairs.closest_pairs(bank).duplicates.tolist() == [list(pair) for pair in expected]


KINDS = ("uint8", "float16", "float32")


def spread_bank(kind, flips=False, n=300, seed=0):
    """Rows of which some are close, some far, one class lies apart, one row is an outlier and one a near copy."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 3, 5, 4)) * np.geomspace(1, 0.05, 4)
    x[n // 2 :] += 3
    x[7] = x[3] + 0.01 * rng.standard_normal((3, 5, 4))
    x[11] = x[200][..., ::-1] + 0.02
    x[50] *= 20
    stored = (x * 20 + 100).clip(0, 255).astype(np.uint8) if kind == "uint8" else x.astype(kind)
    return ss.Bank.from_arrays(stored, np.arange(n) // (n // 3) % 3, flips=flips)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("small", [False, True])
def test_every_storage_and_every_bound_gives_the_same_answer(kind, flips, small, monkeypatch):
    """Sketches alone, whole rows for all, odd tiles, small blocks, and a program that allows itself bfloat16."""
    bank = spread_bank(kind, flips)
    if small:
        monkeypatch.setattr(nearest, "BLOCK", 1)  # blocks of 64 rows
        monkeypatch.setattr(pairs, "BLOCK", 1)
    expected = [brute_pair(bank, label) for label in (None, 0, 1, 2)]
    x = torch.cat([bank[np.arange(0, 300, 60)] * 0.9 + 0.1, 30 * bank[np.array([1])]])
    expected_index, expected_distance = brute_nearest(bank, x, 7)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        for tile, many in ((37, 0), (37, 10), (4096, 10**9)):
            monkeypatch.setattr(pairs, "TILE", tile)
            monkeypatch.setattr(pairs, "MANY", many)
            found = pairs.closest_pairs(bank)
            for pair, truth in zip((found.whole, *found.by_class.values()), expected, strict=True):
                same_pair(pair, truth)
        index, distance = neighbours(bank, x, 7)
    finally:
        torch.set_float32_matmul_precision(before)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_allclose(distance, expected_distance, rtol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flips", [False, True])
def test_no_pair_of_rows_is_nearer_than_its_bounds(kind, flips):
    bank = spread_bank(kind, flips)
    rows, n = all_rows(bank), len(bank.rows)
    true = np.sqrt(np.square(rows[:n, None] - rows[None]).sum(2))
    sketches, every = Sketches(bank, CPU), torch.arange(n)
    sketches.take(0, np.asarray(bank.rows[:100]))
    sketches.take(100, np.asarray(bank.rows[100:]))
    ((_, whole),) = Units.of(bank, CPU).rows(np.asarray(bank.rows))
    reach = float(whole.norm(dim=1).max())
    for mirrored in range(1 + flips):
        apart = torch.from_numpy(true[:, n * mirrored : n * mirrored + n])
        other = whole.reshape(bank.rows.shape).flip(-1).flatten(1) if mirrored else whole
        unit = sketches.axes.units.unit
        assert (squares(whole, other) <= apart.clone().apply_(lambda x, r=reach, u=unit: limit_of(x / u + 1e-6 * r, bank.d + 2, r))).all()
        square = sketches.squares(every, every, bool(mirrored))
        limit = apart.clone().apply_(sketches.limit)
        assert (square <= limit).all()
        # Nearly nothing is lost where a few axes say nearly everything.
        assert torch.quantile(square.double().clamp(min=0).sqrt() * bank.radius / apart.clamp(min=1e-6), 0.5) > 0.7
        tiles = sketches.tiles(every, 19)
        boxes = [torch.stack([sketches.box(tile, bool(side)) for tile in tiles]) for side in (0, mirrored)]
        for tile, box in zip(tiles, boxes[0], strict=True):
            least = torch.stack([apart[tile][:, other].min() for other in tiles])
            assert (sketches.gaps(box, boxes[1]) <= least).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flips", [False, True])
def test_no_row_is_nearer_to_a_point_than_its_bound(kind, flips):
    """Points on rows, between rows, off every grid, and far away."""
    bank = spread_bank(kind, flips)
    own = bank[np.arange(40)]
    x = torch.cat([own, (own + own.flip(0)) / 2, own + 1e-3 * torch.randn(own.shape, generator=torch.Generator().manual_seed(0)), 50 * own])
    flat, rows = x.double().flatten(1), torch.from_numpy(all_rows(bank))
    units, sketches = Units.of(bank, CPU), Sketches(bank, CPU, each=True)
    sketches.take(0, np.asarray(bank.rows))
    for mirrored, side in enumerate(nearest._sides(bank, flat)):
        apart = torch.cdist(side, rows[:300], compute_mode="donot_use_mm_for_euclid_dist")
        np.testing.assert_allclose(apart, torch.cdist(flat, rows[300 * mirrored :][:300]), rtol=1e-6, atol=1e-4)
        whole = nearest.Points(units.scaled(side), torch.zeros(len(side)), units.unit)
        for points, blocks, loss in ((whole, nearest._whole(bank, units), 1e-3), (sketches.points(side), nearest._sketched(sketches), 0.3)):
            some, ((_, x),) = points[20:], blocks
            product = some.products(x)
            assert all((product[:, j] <= some.limit(apart[20:, j])).all() for j in range(300))
            closer = torch.stack([product[:, j] <= some.limit(apart[20:, j] - loss * apart[20:, j].clamp(min=1)) for j in range(300)], 1)
            assert closer.double().mean() < 0.5


@pytest.mark.parametrize("seed", range(3))
def test_rows_that_float32_can_not_tell_apart(seed):
    """400 rows around one point far from the others: their distances to it differ far below what float32 products resolve."""
    rng = np.random.default_rng(seed)
    centre = rng.standard_normal((1, 30)) * 100
    tight = (centre + 1e-4 * rng.standard_normal((400, 30))).astype(np.float32)
    far = (rng.standard_normal((100, 30)) * 100).astype(np.float32)
    bank = ss.Bank.from_arrays(rng.permutation(np.concatenate([tight, far])))
    x = torch.from_numpy(centre.astype(np.float32)).repeat(3, 1)
    index, distance = neighbours(bank, x, 5)
    expected_index, expected = brute_nearest(bank, x, 5)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_allclose(distance, expected, rtol=1e-9)
    found, truth = pairs.closest_pairs(bank).whole, brute_pair(bank)
    assert (found.first, found.second) == (truth.first, truth.second)


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("size", [1e-38, 1e-25, 1e19, 1e30, 3e37])
def test_rows_whose_squares_float32_does_not_hold(size, flips):
    bank = ss.Bank.from_arrays((all_rows(spread_bank("float32")) * size / 8).astype(np.float32).reshape(-1, 3, 5, 4), flips=flips)
    x = bank[np.arange(0, 300, 60)] * 0.9
    index, distance = neighbours(bank, x, 7)
    expected_index, expected = brute_nearest(bank, x, 7)
    np.testing.assert_array_equal(index, expected_index)
    np.testing.assert_allclose(distance, expected, rtol=1e-12)
    for tile in (37, 4096):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pairs, "TILE", tile)
            same_pair(pairs.closest_pairs(bank).whole, brute_pair(bank))


@pytest.mark.parametrize("kind", KINDS)
def test_well_separated_rows_are_settled_without_a_second_look(kind, monkeypatch):
    """The certificate is of use: on ordinary data it is not refused, so nothing is computed twice."""
    monkeypatch.setattr(nearest._Search, "_widen", lambda *rest: pytest.fail("all rows were asked again"))
    rng = np.random.default_rng(0)
    rows = rng.uniform(-1, 1, (2_000, 1, 8, 8))
    bank = ss.Bank.from_arrays((rows * 127.5 + 127.5).astype(np.uint8) if kind == "uint8" else rows.astype(kind))
    x = torch.from_numpy(rng.uniform(-1, 1, (20, 1, 8, 8)).astype(np.float32))
    for k in (1, 10, 50):
        np.testing.assert_array_equal(neighbours(bank, x, k)[0], brute_nearest(bank, x, k)[0])


def test_sketches_leave_few_pairs_of_data_with_principal_axes(monkeypatch):
    """The sketch is of use: no tile falls back to whole rows, and boxes spare most pairs of tiles."""
    monkeypatch.setattr(pairs, "TILE", 64)
    monkeypatch.setattr(pairs, "MANY", 64)
    monkeypatch.setattr(pairs._Tile, "whole", property(lambda tile: pytest.fail("whole rows were needed")))
    seen = []
    look = pairs._Search._look
    monkeypatch.setattr(pairs._Search, "_look", lambda self, *rest: seen.append(0) or look(self, *rest))
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1_280, 100)) * np.geomspace(30, 0.01, 100)
    bank = ss.Bank.from_arrays(np.concatenate([rows, rows[:1] + 0.01]))
    found = pairs.closest_pairs(bank).whole
    assert (found.first, found.second) == (0, 1_280)
    assert len(seen) < 0.5 * 21 * 22 / 2


def test_a_row_finds_itself_first_and_never_when_told_not_to():
    rng = np.random.default_rng(0)
    bank = ss.Bank.from_arrays(rng.standard_normal((50, 1, 3, 3)).astype(np.float32), flips=True)
    own = np.arange(100)
    index, distance = neighbours(bank, bank[own], 3)
    assert index[:, 0].tolist() == own.tolist()
    assert not distance[:, 0].any()
    index, distance = neighbours(bank, bank[own], 200, without=torch.from_numpy(own % 50))
    assert index.shape == (100, 98)
    assert not (index % 50 == torch.from_numpy(own % 50)[:, None]).any()
    assert (distance.diff(dim=1) >= 0).all()


def test_one_row_has_no_neighbour():
    bank = ss.Bank.from_arrays(np.ones((1, 1, 2, 2), np.float32), flips=True)
    index, distance = neighbours(bank, torch.zeros(4, 1, 2, 2), 5)
    assert index.tolist() == [[0, 1]] * 4
    torch.testing.assert_close(distance, torch.full((4, 2), 2.0, dtype=torch.float64))
    index, distance = neighbours(bank, torch.zeros(4, 1, 2, 2), 5, without=torch.zeros(4, dtype=torch.int64))
    assert (index.shape, distance.shape) == ((4, 0), (4, 0))
    assert pairs.closest_pairs(bank).whole == NO_PAIR
    assert neighbours(bank, torch.zeros(0, 1, 2, 2), 1)[0].shape == (0, 1)


def test_constant_data_is_answered_at_once():
    bank = ss.Bank.from_arrays(np.full((3_000, 1, 4, 4), 7, np.uint8))
    begun = time.process_time()
    found = pairs.closest_pairs(bank)
    assert (found.whole, found.distinct) == (Pair(0.0, 0, 1), NO_PAIR)
    assert len(found.duplicates) == 2_999
    assert neighbours(bank, bank[np.array([5])], 3)[0].tolist() == [[0, 1, 2]]
    assert time.process_time() - begun < 5  # pair by pair it would be minutes


def test_copies_are_those_of_equal_value():
    rows = np.array([[0.0, 1.0], [-0.0, 1.0], [0.0, 1.0], [1.0, 0.0]], np.float32)
    found = pairs.closest_pairs(ss.Bank.from_arrays(rows.reshape(4, 1, 1, 2), flips=True))
    assert found.duplicates.tolist() == [[1, 0], [2, 0]]  # a mirror image is no copy
    assert found.whole == Pair(0.0, 0, 1)
    assert found.distinct == Pair(pytest.approx(2**0.5), 0, 3)


def test_progress_reaches_its_end():
    told = []
    pairs.closest_pairs(spread_bank("uint8"), progress=lambda *state: told.append(state))
    for stage in ("rows", "pairs"):
        done = [state[1] for state in told if state[0] == stage]
        assert done == sorted(done)
        assert (stage, done[-1], done[-1]) in told


def test_points_that_can_not_be_asked_for_are_refused():
    bank = spread_bank("uint8")
    x = bank[np.arange(4)]
    with pytest.raises(ss.InputError, match=r"shape \(60,\) do not match the bank's rows \(3, 5, 4\)"):
        neighbours(bank, x.reshape(4, 60), 1)
    x[2, 0, 0, 0], x[3] = torch.nan, torch.inf
    with pytest.raises(ss.InputError, match=r"points 2, 3 contain NaN or Inf, .*\(2 of 4\)"):
        neighbours(bank, x, 1)
    with pytest.raises(ss.InputError, match="k of at least 1"):
        neighbours(bank, x[:2], 0)


def drawn_bank(kind, flips):
    """2,000 rows with a steep spectrum, 100 copies, rows a hair apart, and rows of nearly nothing."""
    rng = np.random.default_rng(5)
    x = rng.standard_normal((2_000, 3, 6, 8)) @ np.diag(np.geomspace(1, 0.02, 8))
    x += rng.standard_normal((2_000, 3, 1, 1))
    x[1_000:1_100] = x[:100]
    x[1_100:1_150] = x[100:150] + 1e-3 * rng.standard_normal((50, 3, 6, 8))
    x[1_150:1_200] = x[150:200][..., ::-1]
    x[1_200:1_210] *= 1e-3
    stored = (x * 20 + 128).clip(0, 255).astype(np.uint8) if kind == "uint8" else (x + 3).astype(kind)
    return ss.Bank.from_arrays(stored, flips=flips)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sketched_neighbours_are_those_of_a_brute_force(kind, flips, alone, monkeypatch):
    """Rows, copies, points between rows and far from all, more of them than sketches cost; small blocks; and points that are given up."""
    bank, rng = drawn_bank(kind, flips), np.random.default_rng(1)
    own = np.concatenate([np.arange(0, 30), np.arange(1_000, 1_030), np.arange(1_195, 1_210), rng.integers(2_000, size=15)])
    x = bank[own]
    x[::3] += 0.1 * torch.randn(x[::3].shape, generator=torch.Generator().manual_seed(0))
    x[1] *= 40
    of = Axes.of
    monkeypatch.setattr(Axes, "of", lambda *given: replace(of(*given), useful=True))
    monkeypatch.setattr(nearest, "LONGEST", 1)
    monkeypatch.setattr(nearest, "SKETCHES", 700)
    monkeypatch.setattr(nearest, "QUERIES", 37)
    given_up = []
    widen = nearest._Search._widen
    monkeypatch.setattr(nearest._Search, "_widen", lambda self, *rest: given_up.append(len(left := widen(self, *rest))) or left)
    without = torch.from_numpy(own) if alone else None
    for settle in (32, 10**9):
        monkeypatch.setattr(nearest, "SETTLE", settle)
        for k in (1, 7):
            index, distance = neighbours(bank, x, k, without=without)
            expected_index, expected = brute_nearest(bank, x, k, without)
            np.testing.assert_array_equal(index, expected_index)
            np.testing.assert_allclose(distance, expected, rtol=1e-12, atol=1e-12)
    assert nearest._known[bank][CPU][1] is not None
    assert any(given_up)


def test_sketches_are_not_made_where_they_tell_nothing_or_few_points_are_asked_for():
    rng = np.random.default_rng(0)
    noise = ss.Bank.from_arrays(rng.standard_normal((2_000, 400)).astype(np.float32))
    smooth = ss.Bank.from_arrays((rng.standard_normal((2_000, 400)) * np.geomspace(1, 1e-3, 400)).astype(np.float32))
    for bank, of_use in ((noise, False), (smooth, True)):
        neighbours(bank, bank[np.arange(200)], 1)
        assert nearest._known[bank][CPU][1] is None
        neighbours(bank, bank[np.arange(200)], 1)
        assert (nearest._known[bank][CPU][1] is not None) is of_use


def test_sketches_keep_no_bank_in_memory():
    rows = np.random.default_rng(0).standard_normal((2_000, 400)) * np.geomspace(1, 1e-3, 400)
    bank = ss.Bank.from_arrays(rows.astype(np.float32))
    neighbours(bank, bank[np.arange(300)], 1)
    assert nearest._known[bank][CPU][1] is not None
    alive = weakref.ref(bank)
    del bank
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_sketches_in_float32_are_off_by_no_more_than_they_say(kind, flips):
    bank = drawn_bank(kind, flips)
    sketches = Sketches(bank, CPU)
    sketches.take(0, np.asarray(bank.rows))
    for side, rows in zip(sketches.sides, torch.from_numpy(all_rows(bank)).split(2_000), strict=True):
        exact = sketches.axes.sketch(sketches.axes.units.scaled(rows))
        assert ((side - exact).norm(dim=1) <= sketches.slack).all()
    assert sketches.off < 2 * PRECISE


@pytest.mark.parametrize("flips", [False, True])
def test_of_points_beyond_float32_no_row_is_named_twice(flips):
    bank = ss.Bank.from_arrays(np.random.default_rng(0).standard_normal((9, 1, 2, 3)).astype(np.float32), flips=flips)
    index, _ = ss.neighbours(bank, torch.full((1, 1, 2, 3), 1e54, dtype=torch.float64), len(bank), without=torch.tensor([3]))
    others = [row for row in range(len(bank)) if row % 9 != 3]
    assert sorted(index[0].tolist()) == others
