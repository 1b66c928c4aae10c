"""Shelf: a bank's rows as the engine reads them: float32, kept on the device where they fit, read from disk in order where not.

Distances do not change by centring; where rows lie far from 0, norms, and with them all bounds, get smaller. Mirrored rows are never made:
⟨z, mirror(x)⟩ = ⟨mirror(z), x⟩, and the centre of a bank with flips is symmetric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from scorescope.empirical.buffers import Buffers
from scorescope.empirical.ranks import Ranks
from scorescope.errors import InputError
from scorescope.rows import Bank

BLOCK = 1 << 23  # values of the rows of one product
LEAST, NARROW = 64, 64  # rows of a block, at least; values of a row below which a block has no more rows
SHARE = 256  # bytes of memory for each value of one step, of which a few copies in float64 are made
VALUES = 1 << 20  # of rows in float64 at a time: what the caches of a processor hold, and enough to multiply at full speed
OUTWARD = 1 + 2.0**-40  # covers the rounding of a float64 norm of millions of values


@dataclass(frozen=True)
class Block:
    """Some stored rows: square (n,) float64 = ‖row − centre‖²; index (n,) int64.

    Attributes:
        part: Where they are among the rows that are kept; None if they are on the disk.
    """

    square: Tensor
    index: Tensor
    part: slice | None = None


class Shelf:
    """The rows of `bank` on `device`, or one's share of them among `ranks`; resident if they take at most half of `memory` bytes.

    Attributes:
        own: The stored rows that are read here; all indices are those of the whole bank.
        centre: (d,) float64, what is subtracted: the mean of rows that lie far from 0, else 0, which rounds nothing.
        exact: Centred rows are float32 numbers.
        resident: The rows stay in memory.
    """

    def __init__(self, bank: Bank, device: torch.device | str, memory: int, ranks: Ranks) -> None:
        self.bank, self.device, self.memory, self.ranks = bank, torch.device(device), memory, ranks
        self.own = ranks.share(len(bank.rows))
        numbers = 16 * len(self.own)
        # A block is held in float32 and in float64, and 256 states go with it.
        least = 2 * numbers + min(LEAST, len(bank.rows)) * bank.d * 64
        if memory < least:
            raise InputError(
                f"a memory of {memory:,} bytes is too little for {len(self.own):,} rows of {bank.d:,} values",
                f"at least {-(-least // 2**20)} MiB",
            )
        self.resident = 4 * len(self.own) * bank.d + numbers <= memory // 2
        self.block = int(max(LEAST, min(self.at_once(BLOCK) // max(bank.d, NARROW), (memory // 4) // (bank.d * 16))))
        self.exact = float(bank.mean.norm()) <= bank.radius
        mean = bank.mean.flatten().float().double().to(self.device)
        self.centre = torch.zeros_like(mean) if self.exact else mean
        self.buffers = Buffers(self.device)

    def at_once(self, cached: int) -> int:
        """Values of one step: those that a processor's caches hold, or of a device that waits between steps what its memory does."""
        return cached if self.device.type == "cpu" else max(cached, self.memory // SHARE)

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
    def _squares(self) -> Tensor:
        """‖row − centre‖² of one's own rows, float64."""
        found = torch.empty(len(self.own), dtype=torch.float64, device=self.device)
        for start in range(0, len(found), self.block):
            part = slice(start, min(start + self.block, len(found)))
            rows = self._read(np.arange(self.own.start + part.start, self.own.start + part.stop))
            for some, square in zip(rows.split(LEAST), found[part].split(LEAST), strict=True):  # as many as a cache holds
                x = self._centred(some)
                torch.linalg.vecdot(x, x, out=square)
        return found

    @cached_property
    def reach(self) -> float:
        """The largest norm of all centred rows of all ranks."""
        own = self._squares.max() if len(self._squares) else self._squares.new_zeros(())
        return float(self.ranks.largest(own)) ** 0.5 * OUTWARD

    def _read(self, index: np.ndarray) -> Tensor:
        """Rows as they are (n, d), float32 or what float32 holds, by stored indices."""
        whole = len(index) > 0 and bool((np.diff(index) == 1).all())
        stored = self.bank.stored(int(index[0]), int(index[-1]) + 1) if whole else self.bank.stored_at(index)
        if stored.dtype.kind == "f" and stored.flags.writeable:  # fresh from the disk
            return torch.from_numpy(stored).view(len(index), self.bank.d).to(self.device)
        return torch.from_numpy(self.bank.decode(stored).reshape(len(index), self.bank.d)).to(self.device)

    def _centred(self, x: Tensor) -> Tensor:
        """Rows − centre in float64, in memory that lasts until the next such call."""
        double = self.buffers.filled("double", x)
        return double if self.exact else double.sub_(self.centre)

    @cached_property
    def _kept(self) -> tuple[Tensor, Tensor, np.ndarray]:
        """One's own centred rows (float32) sorted by class, their indices, and where each class begins."""
        bank, own = self.bank, slice(self.own.start, self.own.stop)
        tags = np.zeros(len(self.own), dtype=np.int64) if bank.labels is None else bank.labels[own]
        sorting = np.argsort(tags, kind="stable")
        kept = torch.empty(len(sorting), bank.d, dtype=torch.float32, device=self.device)
        for start in range(0, len(sorting), self.block):
            part = self._read(self.own.start + sorting[start : start + self.block])
            kept[start : start + self.block] = part if self.exact else self._centred(part)
        begins = np.searchsorted(tags[sorting], np.arange(max(bank.classes, 1) + 1))
        return kept, torch.from_numpy(self.own.start + sorting).to(self.device), begins

    @cached_property
    def _place(self) -> Tensor:
        """Where each of one's own rows is among those that are kept."""
        index = self._kept[1] - self.own.start
        return torch.empty_like(index).scatter_(0, index, torch.arange(len(index), device=self.device))

    def blocks(self, label: int | None) -> Iterator[Block]:
        """One's own stored rows of one class, or all, in blocks."""
        if not self.resident:
            every = self.indices(label)
            for start in range(0, len(every), self.block):
                index = torch.from_numpy(every[start : start + self.block]).to(self.device)
                yield Block(self._squares[index - self.own.start], index)
            return
        kept, every_index, begins = self._kept
        first, last = (0, len(kept)) if label is None else (int(begins[label]), int(begins[label + 1]))
        for start in range(first, last, self.block):
            part = slice(start, min(start + self.block, last))
            yield Block(self._squares[every_index[part] - self.own.start], every_index[part], part)

    def single(self, block: Block) -> Tensor:
        """The centred rows of a block in float32 (n, d), rounded once; those from the disk last until another block is asked for."""
        if block.part is not None:
            return self._kept[0][block.part]
        return self.buffers.once("single", block, lambda: self.buffers.filled("single", self._of(block), torch.float32))

    def _of(self, block: Block) -> Tensor:
        """The centred rows of a block as they are read, or in float64, until the next such call; no block is read twice in a row."""
        x = self.buffers.once("read", block, lambda: self._read(block.index.cpu().numpy()))
        return x if self.exact else self._centred(x)

    def doubles(self, block: Block, values: int = VALUES) -> Iterator[tuple[slice, Tensor]]:
        """The centred rows of a block in float64, not rounded before: (place, some of them (m, d)), of so many `values`."""
        whole = self.single(block) if self.exact else self._of(block)
        size = max(1, self.at_once(values) // self.bank.d)
        for start in range(0, len(whole), size):
            part = slice(start, min(start + size, len(whole)))
            yield part, self.buffers.filled("doubles", whole[part]) if self.exact else whole[part]

    def mirror(self, flat: Tensor) -> Tensor:
        """Flat vectors (*, d) of the bank's shape, mirrored along the last axis."""
        return flat.reshape(-1, *self.bank.shape).flip(-1).reshape(flat.shape)

    @property
    def sides(self) -> tuple[bool, ...]:
        """Whether rows are taken as their mirror images: not, or not and then so."""
        return (False, True) if self.bank.flips else (False,)

    def fetch(self, index: Tensor) -> Tensor:
        """Rows as they are (not centred), flat and float64, by index; exact."""
        if not (self.exact and self.resident):
            unique, place = index.unique(return_inverse=True)
            return self.bank[unique].reshape(len(unique), self.bank.d).to(self.device, torch.float64)[place]
        n = len(self.bank.rows)
        mirrored = index >= n
        room = self.buffers.take("gathered", (len(index), self.bank.d), torch.float32)
        x = torch.index_select(self._kept[0], 0, self._place[index - mirrored * n - self.own.start], out=room).double()
        if bool(mirrored.any()):
            x[mirrored] = self.mirror(x[mirrored])
        return x
