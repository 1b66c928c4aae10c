"""The first look at all rows: which of them can matter to which states, by logits with a proven bound on their error.

A row can matter to the posterior if its logit comes within `margin` of the largest, and to r* if no other row is surely nearer to the
shell. Both are tested with the error of the logits on either side, so a row that is not listed is certain not to matter. States to
which more rows matter than are worth asking one by one are named instead of listed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.empirical.products import Logits, Tile
from scorescope.empirical.ranks import Ranks
from scorescope.search.products import U32

ROOM = 4  # a list holds so many times what is few, since what matters is known at the end of the pass alone
SLACK = 1e-6  # of itself, more than what float32 rounds a limit by


@dataclass
class Found:
    """For B states: `state`, `row` (M,) pairs that can matter to the posterior; `near_state`, `near_row` to r*.

    Attributes:
        many: (B,) more rows matter to the posterior than are listed; none is among the pairs.
        many_near: (B,) the same for r*.
    """

    state: Tensor
    row: Tensor
    near_state: Tensor
    near_row: Tensor
    many: Tensor
    many_near: Tensor


class Lists:
    """The best rows of each of `count` states, at most `most` at the end of a pass.

    The largest values are the best, or if `near` those nearest to 0. Of a list that is too long the worse half goes; all of it if
    `sure`, where what is added is known to be good enough at the end.

    Attributes:
        dropped: (B,) the largest value, or the least distance from 0 with its sign turned, of what went.
    """

    def __init__(self, count: int, most: int, near: bool, sure: bool, device: torch.device) -> None:
        self.most, self.near, self.sure, self.room = most, near, sure, most * count // 2
        self.state, self.row = (torch.empty(0, dtype=torch.int64, device=device) for _ in range(2))
        self.value = torch.empty(0, dtype=torch.float32, device=device)
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []
        self.dropped = torch.full((count,), -torch.inf, dtype=torch.float32, device=device)
        self.added = torch.zeros(count, dtype=torch.int64, device=device)

    def worth(self, value: Tensor) -> Tensor:
        """How good values are."""
        return -value.abs() if self.near else value

    def add(self, value: Tensor, least: Tensor, state: Tensor, index: Tensor) -> None:
        """Those of the values (m, n) of states (m,) and rows `index` (n,) that are at least as good as `least` (m,)."""
        wanted = torch.maximum(least, torch.nextafter(self.dropped[state], torch.full_like(least, torch.inf)))
        good = self.worth(value) >= wanted[:, None]
        self.added[state] += good.sum(1)
        if self.sure:
            over = self.added[state] > self.most
            self.dropped[state[over]] = torch.inf
            kept = over.logical_not().nonzero().flatten()
            if len(kept) < len(state):
                value, state, good = value[kept], state[kept], good[kept]
        which, column = good.nonzero(as_tuple=True)
        self.found.append((state[which], index[column], value[which, column]))
        if not self.sure and int(self.added.sum()) > self.room:
            self.gather()
            self.room = max(self.room, 2 * int(self.added.sum()))  # each is sorted a few times at most

    def gather(self, least: Tensor | None = None) -> None:
        """All that was found as one, but what is worse than `least` (B,); of states with too many rows the better half stays."""
        known = [(self.state, self.row, self.value), *self.found]
        self.state, self.row, self.value = (torch.cat(part) for part in zip(*known, strict=True))
        self.found = []
        worth = self.worth(self.value)
        self.only((worth > self.dropped[self.state]) & (True if least is None else worth >= least[self.state]))
        used = self.used
        if bool((used > self.most).any()):
            order = self.worth(self.value).argsort(descending=True)
            order = order[self.state[order].argsort(stable=True)]
            place = torch.arange(len(order), device=order.device) - (used.cumsum(0) - used)[self.state[order]]
            gone = order[(place >= self.most // 2) & (used > self.most)[self.state[order]]]
            self.dropped.scatter_reduce_(0, self.state[gone], self.worth(self.value[gone]), "amax")
            self.only(self.worth(self.value) > self.dropped[self.state])
        self.added = self.used

    @property
    def used(self) -> Tensor:
        """(B,) how many rows each state has."""
        return torch.bincount(self.state, minlength=len(self.dropped))

    def only(self, kept: Tensor) -> None:
        """Forget all others."""
        self.state, self.row, self.value = self.state[kept], self.row[kept], self.value[kept]


def limits(inner: Tensor, outer: Tensor, off: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """(B,) how far above and below the shell's the logit of a row can be that is nearest to it, in |ratio − 1|.

    The nearest on the inner and outer side have logits that are `inner` and `outer` away from the shell's, but for an error of `off`:
    ratio² = 1 − 2·inner/d and 1 + 2·outer/d.
    """
    high, low = (inner + off) * (2 / d), (outer + off) * (2 / d)
    # Close to the shell logits do not tell on which side of it a row is.
    near_inner = torch.maximum(_inside(high), torch.where(inner > off, 0.0, _outside(high))).masked_fill(inner.isinf(), torch.inf)
    near_outer = torch.maximum(_outside(low), torch.where(outer > off, 0.0, _inside(low)))
    away = torch.minimum(near_inner, near_outer) * (1 + 1e-5)
    inside = away.clamp(max=1)
    return d * inside * (2 - inside) / 2 + off, d * away * (2 + away) / 2 + off


def _inside(y: Tensor) -> Tensor:
    """1 − √(1 − y), y = 2·away/d: how far from 1 the ratio of a row is whose logit is `away` above the shell's."""
    y = y.clamp(max=1)
    return y / (1 + (1 - y).sqrt())


