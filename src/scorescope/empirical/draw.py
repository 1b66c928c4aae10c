"""Draws from the posterior r_z (Eq. 7): row j with probability softmax_j(−‖z − α x_j‖²/(2σ²)).

The row that is largest in logit_j + G_j, with independent standard Gumbel numbers G_j, is such a draw (the Gumbel-max trick). It asks
for one maximum over the rows: blocks, memory and ranks change nothing. G_j belongs to the item and the row: a hash of the item's key
and of the row's index, to 53 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.empirical.chance import gumbel
from scorescope.empirical.dense import Dense
from scorescope.empirical.engine import Engine
from scorescope.empirical.family import Family, States, alone
from scorescope.empirical.nominate import Nominator
from scorescope.empirical.partial import LAST
from scorescope.empirical.products import Products, Tile, together
from scorescope.empirical.settle import squares

LISTED = 1024  # rows among which a draw looks at direct differences


class _Dense(Dense):
    """Draws among all rows, by the logits of a sum over all rows."""

    key: Tensor

    def begin(self, key: Tensor) -> None:
        """Keys (Q,) of the wanted states."""
        self.key = key
        self.best = torch.full((len(key),), -torch.inf, dtype=torch.float64, device=key.device)
        self.row = torch.zeros_like(key)

    def see(self, tile: Tile) -> None:
        """Draw among the rows of a tile and those before."""
        for part, below in self._parts(tile):
            value, place = below.add_(gumbel(self.key[part, None], tile.index)).max(1)
            better = value > self.best[part]
            self.row[part] = torch.where(better, tile.index[place], self.row[part])
            self.best[part] = torch.maximum(value, self.best[part])


def draw(engine: Engine, states: States, key: Tensor, label: int | None) -> Tensor:
    """One row (B,) of each state (B, 1, d), among the rows of one class, or of all."""
    best = torch.full((len(key),), -torch.inf, dtype=torch.float64, device=key.device)
    row = torch.full_like(key, LAST)
    crowded = engine.crowded(states)[:, 0]
    parts = [which for many in (True, False) if len(which := (crowded == many).nonzero().flatten())]
    made = [alone(states[which], engine.sharp(states[which]) if crowded[which[0]] else None) for which in parts]
    shared = together(engine.shelf, [digits for _, digits in made], label, engine.shelf.memory // 8)
    for which, (family, _), products in zip(parts, made, shared, strict=True):
        if crowded[which[0]]:
            best[which], row[which] = _of_all_by_digits(engine, family, products, key[which], torch.zeros_like(best[which]))
        else:
            best[which], row[which] = _by_nomination(engine, family, products, key[which], label)
    most = engine.ranks.largest(best)
    return engine.ranks.smallest(torch.where(best == most, row, LAST))


def _by_nomination(engine: Engine, family: Family, products: Products, key: Tensor, label: int | None) -> tuple[Tensor, Tensor]:
    """Draws among the rows that can matter, where these are few: (value relative to the nearest row, row)."""
    states, (_, apart, _) = family.states, engine.margin(label)
    margin = torch.full_like(states.alpha, apart).masked_fill(states.at_data, 0.0)
    found = Nominator(family, engine.shelf, margin, LISTED, engine.ranks, near=False).run(products)
    best = torch.full((len(key),), -torch.inf, dtype=torch.float64, device=key.device)
    row = torch.full_like(key, LAST)
    _among(engine, states, key, found.state, found.row, best, row)
    many = found.many.nonzero().flatten()
    if len(many):
        best[many], row[many] = _of_all(engine, states[many], key[many], found.peak[many], label)
    return best, row


def _among(engine: Engine, states: States, key: Tensor, state: Tensor, row: Tensor, best: Tensor, chosen: Tensor) -> None:
    """Draws among (state, row) pairs, into `best` and `chosen`."""
    square = squares(states, engine.shelf, state, row)
    closest = engine.ranks.smallest(torch.full_like(best, torch.inf).scatter_reduce(0, state, square, "amin"))
    logit = -0.5 * states.precision[state, 0] * (square - closest[state])
    logit = torch.where(states.at_data[state, 0], torch.where(square == closest[state], 0.0, -torch.inf), logit)
    value = logit + gumbel(key[state], row)
    best.scatter_reduce_(0, state, value, "amax")
    hit = value == best[state]
    chosen.scatter_reduce_(0, state[hit], row[hit], "amin")


def _of_all_by_digits(engine: Engine, family: Family, products: Products, key: Tensor, peak: Tensor) -> tuple[Tensor, Tensor]:
    """Draws among all rows, by the digits of a family of single states: (value relative to `peak`, row)."""
    every = torch.arange(len(key), device=key.device)
    dense = _Dense(family, engine.shelf, every, False, peak, engine.rows(products.label), engine.tolerance, engine.ranks)
    dense.begin(key)
    for tile in products:
        dense.see(tile)
    return dense.best, dense.row


def _of_all(engine: Engine, states: States, key: Tensor, peak: Tensor, label: int | None) -> tuple[Tensor, Tensor]:
    """Draws among all rows: (value relative to a common peak, row)."""
    if engine.shelf.exact:
        family, digits = alone(states, engine.sharp(states))
        return _of_all_by_digits(engine, family, Products(engine.shelf, digits, label, 0), key, peak)
    best, row = torch.full_like(peak, -torch.inf), torch.zeros_like(key)
    n, shelf = len(engine.shelf.bank.rows), engine.shelf
    for index in torch.from_numpy(shelf.indices(label)).to(key.device).split(2048):
        if not len(index):
            break
        x = shelf.fetch(index) - states.centre
        for mirrored in (False, True) if shelf.bank.flips else (False,):
            side = shelf.mirror(states.centred[:, 0]) if mirrored else states.centred[:, 0]
            logit = states.slope * (side @ x.T) - 0.5 * states.curve * x.square().sum(1) - peak[:, None]
            value, place = (logit + gumbel(key[:, None], index + n * mirrored)).max(1)
            better = value > best
            row = torch.where(better, index[place] + n * mirrored, row)
            best = torch.maximum(best, value)
    return best, row
