"""The engine for rows of 8 bits in a CPU's memory: products of digits are integers, which no order of summation changes."""

from __future__ import annotations

import numpy as np
import torch

from scorescope.empirical.digits import compiled, engine, shelf, sweep
from scorescope.empirical.ranks import Ranks
from scorescope.rows import Bank

__all__ = ["FINEST", "SMALL", "able", "engine", "shelf", "sweep"]

FINEST = 3e-6  # a tighter tolerance than this is float64's
SMALL = 1 << 20  # values of a bank whose preparation is not worth it


def able(bank: Bank, device: torch.device, memory: int, tolerance: float, ranks: Ranks) -> bool:
    """Whether digits can answer for a bank, on all ranks."""
    fits = memory >= shelf.memory_for(bank, len(ranks.share(len(bank.rows))))
    suits = bank.rows.dtype == np.uint8 and compiled.usable(device) and tolerance >= FINEST and shelf.even(bank)
    return bool(ranks.smallest(torch.tensor(int(fits and suits), device=device)))
