"""EmpiricalScore: the exact score of a whole training set as a Denoiser (Eq. 2), to a stated tolerance.

logit_j(z, t) = (α⟨z, x_j⟩ − α²‖x_j‖²/2)/σ², x̂* = Σ_j softmax_j(logit) x_j: attention with the training set as keys and values.

float32 may only nominate. One pass of float32 products over the rows gives every logit up to a proven rounding error e; rows whose
logit is below the best by more than 2e + log(N/tolerance) can't matter and are dropped. Where few rows are left, their logits are
computed again from direct differences in float64 (near-ties decide the answer off the shells). Where many are left, all rows are
summed in float64. Either way `error_bound` holds, and no setting of the caller's program (TF32, autocast) can change it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import torch
from torch import Tensor

from scorescope.bank import Bank
from scorescope.denoiser import Denoiser, Label, as_label
from scorescope.empirical.engine import Pass
from scorescope.empirical.posterior import Posterior
from scorescope.empirical.shelf import Shelf
from scorescope.errors import InputError
from scorescope.schedule import LinearSchedule, Schedule, Time, as_time

QUERIES = 256  # states that share one pass over the rows


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """float32 products are float32 products inside, whatever the caller's program allows itself."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False), torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def free_memory(device: torch.device) -> int:
    """Bytes free on a device."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else int(psutil.virtual_memory().available)


class EmpiricalScore(Denoiser):
    """The posterior mean, and with it the score, of the empirical distribution of a bank.

    Args:
        bank: The training set; its flips count as rows.
        schedule: α and σ of the states.
        tolerance: Largest error of a posterior mean, in units of the bank's root-mean-square radius.
        device: Where to compute.
        memory: Bytes that may hold rows; a quarter of what is free unless given. A bank that does not fit is read from disk in order.
    """

    def __init__(
        self,
        bank: Bank,
        schedule: Schedule | None = None,
        tolerance: float = 1e-5,
        *,
        device: torch.device | str = "cpu",
        memory: int | None = None,
    ) -> None:
        if not 0 < tolerance < 1:
            raise InputError(f"tolerance {tolerance} must lie between 0 and 1", "1e-5")
        self.bank, self.schedule, self.tolerance = bank, schedule or LinearSchedule(), tolerance
        self.classes, self.shape, self.name = bank.classes, bank.shape, "empirical score"
        self.device = torch.device(device)
        self.shelf = Shelf(bank, self.device, free_memory(self.device) // 4 if memory is None else memory)

    def to(self, device: torch.device | str) -> EmpiricalScore:
        """The same score computed on another device."""
        return EmpiricalScore(self.bank, self.schedule, self.tolerance, device=device)

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Posterior mean, in the dtype of z."""
        return self.posterior(z, t, label).mean.to(z)

    def posterior(self, z: Tensor, t: Time, label: Label = None) -> Posterior:
        """Everything about the posterior of states z (B, *shape) at t (a number or (B,)), among all rows or those of `label`.

        Raises:
            InputError: Shapes that do not match, t outside [0, 1], states that are not finite (named), a label without rows.
        """
        if tuple(z.shape[1:]) != self.bank.shape:
            raise InputError(f"states of shape {tuple(z.shape[1:])} do not match the bank's rows {self.bank.shape}")
        flat = z.detach().to(self.device, torch.float64).reshape(len(z), -1)
        broken = (~flat.isfinite().all(1)).nonzero().flatten().tolist()
        if broken:
            raise InputError(f"states {', '.join(map(str, broken[:5]))} contain NaN or Inf ({len(broken)} of {len(z)})")
        times = as_time(t).to(self.device)
        times = times.expand(len(z)) if times.ndim == 0 else times
        if times.shape != (len(z),):
            raise InputError(f"t of shape {tuple(times.shape)} does not match {len(z)} states", "one number, or one for each state")
        tags = as_label(label, len(z), self.device)
        result = Posterior.empty(len(z), self.bank.shape, self.device)
        with full_precision(self.device):
            for tag, wanted in _groups(tags, len(z), self.device):
                self.bank.indices(tag)  # refuses a label without rows
                for part in wanted.split(QUERIES):
                    Pass(self.bank, self.schedule, self.shelf, self.tolerance, flat[part], times[part], tag).run().scatter_to(result, part)
        return result


def _groups(tags: Tensor | None, batch: int, device: torch.device) -> list[tuple[int | None, Tensor]]:
    """States by label: (label, their indices)."""
    if tags is None:
        return [(None, torch.arange(batch, device=device))]
    return [(int(tag), (tags == int(tag)).nonzero().flatten()) for tag in tags.unique().tolist()]
