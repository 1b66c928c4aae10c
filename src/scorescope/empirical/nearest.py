"""The rows nearest to a state's shell on its inner and on its outer side: one of the two has the distance ratio nearest to 1 (Eq. 4)."""

from __future__ import annotations

import torch
from torch import Tensor


class Nearest:
    """For `count` states the nearest row on either side so far, by logits relative to the shell's."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.best = torch.zeros(2, count, dtype=torch.float64, device=device)
        self.row = torch.full((2, count), -1, dtype=torch.int64, device=device)

    def see(self, above: Tensor, part: slice, index: Tensor) -> None:
        """Take in rows `index` (n,) with logits `above` (m, n) that of the shell, which are overwritten, for the states of `part`."""
        inverse = above.reciprocal_()
        for side, best in enumerate((inverse.amax(1), -inverse.amin(1))):
            better = (best > self.best[side, part]).nonzero().flatten()
            if len(better):
                seen = inverse if len(better) == len(inverse) else inverse[better]
                place = seen.argmin(1) if side else seen.argmax(1)
                self.best[side, better + part.start] = best[better].double()
                self.row[side, better + part.start] = index[place]

    def pairs(self) -> tuple[Tensor, Tensor]:
        """(state, row) of every row that is the nearest on its side."""
        state = torch.arange(self.row.shape[1], device=self.row.device).expand(2, -1)
        found = self.row >= 0
        return state[found], self.row[found]
