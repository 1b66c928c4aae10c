"""Draws from the posterior r_z (Eq. 7): row j with probability softmax_j(−‖z − α x_j‖²/(2σ²)).

The row that is largest in logit_j + G_j, with independent standard Gumbel numbers G_j, is such a draw (the Gumbel-max trick). It asks
for one maximum over the rows: blocks, memory and ranks change nothing. G_j belongs to the item and the row: a hash of the item's key
and of the row's index, to 53 bits. One pass with digits, whose error is bounded, leaves a few rows that may be the largest; direct
differences in float64 choose among them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.empirical.chance import gumbel
from scorescope.empirical.digits import compiled
from scorescope.empirical.digits.engine import Engine
from scorescope.empirical.digits.family import Family, States, alone
from scorescope.empirical.digits.nominate import SLACK, Lists, error_of
from scorescope.empirical.digits.products import Products, Tile
from scorescope.empirical.digits.shelf import Shelf
from scorescope.empirical.partial import LAST
from scorescope.empirical.ranks import Ranks
from scorescope.empirical.settle import closest_alone, gaps_of, steep_rows
from scorescope.search.products import U64

LISTED = 1024  # rows among which a draw looks at direct differences
SPREAD = 42.0  # how far apart two Gumbel numbers can be
BLUNT = 2e-4  # error of a logit that leaves few rows, in units of what sets rows apart

Parts = list[tuple[int | None, slice]]


class Candidates:
    """Of each state of a family of single states, the rows that may be largest in logit + G by what has been seen."""

    def __init__(self, family: Family, key: Tensor, shelf: Shelf) -> None:
        states, self.key = family.states, key
        error = error_of(family, shelf, U64)
        self.steep, at_data = states.steep[:, 0], states.at_data[:, 0]  # near rows take all, by their distances more than by their G
        self.wide = 2 * error[:, 0] + SLACK + SPREAD * (self.steep & ~at_data)
        scale = states.slope[..., None] * family.coefficients * shelf.step
        self.columns = torch.cat([scale, -0.5 * states.curve[..., None]], 2)[:, 0]
        self.best = torch.full_like(self.wide, -torch.inf)
        self.lists = Lists(len(key), LISTED)

    def see(self, tile: Tile, part: slice) -> None:
        """Take in the rows of a tile for the states of `part`, whose products it has."""
        compiled.draw(self, part, tile.exact, tile.rows.square, tile.index)

    def listed(self, ranks: Ranks) -> tuple[Tensor, Tensor, Tensor]:
        """(state, row) pairs, and for which states (B,) there are too many to list."""
        least = self.best - self.wide
        least -= SLACK * least.abs()  # lists are in float32
        self.lists.keep(least, torch.full_like(least, torch.inf))
        many = ranks.any(self.lists.dropped >= least)
        return *self.lists.pairs(~many), many


def draw(engine: Engine, states: States, key: Tensor, parts: Parts) -> Tensor:
    """One row (B,) of each state (B, 1, d): for each (label, slice of states) among the rows of that class, or of all."""
    # An error of one lets a handful of rows of a crowd be the largest; one of little of what sets rows apart is as good.
    blunt = 1 + BLUNT * states.curve * engine.shelf.bank.radius**2
    reach = max(engine.shelf.reach, torch.finfo(torch.float32).tiny)
    family, digits = alone(states, blunt / (states.slope.clamp(min=1e-12) * reach))
    candidates = Candidates(family, key, engine.shelf)
    for label, part in parts:
        for tile in Products(engine.shelf, digits[part], label, 0):
            candidates.see(tile, part)
    best = torch.full((len(key),), -torch.inf, dtype=torch.float64, device=key.device)
    row = torch.full_like(key, LAST)
    state, listed, many = candidates.listed(engine.ranks)
    _among(engine, states, key, state, listed, best, row)
    for label, part in parts:
        some = many[part].nonzero().flatten() + part.start
        if len(some):
            steep = states.steep[some, 0]
            for one in some[steep][:, None]:
                pairs = steep_rows(states[one].single, engine.shelf, label, SPREAD, engine.ranks)
                value, place = torch.full_like(best[:1], -torch.inf), torch.full_like(row[:1], LAST)
                _among(engine, states[one], key[one], *pairs, value, place)
                best[one], row[one] = value, place
            some = some[~steep]
            best[some], row[some] = _of_all(engine, states[some], key[some], label)
    most = engine.ranks.largest(best)
    return engine.ranks.smallest(torch.where(best == most, row, LAST))


def _among(engine: Engine, states: States, key: Tensor, state: Tensor, row: Tensor, best: Tensor, chosen: Tensor) -> None:
    """Draws among (state, row) pairs, into `best` and `chosen`."""
    state, row = closest_alone(states.single, engine.shelf, state, row, engine.ranks)
    value = gumbel(key[state], row) - gaps_of(states.single, engine.shelf, state, row, engine.ranks)
    best.scatter_reduce_(0, state, value, "amax")
    hit = value == best[state]
    chosen.scatter_reduce_(0, state[hit], row[hit], "amin")


def _of_all(engine: Engine, states: States, key: Tensor, label: int | None) -> tuple[Tensor, Tensor]:
    """Draws among all rows in float64: (value relative to what is common to all rows, row)."""
    best = torch.full((len(key),), -torch.inf, dtype=torch.float64, device=key.device)
    row = torch.full_like(key, LAST)
    n, shelf = len(engine.shelf.bank.rows), engine.shelf
    for index in torch.from_numpy(shelf.indices(label)).to(key.device).split(2048):
        if not len(index):
            break
        x = shelf.fetch(index) - states.centre
        for mirrored in (False, True) if shelf.bank.flips else (False,):
            side = shelf.mirror(states.centred[:, 0]) if mirrored else states.centred[:, 0]
            logit = states.slope * (side @ x.T) - 0.5 * states.curve * x.square().sum(1)
            value, place = (logit + gumbel(key[:, None], index + n * mirrored)).max(1)
            better = value > best
            row = torch.where(better, index[place] + n * mirrored, row)
            best = torch.maximum(best, value)
    return best, row
