"""Shelf: a bank's rows as the engine reads them: 8-bit digits, kept on the device where they fit, read from disk in order where not.

A row is x = centre + step·q + (what was rounded away): q (d,) int8. Rows of 8-bit images are digits as they are stored, and nothing is
rounded away but the float32 of the model-space value; of float rows the first digit nominates and its rounding is known for each row.
Distances do not change by centring; norms, and with them all bounds, get smaller. Mirrored rows are never made:
⟨z, mirror(x)⟩ = ⟨mirror(z), x⟩, and the centre of a bank with flips is symmetric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from scorescope.bank import Bank
from scorescope.empirical.digits import planes

BLOCK = 8192  # rows of one product


@dataclass(frozen=True)
class Rows:
    """Some stored rows: digits q (n, d) int8, square (n,) float64 = ‖x − centre‖², index (n,) int64."""

    q: Tensor
    square: Tensor
    index: Tensor


class Shelf:
    """The rows of `bank` on `device`, resident if they take at most half of `memory` bytes."""

    def __init__(self, bank: Bank, device: torch.device | str, memory: int) -> None:
        self.bank, self.device, self.memory = bank, torch.device(device), memory
        self.resident = len(bank.rows) * (bank.d + 16) <= memory // 2
        self.exact = bank.rows.dtype == np.uint8  # the digits are the rows

    @cached_property
    def centre(self) -> Tensor:
        """What is subtracted, (d,) float64: the value of the stored 128, or the bank's mean."""
        if self.exact:
            return torch.full(
                (self.bank.d,), self.bank.low + (self.bank.high - self.bank.low) * 128 / 255, dtype=torch.float64, device=self.device
            )
        mean = self.bank.mean.double()
        mean = (mean + mean.flip(-1)) / 2 if self.bank.flips else mean
        return mean.float().double().flatten().to(self.device)

    @cached_property
    def _extent(self) -> tuple[float, float, float]:
        """The step, the largest norm of what is rounded away, and the largest norm of a centred row: from one pass over the rows."""
        bank, reach, largest = self.bank, 0.0, 0.0
        if self.exact:
            step = (bank.high - bank.low) / 255
            stored = np.arange(256, dtype=np.uint8)
            # Model space is float32: each of the 256 values is off by its own rounding.
            off = (bank.decode(stored).astype(np.float64) - (bank.low + (bank.high - bank.low) * stored / 255.0)) ** 2
            for start in range(0, len(bank.rows), 1024):
                u = np.asarray(bank.rows[start : start + 1024]).reshape(-1, bank.d)
                largest = max(largest, float(off.astype(np.float32)[u].sum(1).max()))
                reach = max(reach, float(np.square(u.astype(np.float32) - 128).sum(1, dtype=np.float64).max()))
            return step, largest**0.5 * (1 + 1e-4), step * reach**0.5 + largest**0.5
        for block in bank.blocks(1024, mirrored=False):
            x = block.x.to(self.device).double() - self.centre
            largest, reach = max(largest, float(x.abs().max())), max(reach, float(x.square().sum(1).max()))
        step = max(largest / 127, torch.finfo(torch.float32).tiny)
        # Half a step at most in every coordinate.
        return step, step / 2 * bank.d**0.5, reach**0.5

    @property
    def step(self) -> float:
        """The unit of the digits."""
        return self._extent[0]

    @property
    def rounded(self) -> float:
        """The largest ‖x − centre − step·q‖."""
        return self._extent[1]

    @property
    def reach(self) -> float:
        """The largest norm of a centred row."""
        return self._extent[2]

    def _rows(self, x: Tensor, index: np.ndarray) -> Rows:
        """From rows in model space (n, d) float32."""
        centred = x.to(self.device).double() - self.centre
        q, _ = planes(centred, self.step, 1)
        return Rows(q[0], centred.square().sum(1), torch.from_numpy(index).to(self.device))

    @cached_property
    def _kept(self) -> tuple[Rows, np.ndarray]:
        """All rows sorted by class, and where each class begins."""
        bank = self.bank
        tags = np.zeros(len(bank.rows), dtype=np.int64) if bank.labels is None else bank.labels
        order = np.argsort(tags, kind="stable")
        q = torch.empty((len(order), bank.d), dtype=torch.int8, device=self.device)
        square = torch.empty(len(order), dtype=torch.float64, device=self.device)
        for start in range(0, len(order), 1024):
            index = order[start : start + 1024]
            part = self._rows(bank[index].reshape(len(index), -1), index)
            q[start : start + len(index)], square[start : start + len(index)] = part.q, part.square
        return Rows(q, square, torch.from_numpy(order).to(self.device)), np.searchsorted(tags[order], np.arange(max(bank.classes, 1) + 1))

    def rows(self, label: int | None, size: int = BLOCK) -> Iterator[Rows]:
        """The stored rows of one class, or all, in blocks."""
        if not self.resident:
            for block in self.bank.blocks(size, label, mirrored=False):
                yield self._rows(block.x, block.index)
            return
        kept, begins = self._kept
        first, last = (0, len(kept.q)) if label is None else (int(begins[label]), int(begins[label + 1]))
        for start in range(first, last, size):
            part = slice(start, min(start + size, last))
            yield Rows(kept.q[part], kept.square[part], kept.index[part])

    def mirror(self, flat: Tensor) -> Tensor:
        """Flat vectors (*, d) of the bank's shape, mirrored along the last axis."""
        return flat.reshape(-1, *self.bank.shape).flip(-1).reshape(flat.shape)

    def fetch(self, index: Tensor) -> Tensor:
        """Rows as they are (not centred), flat and float64, by index; exact."""
        return self.bank[index].reshape(len(index), self.bank.d).to(self.device, torch.float64)
