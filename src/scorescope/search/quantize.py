"""Rows as 8-bit integers, and what that leaves out: the quantizer of the engine of digits.

    x = centre + step·q + residual,    q = clip(round((x − centre)/step), −127, 127)

    x (d,)         a row in model space
    centre (d,)    the mean of all rows, in float32; for rows stored in 8 bits the value of a stored 128
    step           one number for the whole bank; for rows stored in 8 bits the distance of two stored values
    q (d,)         int8; for rows stored in 8 bits the stored numbers − 128
    residual (d,)  known by its norm; for rows stored in 8 bits no more than the float32 of model space rounds

For every vector z (Cauchy–Schwarz) and every two rows (triangle inequality)

    |⟨z, x − centre⟩ − step·⟨z, q⟩| ≤ ‖z‖·‖residual‖
    | ‖x − x′‖ − step·‖q − q′‖ | ≤ ‖residual‖ + ‖residual′‖

The centre of a bank with flips is its own mirror image, so the q of a mirrored row are the q of the row, mirrored.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorescope.rows.bank import Bank

SAMPLED = 1 << 21  # values from which the step is chosen
QUANTILES = 33  # steps that are tried
CHUNK = 1 << 18  # float64 values of one step of the arithmetic: they stay in the processor's cache
OUTWARD = 1 + 2.0**-40  # covers the rounding of a float64 norm of millions of values
BASE = 254  # half a step of one plane is 127 steps of the next


@dataclass(frozen=True)
class Quantized:
    """Rows as q (n, d) int8, with their norms square = ‖x − centre‖² and residual = ‖x − centre − step·q‖, (n,) float64."""

    q: Tensor
    square: Tensor
    residual: Tensor


@dataclass(frozen=True)
class Quantizer:
    """centre (d,) float64, step, and for rows stored in 8 bits the `table` (256,) float64 of the values of q = −128 … 127."""

    centre: Tensor
    step: float
    table: Tensor | None = None

    @staticmethod
    def of(bank: Bank, device: torch.device) -> Quantizer:
        """The quantizer of a bank; floats are read once if their mean is not known yet."""
        if bank.rows.dtype == np.uint8:
            span = bank.high - bank.low
            table = torch.from_numpy(bank.decode(np.arange(256, dtype=np.uint8))).to(device, torch.float64)
            return Quantizer(torch.full((bank.d,), bank.low + span * 128 / 255, dtype=torch.float64, device=device), span / 255, table)
        centre = centre_of(bank, torch.device("cpu"))
        return Quantizer(centre.to(device), best_step(bank, centre))

    def q(self, stored: np.ndarray) -> Tensor:
        """Q (n, d) int8 of rows as stored (n, *shape)."""
        if self.table is not None:
            return self._flat(stored ^ np.uint8(128)).view(torch.int8)
        return torch.cat([whole.to(torch.int8) for _, whole in self._rounded(stored)])

    def quantized(self, stored: np.ndarray) -> Quantized:
        """Rows as stored (n, *shape), with the norms, none of which is too small by more than float64's rounding of x itself."""
        if self.table is not None:
            of_value = torch.stack([self.table - self.centre[0], self.off_grid]).square()
            chunks = [(rows.int().flatten(), rows.shape) for rows in self._flat(stored).split(self._chunk)]
            sums = [[values.index_select(0, rows).view(shape).sum(1) for rows, shape in chunks] for values in of_value]
            return Quantized(self.q(stored), torch.cat(sums[0]), torch.cat(sums[1]).sqrt_().mul_(OUTWARD))
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for x, whole in self._rounded(stored):
            square = torch.linalg.vecdot(x, x)
            x.sub_(whole, alpha=self.step)
            found.append((whole.to(torch.int8), square, torch.linalg.vecdot(x, x).sqrt_().mul_(OUTWARD)))
        return Quantized(*map(torch.cat, zip(*found, strict=True)))

    @property
    def off_grid(self) -> Tensor:
        """X − centre − step·q (256,) of a value stored in 8 bits."""
        assert self.table is not None
        return self.table - self.centre[0] - self.step * torch.arange(-128, 128, dtype=torch.float64, device=self.table.device)

    @property
    def _chunk(self) -> int:
        return max(1, CHUNK // len(self.centre))

    def _flat(self, stored: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(stored)).reshape(len(stored), -1).to(self.centre.device)

    def _rounded(self, stored: np.ndarray) -> Iterator[tuple[Tensor, Tensor]]:
        """(x − centre, q), both float64, of some rows of floats at a time."""
        for rows in self._flat(stored).split(self._chunk):
            x = rows.double().sub_(self.centre)
            yield x, (x / self.step).round_().clamp_(-127, 127)


def centre_of(bank: Bank, device: torch.device) -> Tensor:
    """The mean of all rows (d,) as float64 numbers that float32 holds."""
    return bank.mean.flatten().float().double().to(device)


def best_step(bank: Bank, centre: Tensor) -> float:
    """The step with the least ‖residual‖, on average over a sample of rows spread through the bank.

    Steps are tried that just clip no value of some row. The largest of them clips nothing at all, but one bright pixel in a million
    would then make every row coarse; an average of squares would let that pixel decide too.
    """
    count = max(1, min(len(bank.rows), SAMPLED // bank.d))
    x = torch.from_numpy(bank.stored_at(np.linspace(0, len(bank.rows) - 1, count).astype(np.int64))).reshape(count, -1).double() - centre
    peak = x.abs().amax(1)
    peak = peak[peak > 0]
    if not len(peak):
        return 1.0
    steps = [float(step) / 127 for step in peak.quantile(torch.linspace(0, 1, QUANTILES, dtype=torch.float64)).unique()]
    lost = [float(torch.sub(x, (x / step).round_().clamp_(-127, 127), alpha=step).norm(dim=1).mean()) for step in steps]
    return max(steps[int(np.argmin(lost))], torch.finfo(torch.float32).tiny)


def planes(x: Tensor, step: Tensor | float, count: int) -> tuple[Tensor, Tensor]:
    """Digit planes q (count, *x.shape) int8 of float64 x = Σ_k step·254^−k q_k + residual, largest first, and the residual (*x.shape).

    |x| may be at most 127.5 steps.
    """
    rest = x / step
    found = torch.empty((count, *x.shape), dtype=torch.int8, device=x.device)
    for k in range(count):
        whole = rest.round().clamp_(-128, 127)
        found[k] = whole
        rest = (rest - whole) * BASE
    return found, rest * (step * float(BASE) ** -count)
