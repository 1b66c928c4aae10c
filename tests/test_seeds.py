"""Randomness belongs to the item: whoever draws, in whatever order and company, an item gets the same numbers."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from scorescope import seeds

SEEDS = st.integers(0, 2**64 - 1)


@given(seed=SEEDS, items=st.lists(st.integers(0, 2**40), min_size=1, max_size=8), step=st.integers(0, 10**6), data=st.data())
def test_an_item_does_not_know_its_batch_nor_its_place(seed, items, step, data):
    together = seeds.normal(seed, "path", items, (2, 3), step)
    order = data.draw(st.permutations(range(len(items))))
    shuffled = seeds.normal(seed, "path", [items[k] for k in order], (2, 3), step)
    assert torch.equal(shuffled, together[list(order)])
    cut = data.draw(st.integers(0, len(items)))
    parts = [seeds.normal(seed, "path", part, (2, 3), step) for part in (items[:cut], items[cut:])]
    assert torch.equal(torch.cat(parts), together)
    assert seeds.choose(seed, "row", items, 10).tolist() == [int(seeds.choose(seed, "row", [item], 10)[0]) for item in items]


@given(
    one=st.tuples(SEEDS, st.sampled_from(["path", "train", "row"]), st.integers(0, 2**40), st.integers(0, 10**6)),
    other=st.tuples(SEEDS, st.sampled_from(["path", "train", "row"]), st.integers(0, 2**40), st.integers(0, 10**6)),
)
def test_other_names_give_other_numbers(one, other):
    drawn = [seeds.generator(*name).integers(2**62, size=4).tolist() for name in (one, other)]
    assert (drawn[0] == drawn[1]) == (one == other)


def test_neighbouring_streams_do_not_run_into_each_other():
    """Each stream would have to be 2¹²⁸ blocks long to reach the next step's."""
    first, second = (seeds.generator(0, "path", 0, step).integers(2**62, size=20_000) for step in (0, 1))
    assert not set(first.tolist()) & set(second.tolist())
    assert len({int(seeds.generator(0, "path", item, step).integers(2**62)) for item in range(3_000) for step in range(3)}) == 9_000


def test_normals_are_normal_along_items_and_within_them():
    noise = seeds.normal(7, "path", range(2_000), (16,)).numpy()
    assert noise.dtype == np.float32
    assert stats.kstest(noise[:, 0], "norm").pvalue > 1e-3
    assert stats.kstest(noise.ravel(), "norm").pvalue > 1e-3
    correlation = np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]
    assert abs(correlation) < 4 / noise.size**0.5


def test_choices_are_even():
    counts = np.bincount(seeds.choose(3, "row", range(7_000), 7), minlength=7)
    assert stats.chisquare(counts).pvalue > 1e-3


def test_no_items_give_no_numbers():
    assert seeds.normal(0, "path", [], (1, 4, 4)).shape == (0, 1, 4, 4)
    assert seeds.choose(0, "row", [], 5).shape == (0,)


def test_a_published_seed_keeps_its_meaning():
    """Philox with key (seed, purpose) and counter (0, 0, step, item)."""
    assert seeds.generator(1, "path", 2, 3).integers(1000, size=5).tolist() == [350, 827, 571, 431, 136]
