"""Products of 8-bit integers, exact on every machine, and what products of each kind cost on this one."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

COLUMNS = 1 << 15  # products of so many int8 add up to less than 2³⁰: two such sums fit an int32
FLOAT32_COLUMNS = 1 << 10  # products of so many int8 add up to 2²⁴ at most, below which every integer is a float32
TRIED, AMONG = 128, 1024  # vectors and rows of the products that are timed
TIMES = 3


@dataclass(frozen=True)
class Costs:
    """Seconds of products of 128 vectors with 1,024 rows in float32, in float64, and of 8-bit integers; inf where there are none."""

    single: float
    double: float
    integer: float


@cache
def costs_of(device: torch.device, d: int, threads: int) -> Costs:
    """Measured once in a process, with so many threads: the best of three. Only what is the faster way hangs on them, no answer."""
    if not has_int8(device):
        return Costs(1.0, 2.0, torch.inf)
    found = []
    for dtype in (torch.float32, torch.float64, torch.int8):
        a, b = (torch.ones(n, d, device=device, dtype=dtype) for n in (TRIED, AMONG))
        taken = []
        for _ in range(TIMES + 1):  # the first one starts what has to be started
            begin = time.perf_counter()
            (_product(a, b) if dtype == torch.int8 else a @ b.T)[0, 0].item()
            taken.append(time.perf_counter() - begin)
        found.append(min(taken[1:]))
    return Costs(*found)


@cache
def has_int8(device: torch.device) -> bool:
    """Whether the hardware multiplies 8-bit integers, exactly and faster than floats (CUDA from 7.5, CPUs with VNNI or AMX).

    PyTorch multiplies them on any CPU, but without such instructions a hundred times slower than floats; and sums that older ones
    saturate at 16 bits would not be exact, so the extremes are tried.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (7, 5)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available() or not _instructions():
        return False
    try:
        for x, y in ((-128, -128), (-128, 127), (127, 127)):
            found = torch._int_mm(torch.full((32, 96), x, dtype=torch.int8), torch.full((32, 96), y, dtype=torch.int8).T)
            if not bool((found == 96 * x * y).all()):
                return False
    except RuntimeError:
        return False
    return True


def _instructions() -> bool:
    """Whether the CPU says that it has instructions for products of 8-bit integers."""
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.10
        return torch.cpu._is_vnni_supported()
    known = torch.cpu.get_capabilities()
    return any(known.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8"))


def integer_products(a: Tensor, b: Tensor) -> Tensor:
    """⟨a_i, b_j⟩ (m, n) of int8 vectors a (m, d) and b (n, d), exact: int32 for up to 32,768 columns, int64 beyond.

    Without int8 hardware, float32 products of pieces short enough to be exact; rounding a product's factors to TF32 or bfloat16, as a
    program may allow, leaves 8-bit integers as they are.
    """
    step, total = COLUMNS if has_int8(a.device) else FLOAT32_COLUMNS, None
    for start in range(0, a.shape[1], step):
        part = _product(a[:, start : start + step], b[:, start : start + step])
        total = part.long() if total is None and a.shape[1] > COLUMNS else part if total is None else total.add_(part)
    return torch.zeros(len(a), len(b), dtype=torch.int32, device=a.device) if total is None else total


def _product(a: Tensor, b: Tensor) -> Tensor:
    """Of columns whose sums fit."""
    if not has_int8(a.device):
        return (a.float() @ b.float().T).to(torch.int32)
    if a.device.type == "cpu":
        if a.shape[1] == 1:  # answered wrongly by oneDNN
            return a.int() * b.int().T
        return torch._int_mm(a.contiguous(), b.T)
    return _padded(a, b)


def _padded(a: Tensor, b: Tensor) -> Tensor:
    """As CUDA wants it: more than 16 rows, and multiples of 8."""
    (m, d), n = a.shape, len(b)
    wide = torch.nn.functional.pad(a, (0, -d % 8, 0, max(24 - m, -m % 8)))
    tall = torch.nn.functional.pad(b, (0, -d % 8, 0, max(24 - n, -n % 8)))
    return torch._int_mm(wide.contiguous(), tall.contiguous().T)[:m, :n]
