"""Shelf: a bank's 8-bit rows as the engine reads them: digits that stay in memory, sorted by class.

A row is x = centre + step·q + residual, q (d,) int8 the stored numbers − 128, as `search.quantize` says; the residual is what float32
rounds. Distances do not change by centring; norms, and with them all bounds, get smaller. Mirrored rows are never made:
⟨z, mirror(x)⟩ = ⟨mirror(z), x⟩, and the centre is symmetric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scorescope.empirical.digits import compiled
from scorescope.empirical.ranks import Ranks
from scorescope.rows import Bank
from scorescope.search.quantize import OUTWARD, Quantizer

BLOCK = 8192  # rows of one product, unless memory is short
LEAST = 256


@dataclass(frozen=True)
class Rows:
    """Some stored rows: digits q (n, d) int8, square (n,) float64 = ‖x − centre‖², index (n,) int64."""

    q: Tensor
    square: Tensor
    index: Tensor


def even(bank: Bank) -> bool:
    """Whether the values of 8-bit rows are evenly spaced numbers rounded to float32, all 256."""
    quantizer = Quantizer.of(bank, torch.device("cpu"))
    found = quantizer.centre[0] + quantizer.step * torch.arange(-128, 128, dtype=torch.float64)
    return quantizer.table is not None and bool((found.float() == quantizer.table).all())


def memory_for(bank: Bank, own: int) -> int:
    """Bytes for `own` resident rows of a bank, a block of them on its way through float64, and 256 states with it."""
    return 2 * own * (bank.d + 32) + 128 * min(LEAST, len(bank.rows)) * bank.d


class Readable(Protocol):
    """Rows that products can be made with, and what bounds their logits: a `Shelf`, or the projections of one's rows (`coarse`)."""

    @property
    def bank(self) -> Bank:
        """Whose rows these are."""

    @property
    def exact(self) -> bool:
        """Whether the digits are the rows."""

    @property
    def count(self) -> int:
        """How many rows there are, mirror images among them."""

    @property
    def reach(self) -> float:
        """The largest norm of all rows."""

    @property
    def rounded(self) -> float:
        """The largest norm of what digits leave of a row."""

    def mirror(self, flat: Tensor, /) -> Tensor:
        """Vectors, or their digits, mirrored."""

    def kept(self, label: int | None) -> slice:
        """Where the rows of a class, or all, are among one's own."""

    def rows(self, label: int | None, most: int | None = None) -> Iterator[Rows]:
        """The rows of a class, or all, in blocks."""


