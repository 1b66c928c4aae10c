"""Rows about their mean in units of their radius, where squares neither overflow float32 nor vanish, however large or small rows are."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorescope.rows.bank import Bank
from scorescope.search.quantize import centre_of

CHUNK = 1 << 18  # float32 values of one step: they stay in the processor's cache
EXTREME = 120  # float32 holds the inverse of 2 to this power


@dataclass(frozen=True)
class Units:
    """Scaled = (x − centre)/unit; `unit` is the radius of the bank, rounded to a power of two, so that dividing by it rounds nothing."""

    bank: Bank
    centre: Tensor
    unit: float

    @staticmethod
    def of(bank: Bank, device: torch.device) -> Units:
        """Those of a bank."""
        power = round(math.log2(bank.radius)) if bank.radius > 0 else 0
        return Units(bank, centre_of(bank, device), 2.0 ** max(-EXTREME, min(EXTREME, power)))

    @property
    def slope(self) -> float:
        """Scaled rows are slope·(stored values) + offset, but for rounding."""
        return (self.bank.high - self.bank.low) / 255 / self.unit if self.bank.rows.dtype == np.uint8 else 1 / self.unit

    @property
    def offset(self) -> Tensor:
        """The scaled row (d,) of stored zeros."""
        return ((self.bank.low if self.bank.rows.dtype == np.uint8 else 0.0) - self.centre) / self.unit

    @property
    def step(self) -> int:
        """Rows of one step."""
        return max(1, CHUNK // self.bank.d)

    def scaled(self, x: Tensor) -> Tensor:
        """Of rows or points (n, d), float64."""
        return (x.double() - self.centre) / self.unit

    def rows(self, stored: np.ndarray, least: int = 1) -> Iterator[tuple[int, Tensor]]:
        """(place of the first, scaled (m, d) float32, each value rounded once) of stored rows (n, *shape), `least` or more at a time."""
        step = max(least, self.step)
        centre = (self.centre / self.unit).float()
        for start in range(0, len(stored), step):
            x = torch.from_numpy(self.bank.decode(stored[start : start + step])).to(centre.device).flatten(1)
            yield start, x.mul_(1 / self.unit).sub_(centre)
