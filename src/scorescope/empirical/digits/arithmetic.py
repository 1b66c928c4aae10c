"""Exact products of 8-bit digits: integers that no flag of the caller's program and no order of summation can change.

A real vector is a sum of digit planes and a residual that is known exactly (`search.quantize.planes`). Products of planes are 32-bit
integers, so that ⟨v, x⟩ is known but for |⟨residual, x⟩| ≤ ‖residual‖‖x‖. Machines multiply 8-bit integers several times faster than
float32; where one lacks such an instruction, float32 products of short pieces give the very same integers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.search.products import has_int8, integer_products


def arithmetic(device: torch.device) -> str:
    """What multiplies digits on a device: "int8", or "float32" where that is missing."""
    return "int8" if has_int8(device) else "float32"


def product(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """A @ b of digits a (m, k) and b (k, n) int8, exact: (m, n) int32, in `out` where that spares fresh memory."""
    return integer_products(a, b.T, out)
