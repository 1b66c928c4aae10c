"""Nomination: which rows can matter to which states, by approximate logits with a proven bound on their error.

A row can matter to the posterior if its logit comes within `margin` of the largest, and to r* if no other row is surely nearer to the
shell. Both are tested with the error of the products on either side, so a row that is not nominated is certain not to matter. States to
which many rows matter are named instead of listed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorescope.empirical import compiled
from scorescope.empirical.digits.family import Family, States
from scorescope.empirical.digits.products import Products, Tile
from scorescope.empirical.ranks import Ranks
from scorescope.empirical.digits.shelf import Readable, Shelf
from scorescope.search.products import U32, U64

VALUES = 1 << 20  # logits of one step: what the caches of a processor hold
CROWD = 16  # a list holds so many times what is few, since what matters is known at the end of the pass alone,
CAPACITY = 2048  # but no more than this without need
KNOWN = 50.0  # nats to within which logits must be known to say anything about shares
ROOM = 4  # a long list holds so many times what is left of it
SLACK = 1e-6  # of itself, more than what a list in float32 rounds a value by


@dataclass
class Nominations:
    """For states flattened to Q = P·T: `state`, `row` (M,) pairs that can matter to the posterior; `near_state`, `near_row` to r*.

    Attributes:
        peak: (Q,) float64 largest approximate logit, off by at most `error` (Q,).
        many: (Q,) more rows matter to the posterior than are listed; none is among the pairs.
        many_near: (Q,) the same for r*.
        some: (Q,) those with more rows than pairs are made of, but not too many: they are in `lists`.
    """

    state: Tensor
    row: Tensor
    near_state: Tensor
    near_row: Tensor
    peak: Tensor
    error: Tensor
    many: Tensor
    many_near: Tensor
    some: Tensor
    lists: Lists | None


def error_of(family: Family, shelf: Readable, unit: float, rest: bool = True) -> Tensor:
    """(P, T) bound on the error of a logit from a family's products: what the digits leave, and rounding with unit `unit`.

    What differs from row to row is not in it: what the digits of float rows leave, and those of states if it was shaped. Without `rest`,
    neither is any of that of the states'.
    """
    states = family.states
    left = family.astray(shelf.count) * (shelf.reach if rest and family.grain is None else 0.0)
    if shelf.exact:
        left = left + (states.norm + family.rest) * shelf.rounded
    terms = (family.norms.shape[1] + 6) * unit
    return states.slope * (left + terms * _size(family) * shelf.reach) + terms * states.curve * shelf.reach**2


def rounding(states: States, shelf: Shelf) -> Tensor:
    """(P, T) bound on what float64 rounds of a logit that is made of products."""
    terms = (states.d + 8) * U64
    return terms * (states.slope * states.norm * (shelf.reach + states.centre.norm()) + states.curve * shelf.reach**2)


def asked(states: States, z: Tensor, shelf: Shelf) -> Tensor:
    """(B,) bound on what `compiled` leaves of a logit where single 8-bit rows are asked, beside `rounding`; `z` are the states' `sides`.

    Values of such rows are digits but for their rounding to float32, and states are digits, too, where the processor multiplies these.
    """
    left = z[0].abs().amax(1) * (compiled.LEFT * states.d**0.5)
    return states.slope[:, 0] * (states.norm[:, 0] * shelf.rounded + left * shelf.reach)


def sides(states: States, shelf: Shelf) -> Tensor:
    """Centred states (B, 1, d) as (1, B, d), or with their mirror images (2, B, d) where the rows have theirs."""
    centred = states.centred[:, 0]
    return torch.stack([centred, shelf.mirror(centred)] if shelf.bank.flips else [centred])


def _size(family: Family) -> Tensor:
    """(P, T) Σ_r |C_r|‖b_r‖: a bound on the norm of every partial sum."""
    return (family.coefficients.abs() * family.norms[:, None]).sum(2) * (1 + 1e-5)


def _inside(away: Tensor) -> Tensor:
    """1 − √(1 − y), y = 2·away/d: how far from 1 the ratio of a row is whose logit is `away` above the shell's; here of y."""
    y = away.clamp(max=1)
    return y / (1 + (1 - y).sqrt())


def _outside(away: Tensor) -> Tensor:
    """√(1 + y) − 1, for a row below the shell's logit."""
    y = away.clamp(max=1e30)
    return y / (1 + (1 + y).sqrt())


def stacked(room: Tensor, groups: int, count: int, n: int) -> Tensor:
    """Room for (groups, count, n) values; the one at hand if it is of that size: fresh memory is slow to touch."""
    return room if room.shape == (groups, count, n) else torch.empty(groups, count, n, dtype=room.dtype, device=room.device)