class Shelf:
    """The rows of `bank`, or one's share of them among `ranks`; they take at most half of `memory` bytes.

    Attributes:
        own: The stored rows that are read here; all indices are those of the whole bank.
        exact: The digits are the rows.
        resident: The digits stay in memory.
    """

    exact = True
    resident = True

    def __init__(self, bank: Bank, device: torch.device | str, memory: int, ranks: Ranks) -> None:
        self.bank, self.device, self.memory, self.ranks = bank, torch.device(device), memory, ranks
        self.own = ranks.share(len(bank.rows))
        numbers = 32 * len(self.own)
        self.count = len(bank)
        self._totals: dict[int | None, Tensor] = {}
        self.block = int(max(LEAST, min(BLOCK, (memory // 4 - numbers // 2) // (bank.d * 16))))

    def indices(self, label: int | None) -> np.ndarray:
        """Stored rows of one class, or all, that are one's own, in order.

        Raises:
            InputError: No row of the whole bank has that label.
        """
        if label is None:
            return np.arange(self.own.start, self.own.stop)
        found = self.bank.indices(label)
        return found[slice(*np.searchsorted(found, (self.own.start, self.own.stop)))]

    @cached_property
    def quantizer(self) -> Quantizer:
        """The bank's."""
        return Quantizer.of(self.bank, self.device)

    @property
    def centre(self) -> Tensor:
        """What is subtracted, (d,) float64: the value of the stored 128."""
        return self.quantizer.centre

    @property
    def step(self) -> float:
        """The quantization step: the unit of the digits."""
        return self.quantizer.step

    @cached_property
    def zero(self) -> float:
        """The value of the digit 0."""
        return float(self.centre[0])

    @cached_property
    def _norms(self) -> tuple[Tensor, Tensor]:
        """Squared norms of one's own centred rows and norms of their residuals, float64, by one pass."""
        square, residual = (torch.empty(len(self.own), dtype=torch.float64, device=self.device) for _ in range(2))
        for start in range(0, len(square), LEAST):
            stop = min(start + LEAST, len(square))
            rows = self.quantizer.quantized(self.bank.stored(self.own.start + start, self.own.start + stop))
            square[start:stop], residual[start:stop] = rows.square, rows.residual
        return square, residual

    @cached_property
    def _extent(self) -> tuple[float, float]:
        """The largest norm of a centred row, and of what its digits leave, in the whole bank."""
        largest = torch.stack([values.max() if len(values) else values.new_zeros(()) for values in self._norms])
        square, rounded = self.ranks.largest(largest).tolist()
        return square**0.5 * OUTWARD, rounded

    @property
    def rounded(self) -> float:
        """The largest ‖x − centre − step·q‖ of all rows."""
        return self._extent[1]

    @property
    def reach(self) -> float:
        """The largest norm of all centred rows."""
        return self._extent[0]

    def _read(self, index: np.ndarray) -> Tensor:
        """Digits of stored rows by index, in order."""
        whole = len(index) > 0 and bool((np.diff(index) == 1).all())
        where = slice(int(index[0]), int(index[-1]) + 1) if whole else index
        return self.quantizer.q(np.asarray(self.bank.rows[where]))

    @cached_property
    def _kept(self) -> tuple[Rows, np.ndarray]:
        """One's own rows sorted by class, and where each class begins."""
        bank, own = self.bank, slice(self.own.start, self.own.stop)
        tags = np.zeros(len(self.own), dtype=np.int64) if bank.labels is None else bank.labels[own]
        sorting = np.argsort(tags, kind="stable")
        order = self.own.start + sorting
        q = torch.empty((len(order), bank.d), dtype=torch.int8, device=self.device)
        for start in range(0, len(order), LEAST):
            q[start : start + LEAST] = self._read(order[start : start + LEAST])
        index = torch.from_numpy(order).to(self.device)
        rows = Rows(q, self._norms[0][index - self.own.start], index)
        return rows, np.searchsorted(tags[sorting], np.arange(max(bank.classes, 1) + 1))

    def rows(self, label: int | None, most: int | None = None) -> Iterator[Rows]:
        """One's own stored rows of one class, or all, in blocks of up to `most` rows."""
        kept, whole, size = self._kept[0], self.kept(label), most or self.block
        for start in range(whole.start, whole.stop, size):
            part = slice(start, min(start + size, whole.stop))
            yield Rows(kept.q[part], kept.square[part], kept.index[part])

    def kept(self, label: int | None) -> slice:
        """Where the rows of a class, or all, are among one's own."""
        rows, begins = self._kept
        return slice(0, len(rows.q)) if label is None else slice(int(begins[label]), int(begins[label + 1]))

    def total(self, label: int | None) -> Tensor:
        """Σ (x − centre) over the rows of a class, or all, of the whole bank, with their mirror images, (d,) float64."""
        if label not in self._totals:
            found = torch.zeros(self.bank.d, dtype=torch.float64, device=self.device)
            for rows in self.rows(label):
                found += self.step * rows.q.sum(0, dtype=torch.int32).double()
            self._totals[label] = self.ranks.total(found + self.mirror(found) if self.bank.flips else found)
        return self._totals[label]

    def mirror(self, flat: Tensor) -> Tensor:
        """Flat vectors (*, d) of the bank's shape, mirrored along the last axis."""
        return flat.reshape(-1, *self.bank.shape).flip(-1).reshape(flat.shape)

    @property
    def table(self) -> Tensor:
        """Model-space values of the digits −128 … 127."""
        assert self.quantizer.table is not None
        return self.quantizer.table

    @cached_property
    def _place(self) -> Tensor:
        """Where each of one's own rows is among those that are kept."""
        index = self._kept[0].index - self.own.start
        return torch.empty_like(index).scatter_(0, index, torch.arange(len(index), device=self.device))

    @property
    def in_memory(self) -> tuple[Rows, Tensor, int, int]:
        """One's own rows as they are kept, where each is among them, the first of one's own, and how many rows the bank stores."""
        return self._kept[0], self._place, self.own.start, len(self.bank.rows)

    def found(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Where rows are among those that are kept, and whether they are mirrored, by index."""
        mirrored = index >= len(self.bank.rows)
        return self._place[index - mirrored * len(self.bank.rows) - self.own.start], mirrored

    def apart(self, row: Tensor, z: Tensor, alpha: Tensor, state: Tensor) -> Tensor:
        """‖z − αx‖² (M,) of pairs of state and row, float64."""
        return compiled.apart(self, row, z, alpha, state)

    def fetch(self, index: Tensor) -> Tensor:
        """Rows as they are (not centred), flat and float64, by index; exact."""
        return compiled.fetch(self, index)
