"""The rows nearest to a state's shell on its inner and on its outer side: one of the two has the distance ratio nearest to 1 (Eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor


class Nearest:
    """For `count` states the nearest row on either side so far, by logits relative to the shell's.

    Attributes:
        best: (2, count) float32 distance of its logit from the shell's: inside, outside; infinite where none was seen.
        row: (2, count) int64 its index.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.best = torch.full((2, count), torch.inf, dtype=torch.float32, device=device)
        self.row = torch.full((2, count), -1, dtype=torch.int64, device=device)

    def see(self, above: Tensor, part: slice, index: Tensor) -> None:
        """Take in rows `index` (n,) with logits `above` (m, n) that of the shell, for the states of `part`."""
        for side, inner in enumerate((True, False)):
            near, place = torch.where((above >= 0) == inner, above.abs(), torch.inf).min(1)
            better = near < self.best[side, part]
            self.best[side, part] = torch.where(better, near.float(), self.best[side, part])
            self.row[side, part] = torch.where(better, index[place], self.row[side, part])

    def pairs(self) -> tuple[Tensor, Tensor]:
        """(state, row) of every row that is the nearest on its side."""
        state = torch.arange(self.row.shape[1], device=self.row.device).expand(2, -1)
        found = self.row >= 0
        return state[found], self.row[found]
