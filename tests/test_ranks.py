"""What ranks tell each other makes of their partials what `Partial.merge` makes of them."""

from __future__ import annotations

import threading
from dataclasses import fields
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from scorescope.empirical.partial import Partial
from scorescope.empirical.ranks import Ranks
from tests.definition import partial_of


class Threads(Ranks):
    """Ranks that are threads of the test."""

    def __init__(self, rank: int, table: list[Tensor | None], barrier: threading.Barrier) -> None:
        self.rank, self.table, self.barrier = rank, table, barrier

    def share(self, rows: int) -> range:
        raise AssertionError("not asked here")

    def _all(self, x: Tensor) -> Tensor:
        self.table[self.rank] = x
        self.barrier.wait(10)
        every = torch.stack(self.table)
        self.barrier.wait(10)
        return every

    def largest(self, x: Tensor) -> Tensor:
        return self._all(x).amax(0)

    def total(self, x: Tensor) -> Tensor:
        return self._all(x).sum(0)

    def refuse_different(self, what: str, *values: Tensor | None) -> None:
        raise AssertionError("not asked here")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 20), st.integers(2, 4))
def test_ranks_merge_as_partials_do(seed, n, count):
    rng = torch.Generator().manual_seed(seed)
    logit = 30 * torch.randn(3, n, generator=rng, dtype=torch.float64)
    x = torch.randn(n, 2, generator=rng, dtype=torch.float64)
    ends = [0, *sorted(torch.randint(0, n + 1, (count - 1,), generator=rng).tolist()), n]

    def part(start: int, stop: int) -> Partial:
        if start == stop:
            return Partial.nothing(3, 2, "cpu")
        made = partial_of(logit[:, start:stop], x[start:stop], torch.arange(start, stop))
        made.ratio = 1 + torch.randn(3, generator=rng, dtype=torch.float64)
        made.doubt, made.error = 1e-3 * made.mass, 1e-2 * made.mass
        return made

    parts = [part(start, stop) for start, stop in pairwise(ends)]
    expected = Partial.nothing(3, 2, "cpu")
    for one in parts:
        expected = expected.merge(one)
    mean, seen = expected.moment / expected.mass[:, None], [one for one in parts if bool((one.mass > 0).all())]
    away = [(one.moment / one.mass[:, None] - mean).norm(dim=1) for one in seen]
    bound = sum((one.peak - expected.peak).exp() * one.mass * (1e-2 + 1e-3 * off) for one, off in zip(seen, away, strict=True))
    table, barrier, found = [None] * count, threading.Barrier(count), [None] * count

    def merge(rank: int) -> None:
        found[rank] = Threads(rank, table, barrier).merge(parts[rank])

    threads = [threading.Thread(target=merge, args=(rank,)) for rank in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for merged in found:
        # Every change of the mean on the way adds to a bound, and ranks change it once.
        torch.testing.assert_close(merged.error, bound, rtol=1e-9, atol=1e-12)
        for field in (field for field in fields(Partial) if field.name != "error"):
            torch.testing.assert_close(getattr(merged, field.name), getattr(expected, field.name), rtol=1e-9, atol=1e-12)
