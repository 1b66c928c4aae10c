"""Exact products of 8-bit digits: integers that no flag of the caller's program and no order of summation can change.

A real vector is a sum of planes of digits, v = Σ_k step·254^−k q_k + rest with q_k in [−128, 127], and the rest is known exactly. Products
of planes are 32-bit integers, so that ⟨v, x⟩ is known but for ⟨rest, x⟩ ≤ ‖rest‖‖x‖. Machines multiply 8-bit integers several times
faster than float32; where one lacks such an instruction, float32 products of short pieces give the very same integers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.search.products import has_int8, integer_products

BASE = 254  # half a step of one plane is 127 steps of the next


def arithmetic(device: torch.device) -> str:
    """What multiplies digits on a device: "int8", or "float32" where that is missing."""
    return "int8" if has_int8(device) else "float32"


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """A @ b of digits a (m, k) and b (k, n) int8, exact: (m, n) int32, in `out` where that spares fresh memory."""
    return integer_products(a, b.T, out)


def planes(x: Tensor, step: Tensor | float, count: int) -> tuple[Tensor, Tensor]:
    """Digits (count, *x.shape) int8 of float64 x in units of `step`, largest first, and what they leave (*x.shape) in units of x.

    |x| may be at most 127.5 steps.
    """
    rest = x / step
    found = torch.empty((count, *x.shape), dtype=torch.int8, device=x.device)
    for k in range(count):
        whole = rest.round().clamp_(-128, 127)
        found[k] = whole
        rest = (rest - whole) * BASE
    return found, rest * (step * float(BASE) ** -count)
