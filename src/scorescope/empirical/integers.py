"""Products of 8-bit integers, and what products of each kind cost on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from scorescope.search.products import full_precision

COLUMNS = (1 << 15) - 8  # products of so many int8 add up to less than 2²⁹: four such sums fit an int32
VALUES, TIMES = 1024, 3  # of the vectors whose products are timed, and how often these are


@dataclass(frozen=True)
class Costs:
    """Seconds of products in float32, in float64, and of 8-bit integers; inf where these are not exact."""

    single: float
    double: float
    integer: float


@cache
def costs_of(device: torch.device, threads: int) -> Costs:
    """Measured once in a process, with so many threads: the best of three. Only what is the faster way hangs on them, no answer."""
    found, sizes = list[float](), (128, 1024) if device.type == "cpu" else (256, 1 << 14)
    for dtype in (torch.float32, torch.float64, torch.int8) if exact(device) else (torch.float32, torch.float64):
        a, b = (torch.ones(n, VALUES, device=device, dtype=dtype) for n in sizes)
        taken = []
        for _ in range(TIMES):
            begin = time.perf_counter()
            with full_precision(device):
                (integer_products(a, b) if dtype == torch.int8 else a @ b.T)[0, 0].item()
            taken.append(time.perf_counter() - begin)
        found.append(min(taken))
    return Costs(*found, *[torch.inf] * (3 - len(found)))


@cache
def exact(device: torch.device) -> bool:
    """Whether PyTorch multiplies 8-bit integers here, and does not saturate."""
    try:
        for x, y in ((-128, -128), (-128, 127), (127, 127)):
            a, b = (torch.full((32, 96), value, dtype=torch.int8, device=device) for value in (x, y))
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
    return torch._int_mm(a.contiguous(), b.T)


def _padded(a: Tensor, b: Tensor) -> Tensor:
    """As CUDA wants it: more than 16 rows, and multiples of 8."""
    more = [(0, -x.shape[1] % 8, 0, max(24 - len(x), -len(x) % 8)) for x in (a, b)]
    wide, tall = (torch.nn.functional.pad(x, by).contiguous() if any(by) else x.contiguous() for x, by in zip((a, b), more, strict=True))
    return torch._int_mm(wide, tall.T)[: len(a), : len(b)]
