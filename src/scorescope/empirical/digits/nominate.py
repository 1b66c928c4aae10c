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

from scorescope.empirical.digits import compiled
from scorescope.empirical.digits.family import Family, States
from scorescope.empirical.digits.products import Products, Tile
from scorescope.empirical.digits.shelf import Readable, Shelf
from scorescope.search.products import U32, U64

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
    lists: Lists


def error_of(family: Family, shelf: Readable, unit: float, rest: bool = True) -> Tensor:
    """(P, T) bound on the error of a logit from a family's products: what the digits leave, and rounding with unit `unit`.

    What differs from row to row is not in it: what the digits of rows leave where they are not the rows, and those of states if it was
    shaped. Without `rest`, neither is any of that of the states'.
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
    """(B,) bound on what `compiled` leaves of a logit where single rows are asked, beside `rounding`; `z` are the states' `sides`.

    Values of rows are digits but for their rounding to float32, and states are digits, too, where the processor multiplies these.
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


class Nominator:
    """One pass of a family over the rows.

    Args:
        family: The states and what their digits are.
        shelf: The rows.
        margin: (P, T) how far below the largest logit a row may be that can matter.
        few: Rows of a state that are settled, at most.
        near: Whether rows are wanted that can matter to r*.
        paired: (Q,) rows of a state that become pairs, at most; `few` unless given. States with more keep them in lists.
        some: Rows of such a list, at most.
        left: Share of a state's mass that its list may lack.
    """

    def __init__(
        self,
        family: Family,
        shelf: Shelf,
        margin: Tensor,
        few: int,
        near: bool = True,
        paired: Tensor | None = None,
        some: int = 0,
        left: float = 0.0,
    ) -> None:
        self.family, self.shelf, self.few, self.ranks = family, shelf, few, shelf.ranks
        self.paired, self.some, self.left = few if paired is None else paired, max(few, some), left
        states = family.states
        self.d, count = states.d, states.sigma.numel()
        self.error = self.ranks.largest(error_of(family, shelf, U32))
        # A logit in float32: digits' coefficients, then −curve/2 for the squared norm.
        scale = states.slope[..., None] * family.coefficients * shelf.step
        self.columns = torch.cat([scale, -0.5 * states.curve[..., None]], 2).float()
        self.shell = states.shell.flatten().float()
        self.margin = (margin + 2 * self.error).flatten().float() * (1 + 1e-5)
        self.off = self.error.flatten() * (1 + 1e-5)
        # What differs from row to row moves a row's logit by no more than this times what is known of the row.
        self.blur, self.most_blur, most = None, torch.zeros_like(self.shell), self.some
        if family.grain is not None:
            self.blur = (states.slope * family.grain.each).flatten().float() * (1 + 1e-5)
            self.most_blur, most = self.blur * family.grain.most, ROOM * self.some
        self.near_blur = self.most_blur.clone()  # of the near rows: less where these are asked one by one
        self.steep = states.steep.flatten()  # the shell is for the pairs to look for
        self.many = states.alpha.flatten() == 0
        # Without a signal all logits are 0, and nobody looks at them.
        self.peak = torch.where(self.many, 0.0, torch.full_like(self.shell, -torch.inf))
        # (2, Q) how far above and below the shell's the nearest logits are, at most.
        self.best = torch.full((2, count), torch.inf, dtype=torch.float32, device=states.z.device)
        self.many_near = self.many | (not near)
        # A list of near ones that is too long is asked row by row.
        near_most = max(min(CROWD * few, CAPACITY), self.some)
        self.lists, self.near_lists = Lists(count, max(near_most, most)), Lists(count, near_most)

    def run(self, products: Products) -> Nominations:
        """Nominations from all tiles, and from those of the other ranks."""
        for tile in products:
            compiled.nominate(self, tile.exact, tile.rows.square, self._vague(tile), tile.index)
        self.peak, *best = self.ranks.largest(torch.stack([self.peak, *-self.best]))
        self.best = -torch.stack(best)
        low, high = self._asked()
        near_state, near_row, _ = self._left(self.near_lists, (-low, high), -torch.maximum(low, high), self.many_near, self.few, self.few)
        least = self.peak - self.margin
        state, row, some = self._left(self.lists, (least, torch.full_like(least, torch.inf)), least, self.many, self.paired, self.some)
        known = (self.peak.double(), self.error.flatten() + 2 * self.most_blur.double(), self.many, self.many_near)
        return Nominations(state, row, near_state, near_row, *known, some, self.lists)

    def _vague(self, tile: Tile) -> Tensor | None:
        """(n,) what is known of the rows of a tile, for `blur`."""
        grain = self.family.grain
        return None if grain is None else grain.texture[tile.rows.index - self.shelf.own.start]

    def _left(
        self,
        lists: Lists,
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

    def _thin(self, lists: Lists, some: Tensor) -> None:
        """Drop from the long lists of `some` (Q,) rows that together have no more than a share `left` of a state's mass."""
        error = self.error.flatten() + self.most_blur
        # Logits that are only known to within many nats say nothing about shares.
        which = (some & (error < KNOWN)).nonzero().flatten()
        compiled.thin(lists, which, self.left * (-2 * error[which]).exp())

    def _asked(self) -> tuple[Tensor, Tensor]:
        """`_limits`, after the near rows of states with too many were asked one by one: what the digits left then hides no difference."""
        low, high = self._limits()
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
        self.near_blur[which] = 0.0
        return self._limits()

    def _limits(self) -> tuple[Tensor, Tensor]:
        """(Q,) float64 how far below and above the shell's the logit of a row can be that is nearest to it, in |ratio − 1|."""
        high, low = ((away.double() + self.off) * (2 / self.d) for away in self.best)
        # Close to the shell products do not tell on which side of it a row is.
        sure = self.best > 2 * self.near_blur + self.off
        inner = torch.maximum(_inside(high), torch.where(sure[0], 0.0, _outside(high))).masked_fill(self.best[0].isinf(), torch.inf)
        outer = torch.maximum(_outside(low), torch.where(sure[1], 0.0, _inside(low)))
        off = torch.minimum(inner, outer) * (1 + 1e-5)
        return self.d * off * (2 + off) / 2 + self.off, self.d * off.clamp(max=1) * (2 - off.clamp(max=1)) / 2 + self.off
