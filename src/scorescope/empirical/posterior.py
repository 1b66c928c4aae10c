"""Posterior: what the empirical distribution says about the clean row behind a state, for a batch of B states."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class Posterior:
    """Moments of softmax_j(−‖z − α x_j‖²/(2σ²)) over the rows of a bank (Eq. 2); all float64, indices int64.

    Attributes:
        mean: (B, *shape) posterior mean x̂*(z, t) = E[x | z_t = z].
        log_density: (B,) log p̂_t(z), natural logarithm, in the coordinates of the schedule.
        entropy: (B,) entropy of the weights in nats.
        ess: (B,) effective number of rows, 1/Σ w².
        top_index: (B,) row with the largest weight, which is the nearest to z/α; `N + i` is row i mirrored.
        top_weight: (B,) its weight.
        r_star: (B,) ‖z − α x_i‖/(σ√d) of the row for which it is nearest to 1 (Eq. 4), among the rows that were asked for; where rows are
            summed and not settled one by one, of one for which it is so but for less than the tolerance.
        error_bound: (B,) upper bound on ‖mean − exact mean‖, in the data's units.
    """

    mean: Tensor
    log_density: Tensor
    entropy: Tensor
    ess: Tensor
    top_index: Tensor
    top_weight: Tensor
    r_star: Tensor
    error_bound: Tensor

    def __getitem__(self, index: Tensor | slice) -> Posterior:
        """The posteriors of some of the states."""
        return Posterior(*(getattr(self, field.name)[index] for field in fields(self)))

    @staticmethod
    def cat(parts: list[Posterior]) -> Posterior:
        """Posteriors of consecutive batches as one."""
        return Posterior(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(Posterior)))

    def scatter_to(self, target: Posterior, index: Tensor) -> None:
        """Write these posteriors into `target` at `index`."""
        for field in fields(self):
            getattr(target, field.name)[index] = getattr(self, field.name)

    @staticmethod
    def empty(batch: int, shape: tuple[int, ...], device: torch.device | str) -> Posterior:
        """Room for `batch` posteriors, to be filled by `scatter_to`."""
        numbers = (torch.full((batch,), torch.nan, dtype=torch.float64, device=device) for _ in range(6))
        index = torch.full((batch,), -1, dtype=torch.int64, device=device)
        mean = torch.full((batch, *shape), torch.nan, dtype=torch.float64, device=device)
        density, entropy, ess, weight, r_star, bound = numbers
        return Posterior(mean, density, entropy, ess, index, weight, r_star, bound)