class Lists:
    """Room for `most` rows of each of `count` states, and for their values; the worse half goes when it is full.

    The largest values are the best, or those nearest to 0. Where logits are sure, what is too much for now is so in the end, and all goes.

    Attributes:
        used: (Q,) how many rows each state has.
        dropped: (Q,) the largest value, or the least distance from 0 with its sign turned, of what went.
    """

    def __init__(self, count: int, most: int) -> None:
        self.row, self.value = torch.empty(count, most, dtype=torch.int64), torch.empty(count, most, dtype=torch.float32)
        self.used, self.dropped = torch.zeros(count, dtype=torch.int64), torch.full((count,), -torch.inf, dtype=torch.float32)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rows, values, how many there are and what went, to be written to."""
        return self.row.numpy(), self.value.numpy(), self.used.numpy(), self.dropped.numpy()

    def keep(self, least: Tensor, most: Tensor) -> None:
        """Drop what is below `least` or above `most`, (Q,) each."""
        compiled.prune(self, least.double(), most.double())

    def pairs(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """(state, row) of the states `which` (Q,) bool."""
        used = self.used * which
        state = torch.repeat_interleave(torch.arange(len(used)), used)
        return state, self.row[state, torch.arange(len(state)) - (used.cumsum(0) - used)[state]]


class Pairs:
    """The same on any device, by PyTorch: rows of all states as they were found. If not `patient`, all of a state goes, not the half."""

    def __init__(self, count: int, most: int, near: bool = False, device: torch.device | str = "cpu", patient: bool = True) -> None:
        self.most, self.near, self.patient = most, near, patient
        self.state, self.row = (torch.empty(0, dtype=torch.int64, device=device) for _ in range(2))
        self.value = torch.empty(0, dtype=torch.float32, device=device)
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []
        self.dropped = torch.full((count,), -torch.inf, dtype=torch.float32, device=device)

    @property
    def used(self) -> Tensor:
        """(Q,) how many rows each state has."""
        return torch.bincount(self.state, minlength=len(self.dropped))

    def add(self, value: Tensor, matters: Tensor, start: int, index: Tensor) -> None:
        """Those of the values (m, n) that matter, of states from `start` on and the rows `index` (n,)."""
        state, column = (matters & (self._worth(value) > self.dropped[start : start + len(value), None])).nonzero(as_tuple=True)
        self.found.append((state + start, index[column], value[state, column].float()))
        if sum(len(some) for some, *_ in self.found) > self.most * len(self.dropped) // 2:
            self._gather()

    def _worth(self, value: Tensor) -> Tensor:
        return -value.abs() if self.near else value

    def _gather(self) -> None:
        """All that was found as one; of states with too many rows the better half stays."""
        known = [(self.state, self.row, self.value), *self.found]
        self.state, self.row, self.value = (torch.cat(part) for part in zip(*known, strict=True))
        self.found = []
        used = self.used
        if not bool((used > self.most).any()):
            return
        if not self.patient:
            self.dropped[used > self.most] = torch.inf
            self._only(self.dropped[self.state] < torch.inf)
            return
        order = self._worth(self.value).argsort(descending=True)
        order = order[self.state[order].argsort(stable=True)]
        place = torch.arange(len(order), device=order.device) - (used.cumsum(0) - used)[self.state[order]]
        gone = order[(place >= self.most // 2) & (used > self.most)[self.state[order]]]
        self.dropped.scatter_reduce_(0, self.state[gone], self._worth(self.value[gone]), "amax")
        self._only(self._worth(self.value) > self.dropped[self.state])

    def _only(self, kept: Tensor) -> None:
        self.state, self.row, self.value = self.state[kept], self.row[kept], self.value[kept]

    def keep(self, least: Tensor, most: Tensor) -> None:
        """Drop what is below `least` or above `most`, (Q,) each."""
        self._gather()
        self._only((self.value >= least[self.state]) & (self.value <= most[self.state]))

    def pairs(self, which: Tensor) -> tuple[Tensor, Tensor]:
        """(state, row) of the states `which` (Q,) bool."""
        kept = which[self.state]
        return self.state[kept], self.row[kept]


class Nominator:
    """One pass of a family over the rows."""

    def __init__(
        self,
        family: Family,
        shelf: Shelf,
        margin: Tensor,
        few: int,
        ranks: Ranks,
        near: bool = True,
        paired: Tensor | int | None = None,
        some: int = 0,
        left: float = 0.0,
    ) -> None:
        self.family, self.shelf, self.few, self.ranks = family, shelf, few, ranks
        # States with more rows than `paired` (Q,) keep them in lists, up to `some`.
        self.paired, self.some, self.left = few if paired is None else paired, max(few, some), left
        states = family.states
        self.d, (p, t) = states.d, states.sigma.shape
        self.error = ranks.largest(error_of(family, shelf, U32))
        # A logit in float32: digits' coefficients, then −curve/2 for the squared norm.
        scale = states.slope[..., None] * family.coefficients * shelf.step
        # What differs from row to row moves a row's logit by no more than this times what is known of the row.
        self.grain = family.grain
        self.blur = None if shelf.exact else (states.slope * (states.norm + family.rest)).flatten().float() * (1 + 1e-5)
        if self.grain is not None:
            self.blur = (states.slope * self.grain.each).flatten().float() * (1 + 1e-5)
        self.columns = torch.cat([scale, -0.5 * states.curve[..., None]], 2).float()
        self.shell = states.shell.flatten().float()
        self.margin = (margin + 2 * self.error).flatten().float() * (1 + 1e-5)
        self.off = self.error.flatten() * (1 + 1e-5)
        most = shelf.rounded if self.grain is None else self.grain.most
        self.most_blur = torch.zeros_like(self.shell) if self.blur is None else self.blur * most
        self.steep = states.steep.flatten()  # the shell is for the pairs to look for
        self.many = states.alpha.flatten() == 0
        # Without a signal all logits are 0, and nobody looks at them.
        self.peak = torch.where(self.many, 0.0, torch.full((p * t,), -torch.inf, dtype=torch.float32, device=states.z.device))
        # (2, Q) how far above and below the shell's the nearest logits are, at most.
        self.best = torch.full((2, p * t), torch.inf, dtype=torch.float32, device=states.z.device)
        self.many_near = self.many | (not near)
        self.compiled = compiled.usable(states.z.device)
        # Where the rows are at hand, a list of near ones that is too long is asked row by row.
        self.able = self.compiled and shelf.exact and shelf.resident
        count, near_most, device = p * t, max(min(CROWD * few, CAPACITY), few, self.some if self.able else 0), states.z.device
        most = max(near_most, self.some if self.grain is None else ROOM * self.some)
        self.lists: Lists | Pairs
        self.near_lists: Lists | Pairs
        if self.compiled:
            self.lists, self.near_lists = Lists(count, most), Lists(count, near_most)
        else:
            self.lists = Pairs(count, most, device=device, patient=not shelf.exact)
            self.near_lists = Pairs(count, near_most, near=True, device=device)
        self.asleep = self.many & self.many_near
        self.room = torch.empty(0, dtype=torch.float32, device=states.z.device)

    def run(self, products: Products) -> Nominations:
        """Nominations from all tiles, and from those of the other ranks."""
        for tile in products:
            if self.compiled:
                compiled.nominate(self, tile.exact, tile.rows.square, self._vague(tile), tile.index)
            else:
                self._take(tile)
        self.peak, *best = self.ranks.largest(torch.stack([self.peak, *-self.best]))
        self.best = -torch.stack(best)
        low, high = self._asked()
        near_state, near_row, _ = self._left(self.near_lists, (-low, high), -torch.maximum(low, high), self.many_near, self.few, self.few)
        least = self.peak - self.margin
        state, row, some = self._left(self.lists, (least, torch.full_like(least, torch.inf)), least, self.many, self.paired, self.some)
        known = (self.peak.double(), self.error.flatten() + 2 * self.most_blur.double(), self.many, self.many_near)
        return Nominations(state, row, near_state, near_row, *known, some, self.lists if isinstance(self.lists, Lists) else None)

    def _vague(self, tile: Tile) -> Tensor | None:
        """(n,) what is known of the rows of a tile, for `blur`."""
        return tile.rows.rounded if self.grain is None else self.grain.texture[tile.rows.index - self.shelf.own.start]

    def _left(
        self,
        lists: Lists | Pairs,
        within: tuple[Tensor, Tensor],
        worst: Tensor,
        many: Tensor,
        paired: Tensor | int,
        limit: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The (state, row) pairs that still matter at the end of the pass, of states with at most `paired`, and which states have more.

        `many` learns which states have more than `limit`, or have lost what is as good as `worst`.
        """
        lists.keep(*within)
        gone = many | (lists.dropped >= worst)
        some = (self.ranks.total(lists.used) > paired) & ~self.steep
        if limit > self.few:  # more rows than are settled: they go on as lists
            self._thin(lists, some & ~gone)
        # What one process has given up is too many for all.
        count = self.ranks.total(lists.used + gone * (limit + 1))
        many |= (count > limit) & ~(self.steep & (lists.dropped < worst))
        some &= ~many
        return *lists.pairs(~many & ~some), some

    def _thin(self, lists: Lists | Pairs, some: Tensor) -> None:
        """Drop from the long lists of `some` (Q,) rows that together have no more than a share `left` of a state's mass."""
        assert isinstance(lists, Lists)
        error = self.error.flatten() + self.most_blur
        # Logits that are only known to within many nats say nothing about shares.
        which = (some & (error < KNOWN)).nonzero().flatten()
        compiled.thin(lists, which, self.left * (-2 * error[which]).exp())

    def _asked(self) -> tuple[Tensor, Tensor]:
        """`_limits`, after the near rows of states with too many were asked one by one: what the digits left then hides no difference."""
        low, high = self._limits()
        if not self.ranks.smallest(torch.tensor(int(self.able), device=self.off.device)):
            return low, high
        assert isinstance(self.near_lists, Lists)
        self.near_lists.keep(-low, high)
        lost = self.ranks.any(self.many_near | self.steep | (self.near_lists.dropped >= -torch.maximum(low, high)))
        which = ((self.ranks.total(self.near_lists.used) > self.few) & ~lost).nonzero().flatten()
        if not len(which):
            return low, high
        states, shelf = self.family.states.flat[which], self.shelf
        z = sides(states, shelf)
        away = compiled.differences(states, z, self.near_lists, which, shelf)
        self.best[:, which] = -self.ranks.largest(-away).float()
        self.off[which] = rounding(states, shelf)[:, 0] + asked(states, z, shelf) + SLACK * (1 + torch.maximum(low, high)[which])
        self.most_blur[which] = 0.0
        return self._limits()

    def _limits(self) -> tuple[Tensor, Tensor]:
        """(Q,) float64 how far below and above the shell's the logit of a row can be that is nearest to it, in |ratio − 1|."""
        high, low = ((away.double() + self.off) * (2 / self.d) for away in self.best)
        # Close to the shell products do not tell on which side of it a row is.
        sure = self.best > 2 * self.most_blur + self.off
        inner = torch.maximum(_inside(high), torch.where(sure[0], 0.0, _outside(high))).masked_fill(self.best[0].isinf(), torch.inf)
        outer = torch.maximum(_outside(low), torch.where(sure[1], 0.0, _inside(low)))
        off = torch.minimum(inner, outer) * (1 + 1e-5)
        return self.d * off * (2 + off) / 2 + self.off, self.d * off.clamp(max=1) * (2 - off.clamp(max=1)) / 2 + self.off

    def _take(self, tile: Tile) -> None:
        """Logits of one tile, some groups at a time."""
        (p, r), t, n = self.family.norms.shape, self.columns.shape[1], len(tile.rows.q)
        exact, family = tile.exact, self.family
        square, groups = tile.rows.square.float(), max(1, VALUES // (n * max(t, r + 1)))
        for start in range(0, p, groups):
            part = slice(start, min(start + groups, p))
            which = slice(part.start * t, part.stop * t)
            if bool(self.asleep[which].all()):
                continue
            if r == 1 and t == 1:
                logit = family.products(exact, part)[:, 0].float().mul_(self.columns[part, 0, :1])
                logit.addcmul_(self.columns[part, 0, 1:], square)
            else:
                self.room = stack = stacked(self.room, part.stop - part.start, r + 1, n)
                stack[:, :r], stack[:, r] = family.products(exact, part), square
                logit = torch.bmm(self.columns[part], stack).flatten(0, 1)
            self._keep(logit, which, tile)

    def _keep(self, logit: Tensor, which: slice, tile: Tile) -> None:
        """Note the rows of (m, n) logits that can matter by what is known so far."""
        above = torch.sub(logit, self.shell[which, None])
        away, blur = above.abs(), None
        vague = self._vague(tile)
        if self.blur is not None and vague is not None:
            blur = torch.outer(self.blur[which], vague.float())
        torch.maximum(self.peak[which], (logit if blur is None else logit - blur).amax(1), out=self.peak[which])
        for side, inner in enumerate((True, False)):
            sure = torch.where((above >= 0) == inner, away if blur is None else away + blur, torch.inf).amin(1)
            torch.minimum(self.best[side, which], sure, out=self.best[side, which])
        # A row counts at its best.
        logit = logit if blur is None else logit.add_(blur)
        assert isinstance(self.lists, Pairs)
        assert isinstance(self.near_lists, Pairs)
        self.lists.add(logit, logit >= (self.peak - self.margin)[which, None], which.start, tile.index)
        low, high = (limit[which, None].float() * (1 + 1e-6) for limit in self._limits())
        above = above if blur is None else above.sign() * (away - blur).clamp(min=0)
        self.near_lists.add(above, (above <= high) & (above >= -low) & ~self.steep[which, None], which.start, tile.index)