def _outside(y: Tensor) -> Tensor:
    """√(1 + y) − 1, for a row below the shell's logit."""
    y = y.clamp(max=1e30)
    return y / (1 + (1 + y).sqrt())


class Screen:
    """One pass over the rows: `margin` (B,) nats, at most `few` rows a state; without `near` nothing is listed for r*."""

    def __init__(self, logits: Logits, margin: Tensor, few: int, ranks: Ranks, near: bool = True) -> None:
        self.logits, self.products, self.few, self.ranks, self.near = logits, logits.products, few, ranks, near
        states, count, device = logits.family.states, len(logits.family.states), logits.family.states.z.device
        self.steep, self.d = states.steep, states.d
        self.error = ranks.largest(logits.error(U32))
        self.margin = ((margin + 2 * self.error) * (1 + 1e-5)).float()
        self.peak = torch.full((count,), -torch.inf, dtype=torch.float32, device=device)
        # Least distances of logits from the shell's, inside and outside; then what those of the nearest can be, above and below it.
        self.best = torch.full((2, count), torch.inf, dtype=torch.float32, device=device)
        self.high, self.low = torch.full_like(self.best, torch.inf)
        # Where products are kept they are looked at twice: first for what is best, then for what is good enough.
        self.twice = self.products.keeps
        most = few if self.twice else ROOM * few
        self.lists, self.near_lists = (Lists(count, most, side, self.twice, device) for side in (False, True))

    def run(self) -> Found:
        """What can matter, of one's own rows; what is few is so in all ranks together."""
        seen = list[tuple[Tensor, Tensor]]()
        for tile in self.products:
            for groups, part in self.logits.parts(len(tile.index)):
                above = self.logits.of(tile, groups, torch.float32)
                seen.append(self._best(above, part))
                if not self.twice:
                    self._list(*seen.pop(), part, tile, above)
        if self.twice:
            self._limit(slice(None))
        for tile in self.products if self.twice else ():
            for _, part in self.logits.parts(len(tile.index)):
                self._list(*seen.pop(0), part, tile)
        self.peak, *best = self.ranks.largest(torch.stack([self.peak, *-self.best]))
        self.best = -torch.stack(best)
        self._limit(slice(None))
        least = self._least(slice(None))
        many, state, row = self._left(self.lists, least)
        if not self.near:
            none = torch.empty(0, dtype=torch.int64, device=many.device)
            return Found(state, row, none, none, many, torch.zeros_like(many))
        nearest = self.near_lists
        nearest.gather(-torch.maximum(self.low, self.high))
        nearest.only((nearest.value <= self.high[nearest.state]) & (nearest.value >= -self.low[nearest.state]))
        many_near, near_state, near_row = self._left(nearest, -torch.maximum(self.low, self.high))
        return Found(state, row, near_state, near_row, many, many_near & ~self.steep)

    def _left(self, lists: Lists, least: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which states have more than a few rows that are as good as `least`, and the (state, row) pairs of the others."""
        lists.gather(least)
        # What one process has given up is too many for all.
        many = self.ranks.total(lists.used + (lists.dropped >= least) * (self.few + 1)) > self.few
        kept = (~many[lists.state]).nonzero().flatten()
        kept = kept[lists.worth(lists.value[kept]).argsort(descending=True)]  # the best first
        return many, lists.state[kept], lists.row[kept]

    def _least(self, part: slice) -> Tensor:
        """How large a logit must be that can matter."""
        least = self.peak[part] - self.margin[part]
        return least - SLACK * least.abs()

    def _limit(self, part: slice) -> None:
        low, high = (self.best[side, part].double() for side in (1, 0))
        high, low = limits(high, low, self.error[part], self.d)
        self.high[part], self.low[part] = (high * (1 + SLACK)).float(), (low * (1 + SLACK)).float()

    def _best(self, above: Tensor, part: slice) -> tuple[Tensor, Tensor]:
        """Take in what is best among (m, n) logits: (m,) the largest, and how near to the shell's the nearest is."""
        top = above.amax(1)
        torch.maximum(self.peak[part], top, out=self.peak[part])
        near = -top  # where all are below the shell's
        if not self.near:
            return top, near
        inside = ((top >= 0) & ~self.steep[part]).nonzero().flatten()
        sides = torch.stack([torch.full_like(near, torch.inf), near.masked_fill(top >= 0, torch.inf)])
        if len(inside):
            some = above if len(inside) == len(top) else above[inside]
            for side, x in ((1, some), (0, some.neg())):
                # Read as whole numbers, negative ones come first, and of these the one nearest to 0.
                found = x.view(torch.int32).amin(1).view(torch.float32)
                sides[side, inside] = torch.where(found.signbit(), -found, torch.inf)
            near = sides.amin(0)
        if self.twice or bool((near <= torch.maximum(self.high[part], self.low[part])).any()):
            self.best[:, part] = torch.minimum(self.best[:, part], sides.masked_fill_(self.steep[part], torch.inf))
            if not self.twice:
                self._limit(part)
        return top, near

    def _list(self, top: Tensor, near: Tensor, part: slice, tile: Tile, above: Tensor | None = None) -> None:
        """List those of the logits (m, n) of a tile that can matter by what is known so far; they are made for states that have such."""
        least, limit = self._least(part), torch.maximum(self.high[part], self.low[part]).masked_fill(self.steep[part], -torch.inf)
        wanted = [(self.lists, top, least), (self.near_lists, -near, -limit)][: 1 + self.near]
        hits = [(best >= least) & (best > lists.dropped[part]) for lists, best, least in wanted]
        which = torch.stack(hits).any(0).nonzero().flatten()
        if not len(which):
            return
        above = self.logits.of_states(tile, part.start + which, torch.float32) if above is None else above[which]
        for (lists, _, least), hit in zip(wanted, hits, strict=True):
            own = hit[which].nonzero().flatten()
            if len(own):
                state = which[own]
                lists.add(above if len(own) == len(which) else above[own], least[state], part.start + state, tile.index)
