"""Outlines of rows, and a first look along them: where a state lies close to one row, few axes tell that hardly any other can matter.

    logit_j ≤ slope·(Σ_{k ≤ K} v_k x_jk + Σ_b ‖v_b‖‖x_jb‖) − curve‖x_j‖²/2

with the coordinates of a centred state v and of the rows along the bank's `Axes`. The row that is the best without its bands is asked
exactly; a row whose logit cannot come near its own cannot matter. An eighth of a product of all values, and no row is read but those
that are left. From which α/σ on few are left is tried on states of the bank.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.empirical.axes import BANDS, SHARE, Axes, suits, transformed
from scorescope.empirical.partial import LAST
from scorescope.empirical.settle import squares
from scorescope.empirical.shelf import Shelf
from scorescope.empirical.states import States
from scorescope.search.products import U32, full_precision, product

VALUES = 1 << 19  # logits of one step: what the caches of a processor hold
LOT = 256  # rows that are outlined at a time
SAMPLE = 2048  # rows that tell where the energy is
TRIED, AMONG, HALVINGS = 16, 4096, 6  # states that tell from which α/σ on it is worth looking, among how many rows, and how closely
MARGIN, FEW = 30.0, 128  # nats and rows of which they tell
SMALL = 1 << 22  # values of all rows below which all of them are as fast


def able(shelf: Shelf) -> bool:
    """Whether rows like these have outlines that fit a quarter of the memory, and are worth them. The same in all processes."""
    bank = shelf.bank
    fits = 4 * len(shelf.own) * (bank.d // SHARE + BANDS + 1) <= shelf.memory // 4
    fits = not bool(shelf.ranks.any(torch.tensor(not fits, device=shelf.device)))
    return fits and suits(bank.shape) and len(bank.rows) * bank.d >= SMALL


@dataclass
class Seen:
    """What outlines tell of B states.

    Attributes:
        state: (M,) with `row` (M,) the pairs that can matter.
        row: Stored rows; N + i is row i mirrored.
        upper: (M,) float64 bounds on their logits.
        many: (B,) more rows can matter than are listed; none is among the pairs.
        top: (B,) the row that was asked, one of one's own.
        known: (B,) its logit.
    """

    state: Tensor
    row: Tensor
    upper: Tensor
    many: Tensor
    top: Tensor
    known: Tensor


class Outlines:
    """Of one's own rows: the first coordinates with ‖x‖²/2, and the norms of the bands, float32, in stored order.

    Attributes:
        least: α/σ from which on it is worth looking.
    """

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        with full_precision(shelf.device):
            self.axes = Axes.of(shelf.bank.shape, self._energy())
            kept = self.axes.kept
            self.tables = [torch.empty(len(shelf.own), width, dtype=torch.float32, device=shelf.device) for width in (kept + 1, BANDS)]
            for block in shelf.blocks(None):
                place = block.index - shelf.own.start
                for index, x, square in zip(place.split(LOT), shelf.single(block).split(LOT), block.square.split(LOT), strict=True):
                    first, bands = self.axes.outline(x).split([kept, BANDS], 1)
                    self.tables[0][index], self.tables[1][index] = torch.cat([first, square[:, None].float() / 2], 1), bands
            self.least = self._worth()

    def _energy(self) -> Tensor:
        """(d,) of the transform of rows from all over the bank."""
        shelf = self.shelf
        some = torch.linspace(0, len(shelf.bank.rows) - 1, min(SAMPLE, len(shelf.bank.rows)), dtype=torch.float64).long()
        x = shelf.bank[some].flatten(1).to(shelf.device, torch.float32) - shelf.centre.float()
        return transformed(x, shelf.bank.shape).double().square().sum(0)

    def _worth(self) -> float:
        """The least α/σ at which a quarter of some states on the shells are left few rows; the same in all processes."""
        shelf, bank, own = self.shelf, self.shelf.bank, self.shelf.own
        which = torch.linspace(0, len(bank.rows) - 1, TRIED, dtype=torch.float64).long()
        # Among every so many rows, and the states' own.
        every = -(-len(bank.rows) // AMONG)
        index = torch.cat([torch.arange(0, len(bank.rows), every), which]).unique()
        index = index[(index >= own.start) & (index < own.stop)].to(shelf.device)
        x = bank[which].flatten(1).to(shelf.device, torch.float64)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(shelf.device)
        one, unit = torch.ones(TRIED, dtype=torch.float64, device=shelf.device), bank.d**0.5 / max(bank.radius, 1e-30)
        low, high = 2.0**-5, 2.0**5
        for _ in range(HALVINGS):
            middle = (low * high) ** 0.5
            sigma = 1 / (middle * unit)
            states = States(x + sigma * noise, one, sigma * one, shelf.centre, shelf.reach)
            many = self._look(states, index, MARGIN, -(-FEW // every)).many
            low, high = (low, middle) if float(many.double().mean()) <= 0.75 else (middle, high)
        return high * unit

    def worth(self, states: States) -> Tensor:
        """(B,) whether few rows can be expected to be left."""
        return (states.alpha > self.least * states.sigma) & ~states.steep

    def look(self, states: States, label: int | None, margin: float, few: int) -> Seen:
        """The rows that can matter to states (B, d) that are not steep.

        Rows are left whose logit can come within `margin` nats of the largest, and those that can be nearer to the shell than the row
        that was asked.
        """
        index = torch.from_numpy(self.shelf.indices(label)).to(states.z.device)
        most = torch.tensor(max(1, self.shelf.memory // 16 // max(len(index) * len(self.shelf.sides), 1)), device=states.z.device)
        size = int(self.shelf.ranks.smallest(most))  # each chunk is compared among all
        found = [self._look(states[part], index, margin, few) for part in torch.arange(len(states), device=most.device).split(size)]
        for k, seen in enumerate(found):
            seen.state += k * size
        parts = zip(*(vars(seen).values() for seen in found), strict=True)
        return Seen(*(torch.cat(part) for part in parts))

    def _look(self, states: States, rows: Tensor, margin: float, few: int) -> Seen:
        """As `look`, of states together, among some of one's own stored rows."""
        shelf, ranks, kept, device = self.shelf, self.shelf.ranks, self.axes.kept, states.z.device
        outline = states.slope[:, None] * self.axes.outline(states.centred)
        first, bands = outline[:, :kept], (outline[:, kept:] * (1 + 1e-6)).float()
        curve = -states.curve[:, None]
        sides = [torch.cat([first * self.axes.signs if mirrored else first, curve], 1).float() for mirrored in shelf.sides]
        best = torch.full((len(states),), -torch.inf, device=device)
        top = torch.full((len(states),), LAST, dtype=torch.int64, device=device)
        blocks = list[tuple[bool, Tensor, Tensor]]()
        for mirrored, index in self._blocks(rows, len(states)):
            logit = product(sides[mirrored], self._rows(0, index))
            blocks.append((mirrored, index, logit))
            most = logit.amax(1)
            better = (most > best).nonzero().flatten()
            if len(better):
                best[better] = most[better]
                top[better] = index[logit[better].argmax(1)] + mirrored * len(shelf.bank.rows)
        closest = torch.full_like(states.norm, torch.inf)
        asked = (top < LAST).nonzero().flatten()
        closest[asked] = squares(states, shelf, asked, top[asked]) * (1 + 1e-12)
        error = self._error(states)
        floor = (self._floor(states, ranks.smallest(closest), margin) - error).float()
        found: list[tuple[Tensor, Tensor, Tensor]] = [(top[:0], top[:0], best[:0])]
        used = torch.zeros_like(top)
        for mirrored, index, logit in blocks:
            logit.addmm_(bands, self._rows(1, index).T)
            hit = ((logit.amax(1) >= floor) & (used <= few)).nonzero().flatten()
            if len(hit):
                which, column = (logit[hit] >= floor[hit, None]).nonzero(as_tuple=True)
                found.append((hit[which], index[column] + mirrored * len(shelf.bank.rows), logit[hit[which], column]))
                used += torch.bincount(hit[which], minlength=len(used))
        state, row, value = (torch.cat(part) for part in zip(*found, strict=True))
        many = ranks.total(used) > few
        listed = ~many[state]
        state, row, value = state[listed], row[listed], value[listed]
        known = 0.5 * states.precision * (states.norm**2 - closest)
        return Seen(state, row, value.double() + error[state], many, top, known)

    def _floor(self, states: States, closest: Tensor, margin: float) -> Tensor:
        """(B,) how large the logit must be of a row that can matter, where one is at a squared distance `closest` (B,)."""
        # ‖z − αx‖² may be so large, in units of σ²: by the margin, or as far above d as that of the row that was asked is from it.
        away = (closest.sqrt() / states.sigma - states.d**0.5).abs()
        furthest = torch.maximum(states.precision * closest + 2 * margin, (states.d**0.5 + away) ** 2)
        floor = 0.5 * (states.precision * states.norm**2 - furthest)
        return floor - 2.0**-20 * floor.abs()

    def _error(self, states: States) -> Tensor:
        """(B,) by how much a logit that is made here can be too small."""
        unit, reach = (self.axes.kept + BANDS + 16) * U32, self.shelf.reach
        size = states.slope * states.norm * reach
        return size * (unit + 2 * self.axes.off) + states.curve * reach**2 * unit + 1e-12 * states.precision * states.norm**2 + 1e-6

    def _rows(self, which: int, index: Tensor) -> Tensor:
        """One of the tables of stored rows that follow each other, or do not."""
        table, first = self.tables[which], int(index[0]) - self.shelf.own.start
        if int(index[-1]) - int(index[0]) == len(index) - 1:
            return table[first : first + len(index)]
        room = self.shelf.buffers.take("outlines", (len(index), table.shape[1]), torch.float32)
        return torch.index_select(table, 0, index - self.shelf.own.start, out=room)

    def _blocks(self, rows: Tensor, states: int) -> Iterator[tuple[bool, Tensor]]:
        """(mirrored, (n,) of the stored rows) that are looked at together."""
        for mirrored in self.shelf.sides:
            for index in rows.split(max(1, VALUES // states)) if len(rows) else ():
                yield mirrored, index
