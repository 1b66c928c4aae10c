"""Draws from the posterior r_z (Eq. 7): row j with probability softmax_j(−‖z − α x_j‖²/(2σ²)).

The row that is largest in logit_j + G_j, with independent standard Gumbel numbers G_j, is such a draw (the Gumbel-max trick). It asks
for one maximum over the rows: blocks, memory and ranks change nothing. G_j belongs to the item and the row: a hash of the item's key
and of the row's index, to 53 bits, between −4 and 38. One pass of logits in float32, whose error is bounded, leaves a few rows that may be
the largest; direct differences in float64 choose among them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.empirical.engine import Engine
from scorescope.empirical.family import alone
from scorescope.empirical.partial import LAST
from scorescope.empirical.products import Logits
from scorescope.empirical.ranks import Ranks
from scorescope.empirical.settle import closest_alone, gaps_of, steep_rows
from scorescope.empirical.states import States
from scorescope.search.products import U32, U64
from scorescope.seeds import HIGHEST, LOWEST, gumbel

FINE, LEAST = 48, 8  # one direct difference takes about what so many rows' products in float64 do, but for a few
LISTED, SURE = 1024, 1e-6  # rows of a state whose products in float64 may be off by more nats than this: they would not tell copies apart
SPREAD = HIGHEST - LOWEST  # how far apart two Gumbel numbers can be

Parts = list[tuple[int | None, slice]]


class Candidates:
    """Of each of some states, the rows that may be largest in logit + G by what has been seen."""

    def __init__(self, states: States, key: Tensor) -> None:
        self.states, self.key = states, key
        self.steep = states.steep & ~states.at_data  # near rows take all, by their distances more than by their G
        self.wide, self.top, self.best = (torch.full_like(states.sigma, value) for value in (0.0, -torch.inf, -torch.inf))
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []

    def look(self, logits: Logits, own: Tensor) -> None:
        """Take in the logits of a family of the states `own` (M,), each by itself."""
        self.wide[own] = torch.maximum(self.wide[own], 2 * logits.error(U32) + SPREAD * self.steep[own])
        before = len(self.found)
        for tile in logits.products:
            for groups, part in logits.parts(len(tile.index)):
                self._see(logits.of(tile, groups, torch.float32), own[part], tile.index)
        self.found[before:] = [self._left(self.found[before:])]

    def _see(self, above: Tensor, part: Tensor, index: Tensor) -> None:
        """Take in the logits (m, n) of rows `index` (n,) for the states of `part` (m,)."""
        self.top[part] = torch.maximum(self.top[part], above.amax(1).double())
        # Rows that no number between the lowest and the highest makes the largest.
        least = torch.maximum(self.top[part] - SPREAD - self.wide[part], self.best[part] - self.wide[part] - HIGHEST)
        least = least - 1e-6 * least.abs()
        state, column = (above >= least[:, None].float()).nonzero(as_tuple=True)
        value, state, row = above[state, column].double(), part[state], index[column]
        value += torch.where(self.states.steep[state], 0.0, gumbel(self.key[state], row))
        self.best.scatter_reduce_(0, state, value, "amax")
        kept = value >= self.least[state]
        self.found.append((state[kept], row[kept], value[kept]))

    def _left(self, found: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """What was found, (state, row, value), but for rows that can't be the largest as far as is known now."""
        none = torch.empty(0, dtype=torch.int64, device=self.key.device)
        state, row, value = (torch.cat(some) for some in zip((none, none, none.double()), *found, strict=True))
        kept = value >= self.least[state]
        return state[kept], row[kept], value[kept]

    @property
    def least(self) -> Tensor:
        """(B,) how large a row's number must be."""
        return self.best - self.wide - 1e-12 * self.best.abs()

    def listed(self, most: Tensor, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
        """(state, row) pairs, and for which states (B,) there are more than `most` (B,)."""
        self.best, self.wide = ranks.largest(torch.stack([self.best, self.wide]))
        state, row, _ = self._left(self.found)
        many = ranks.total(torch.bincount(state, minlength=len(self.key))) > most
        kept = ~many[state]
        return state[kept], row[kept], many


def draw(engine: Engine, states: States, key: Tensor, parts_of: Parts) -> Tensor:
    """One row (B,) of each state (B, d): for each (label, slice of states) among the rows of that class, or of all for None."""
    candidates, most = Candidates(states, key), torch.full_like(key, LISTED)
    off = (states.d + 8) * U64 * states.slope * (states.norm + states.alpha * states.reach) * states.reach
    unsure = states.steep | (off > SURE)
    for label, which in _looks(engine, parts_of, key.device):
        candidates.look(engine.logits(alone(states[which]), label, "coarse", once=True), which)
    for label, own in parts_of:
        most[own] = torch.where(unsure[own], LISTED, max(LEAST, engine.rows(label) // FINE))
    best, row = torch.full_like(states.sigma, -torch.inf), torch.full_like(key, LAST)
    state, listed, many = candidates.listed(most, engine.ranks)
    _among(engine, states, key, state, listed, best, row)
    for label, own in parts_of if bool(many.any()) else ():
        which = own.start + many[own].nonzero().flatten()
        crowd = which[~unsure[which]]
        if len(crowd):
            best[crowd], row[crowd] = _of_all(engine, states[crowd], key[crowd], label)
        for one in which[unsure[which], None]:
            state, listed = steep_rows(states[one], engine.shelf, label, SPREAD, engine.ranks)
            _among(engine, states, key, one + state, listed, best, row)
    largest = engine.ranks.largest(best)
    return engine.ranks.smallest(torch.where(best == largest, row, LAST))


def _looks(engine: Engine, parts_of: Parts, device: torch.device) -> list[tuple[int | None, Tensor]]:
    """(label, states (M,)) that are looked at together: states of no class go with those of every class, so that rows are read once."""
    own = {label: torch.arange(part.start, part.stop, device=device) for label, part in parts_of}
    if None not in own or len(own) == 1:
        return list(own.items())
    free = own.pop(None)
    return [(label, torch.cat([own[label], free]) if label in own else free) for label in engine.classes]


def _among(engine: Engine, states: States, key: Tensor, state: Tensor, row: Tensor, best: Tensor, chosen: Tensor) -> None:
    """Draws among (state, row) pairs, into `best` and `chosen`."""
    state, row = closest_alone(states, engine.shelf, state, row, engine.ranks)
    value = gumbel(key[state], row) - gaps_of(states, engine.shelf, state, row, engine.ranks)
    best.scatter_reduce_(0, state, value, "amax")
    hit = value == best[state]
    chosen.scatter_reduce_(0, state[hit], row[hit], "amin")


def _of_all(engine: Engine, states: States, key: Tensor, label: int | None) -> tuple[Tensor, Tensor]:
    """Draws among all rows in float64: (value relative to what is common to all rows, row)."""
    logits = engine.logits(alone(states), label, "double", once=True)
    best, row = torch.full_like(states.sigma, -torch.inf), torch.full_like(key, LAST)
    for tile in logits.products:
        for groups, part in logits.parts(len(tile.index)):
            value = logits.of(tile, groups, torch.float64) + gumbel(key[part, None], tile.index)
            top, place = value.max(1)
            better = top > best[part]
            row[part] = torch.where(better, tile.index[place], row[part])
            best[part] = torch.where(better, top, best[part])
    return best, row
