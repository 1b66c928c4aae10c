"""Rows about their mean in units of their radius, where squares neither overflow float32 nor vanish, however large or small rows are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorescope.rows.bank import Bank
from scorescope.rows.content import decode

CHUNK = 1 << 18  # float32 values of one step: they stay in the processor's cache
EXTREME = 120  # float32 holds the inverse of 2 to this power


@dataclass(frozen=True)
class Units:
    """Scaled = (x − centre)/unit; `unit` is the radius of the bank, rounded to a power of two, so that dividing by it rounds nothing."""

    shape: tuple[int, ...]
    values: tuple[float, float] | None  # of the stored 0 and 255; of a bank, which it must not keep alive, nothing else is known
    centre: Tensor
    unit: float

    @staticmethod
    def of(bank: Bank, device: torch.device) -> Units:
        """Those of a bank."""
        power = round(math.log2(bank.radius)) if bank.radius > 0 else 0
        values = (bank.low, bank.high) if bank.rows.dtype == np.uint8 else None
        return Units(bank.shape, values, bank.mean.flatten().float().double().to(device), 2.0 ** max(-EXTREME, min(EXTREME, power)))

    @property
    def slope(self) -> float:
        """Scaled rows are slope·(stored values) + offset, but for rounding."""
        low, high = self.values or (0.0, 255.0)
        return (high - low) / 255 / self.unit

    @property
    def offset(self) -> Tensor:
        """The scaled row (d,) of stored zeros."""
        return ((self.values or (0.0,))[0] - self.centre) / self.unit

    @property
    def d(self) -> int:
        """Values of a row."""
        return len(self.centre)

    @property
    def step(self) -> int:
        """Rows of one step."""
        return max(1, CHUNK // self.d)

    def scaled(self, x: Tensor) -> Tensor:
        """Of rows or points (n, d), float64."""
        return (x.double() - self.centre) / self.unit

    def rows(self, stored: np.ndarray, least: int = 1) -> Iterator[tuple[int, Tensor]]:
        """(place of the first, scaled (m, d) float32, each value rounded once) of stored rows (n, *shape), `least` or more at a time."""
        step = max(least, self.step)
        centre = (self.centre / self.unit).float()
        for start in range(0, len(stored), step):
            x = torch.from_numpy(decode(stored[start : start + step], *(self.values or (0.0, 1.0)))).to(centre.device).flatten(1)
            yield start, x.mul_(1 / self.unit).sub_(centre)
