"""Shelf: a bank's rows as the engine reads them: kept on the device where they fit, read from disk in order where not.

Rows are centred: the mean is subtracted (and α·mean from the state), which leaves every distance as it is and makes norms, and with
them rounding errors, smaller. Mirrored rows are never made: ⟨z, mirror(x)⟩ = ⟨mirror(z), x⟩, and the mean of a bank with flips is
symmetric.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from scorescope.bank import Bank


@dataclass(frozen=True)
class Rows:
    """Some stored rows: x (n, d) float32 exact and not centred, square (n,) float64 centred squared norms, index (n,) int64."""

    x: Tensor
    square: Tensor
    index: Tensor
    mean: Tensor  # (d,) float32

    def centred(self, dtype: torch.dtype) -> Tensor:
        """X − mean (n, d), subtracted in `dtype`."""
        return self.x.to(dtype) - self.mean.to(dtype)


class Shelf:
    """The rows of `bank` on `device`, resident if they take at most `memory` bytes."""

    def __init__(self, bank: Bank, device: torch.device | str, memory: int) -> None:
        self.bank, self.device = bank, torch.device(device)
        self.resident = len(bank.rows) * (bank.d * 4 + 16) <= memory
        self.block = int(max(256, min(8192, memory // 8 // (bank.d * 12))))

    @cached_property
    def mean(self) -> Tensor:
        """What is subtracted: the bank's mean rounded to float32, (d,) float32."""
        return self.bank.mean.float().flatten().to(self.device)

    def _rows(self, x: Tensor, index: np.ndarray) -> Rows:
        x = x.to(self.device)
        square = (x.double() - self.mean.double()).square().sum(1)
        return Rows(x, square, torch.from_numpy(index).to(self.device), self.mean)

    @cached_property
    def _kept(self) -> tuple[Rows, np.ndarray]:
        """All rows sorted by class, and where each class begins."""
        bank = self.bank
        tags = np.zeros(len(bank.rows), dtype=np.int64) if bank.labels is None else bank.labels
        order = np.argsort(tags, kind="stable")
        parts = []
        for start in range(0, len(order), self.block):
            index = order[start : start + self.block]
            parts.append(self._rows(bank[index].reshape(len(index), -1), index))
        x, square, indices = (torch.cat([getattr(part, name) for part in parts]) for name in ("x", "square", "index"))
        return Rows(x, square, indices, self.mean), np.searchsorted(tags[order], np.arange(max(bank.classes, 1) + 1))

    def rows(self, label: int | None) -> Iterator[Rows]:
        """The stored rows of one class, or all, in blocks."""
        if not self.resident:
            for block in self.bank.blocks(self.block, label, mirrored=False):
                yield self._rows(block.x, block.index)
            return
        kept, begins = self._kept
        first, last = (0, len(kept.x)) if label is None else (int(begins[label]), int(begins[label + 1]))
        for start in range(first, last, self.block):
            part = slice(start, min(start + self.block, last))
            yield Rows(kept.x[part], kept.square[part], kept.index[part], self.mean)

    @cached_property
    def reach(self) -> float:
        """The largest norm of a centred row."""
        return max(float(rows.square.max()) for rows in self.rows(None)) ** 0.5

    def mirror(self, flat: Tensor) -> Tensor:
        """Flat vectors (B, d) of the bank's shape, mirrored along the last axis."""
        return flat.reshape(-1, *self.bank.shape).flip(-1).reshape(flat.shape)

    def fetch(self, index: Tensor) -> Tensor:
        """Rows as they are (not centred), flat and float64, by index; exact."""
        return self.bank[index].reshape(len(index), -1).to(self.device, torch.float64)
