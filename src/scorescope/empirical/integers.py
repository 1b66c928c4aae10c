"""Products of 8-bit integers, and what products of each kind cost on this machine."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from scorescope.search.products import full_precision, product, seconds

COLUMNS = (1 << 15) - 8  # products of so many int8 add up to less than 2²⁹: four such sums fit an int32
VALUES = 1024  # of the vectors whose products are timed


@dataclass(frozen=True)
class Costs:
    """Seconds that a value takes in products in float32, in float64, and of 8-bit integers; inf where these are not exact."""

    single: float
    double: float
    integer: float


@cache
def costs_of(device: torch.device, threads: int) -> Costs:
    """Measured once in a process, with so many threads. Only what is the faster way hangs on them, no answer."""
    sizes = (128, 1024) if device.type == "cpu" else (256, 1 << 14)

    def cost(make: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> float:
        a, b = (torch.ones(n, VALUES, device=device, dtype=dtype) for n in sizes)
        return seconds(lambda: make(a, b)[0, 0].item()) / (sizes[0] * sizes[1] * VALUES)

    with full_precision(device):
        integer = cost(integer_products, torch.int8) if exact(device) else torch.inf
        return Costs(cost(product, torch.float32), cost(torch.nn.functional.linear, torch.float64), integer)


@cache
def exact(device: torch.device) -> bool:
    """Whether PyTorch multiplies 8-bit integers here, and does not saturate."""
    try:
        for x, y, few in itertools.product((-128, 127), (-128, 127), (4, 64)):
            a, b = (torch.full((n, 96), value, dtype=torch.int8, device=device) for n, value in ((few, x), (64, y)))
            if not bool((integer_products(a, b) == 96 * x * y).all()):
                return False
    except RuntimeError:
        return False
    return True


def integer_products(a: Tensor, b: Tensor) -> Tensor:
    """⟨a_i, b_j⟩ (m, n) of int8 vectors a (m, d) and b (n, d), exact: int32 for up to 32,760 columns, int64 beyond."""
    if a.shape[1] <= COLUMNS:
        return _product(a, b)
    parts = zip(a.split(COLUMNS, 1), b.split(COLUMNS, 1), strict=True)
    return torch.stack([_product(*part).long() for part in parts]).sum(0)


def _product(a: Tensor, b: Tensor) -> Tensor:
    if a.device.type != "cpu":
        return _padded(a, b)
    if a.shape[1] <= 1:  # answered wrongly by oneDNN
        return a.int() @ b.int().T
    if len(a) < len(b) and b.is_contiguous():  # what stands to the right is put in another order first
        few = a if len(a) in (1, 2, 4, 8) else torch.nn.functional.pad(a, (0, 0, 0, -len(a) % 16))  # others are slower
        return torch._int_mm(b, few.T)[:, : len(a)].T
    return torch._int_mm(a.contiguous(), b.T)


def _padded(a: Tensor, b: Tensor) -> Tensor:
    """As CUDA wants it: more than 16 rows, and multiples of 8."""
    more = [(0, -x.shape[1] % 8, 0, max(24 - len(x), -len(x) % 8)) for x in (a, b)]
    wide, tall = (torch.nn.functional.pad(x, by).contiguous() if any(by) else x.contiguous() for x, by in zip((a, b), more, strict=True))
    return torch._int_mm(wide, tall.T)[: len(a), : len(b)]
