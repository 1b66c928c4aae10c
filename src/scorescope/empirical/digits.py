"""Exact products of 8-bit digits: integers that no flag of the caller's program and no order of summation can change.

A real vector is a sum of planes of digits, v = Σ_k step·254^−k q_k + rest with q_k in [−128, 127], and the rest is known exactly. Products
of planes are 32-bit integers, so that ⟨v, x⟩ is known but for ⟨rest, x⟩ ≤ ‖rest‖‖x‖. Machines multiply 8-bit integers several times
faster than float32; where one lacks such an instruction, float32 products of short pieces give the very same integers.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

BASE = 254  # half a step of one plane is 127 steps of the next
PIECE = 1024  # 128²·1024 = 2²⁴: a float32 product of this many digits is exact in any order


@cache
def arithmetic(device: torch.device) -> str:
    """What multiplies digits on a device: "int8", or "float32" where that is missing."""
    try:
        ones = torch.ones(32, 32, dtype=torch.int8, device=device)
        return "int8" if int(torch._int_mm(ones, ones)[0, 0]) == 32 else "float32"
    except RuntimeError:
        return "float32"


def product(a: Tensor, b: Tensor) -> Tensor:
    """A @ b of digits a (m, k) and b (k, n) int8, exact: (m, n) int32. k may be at most 131,000."""
    if arithmetic(a.device) == "float32":
        return _pieces(a, b)
    if a.device.type == "cpu":
        return torch._int_mm(a, b)
    # cuBLAS wants more than 16 rows, and sizes that are multiples of 8.
    (m, k), n = a.shape, b.shape[1]
    rows, inner, columns = max(24, -m % 8 + m) - m, -k % 8, -n % 8
    if rows or inner:
        a = torch.nn.functional.pad(a, (0, inner, 0, rows))
    if inner or columns:
        b = torch.nn.functional.pad(b, (0, columns, 0, inner))
    return torch._int_mm(a.contiguous(), b)[:m, :n]


def _pieces(a: Tensor, b: Tensor) -> Tensor:
    """The same by float32 products of pieces."""
    total = torch.zeros(a.shape[0], b.shape[1], dtype=torch.int32, device=a.device)
    for start in range(0, a.shape[1], PIECE):
        part = slice(start, start + PIECE)
        total += (a[:, part].float() @ b[part].float()).int()
    return total


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
