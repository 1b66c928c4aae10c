"""Products of rows whose error is known: exact ones of 8-bit integers, and float32 ones that no setting of the program can change."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

U32, U64 = 2.0**-24, 2.0**-53  # unit roundoffs
INT32_COLUMNS = 1 << 15  # |a|² + |b|² + 2|⟨a, b⟩| of int8 rows this long stays below 2³¹
FLOAT32_COLUMNS = 1 << 10  # a sum of this many products of int8 stays within 2²⁴, where every integer is a float32


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """float32 products are float32 products inside, whatever the caller's program allows itself."""
    backends: list[Any] = [getattr(torch.backends.mkldnn, "matmul", None), torch.backends.cuda.matmul]
    knobs = [backend for backend in backends if hasattr(backend, "fp32_precision")]
    before = [knob.fp32_precision for knob in knobs] if knobs else [torch.get_float32_matmul_precision()]
    try:
        for knob in knobs:
            knob.fp32_precision = "ieee"
        if not knobs:
            torch.set_float32_matmul_precision("highest")
        with torch.autocast(device.type, enabled=False), torch.no_grad():
            yield
    finally:
        for knob, value in zip(knobs, before, strict=False):
            knob.fp32_precision = value
        if not knobs:
            torch.set_float32_matmul_precision(before[0])


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


class Workspace(threading.local):
    """int32 memory for products that are done with when the next begin: fresh memory is slow to touch. Each thread has its own."""

    def __init__(self) -> None:
        self.blocks: list[Tensor] = []
        self.used = 0

    def begin(self) -> None:
        """Nobody needs what was taken so far."""
        self.used = 0

    def take(self, m: int, n: int, device: torch.device) -> Tensor:
        """Memory for (m, n) products."""
        if self.used == len(self.blocks):
            self.blocks.append(torch.empty(0, dtype=torch.int32, device=device))
        if self.blocks[self.used].numel() < m * n:
            size = m * n * (2 if device.type == "cpu" else 1)  # a page of a CPU's memory costs nothing until it is touched
            with torch.inference_mode(False):  # it will be written outside, too
                self.blocks[self.used] = torch.empty(size, dtype=torch.int32, device=device)
        self.used += 1
        return self.blocks[self.used - 1][: m * n].view(m, n)


def integer_products(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """⟨a_i, b_j⟩ (m, n) of int8 rows a (m, d) and b (n, d), exact: int32 for up to 32,768 columns, int64 beyond.

    Without int8 hardware, float32 products of pieces short enough to be exact; rounding a product's factors to TF32 or bfloat16, as a
    program may allow, leaves 8-bit integers as they are. They are in `out` where that spares fresh memory; the result tells.
    """
    step = INT32_COLUMNS if has_int8(a.device) else FLOAT32_COLUMNS
    total = _part(a[:, :step], b[:, :step], out)
    if a.shape[1] > INT32_COLUMNS:
        total = total.long()
    for start in range(step, a.shape[1], step):
        total += _part(a[:, start : start + step], b[:, start : start + step])
    return total


def _part(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    if not has_int8(a.device):
        return (_as_float(a, 0) @ _as_float(b, 1).T).to(torch.int32)
    if a.device.type == "cpu":
        if a.shape[1] == 1:  # answered wrongly by oneDNN
            return a.int() * b.int().T
        return torch._int_mm(a.contiguous(), b.T) if out is None else torch._int_mm(a.contiguous(), b.T, out=out)
    # CUDA wants more than 16 rows, and multiples of 8.
    (m, d), n = a.shape, len(b)
    wide = torch.nn.functional.pad(a, (0, -d % 8, 0, max(24 - m, -m % 8)))
    tall = torch.nn.functional.pad(b, (0, -d % 8, 0, max(24 - n, -n % 8)))
    return torch._int_mm(wide.contiguous(), tall.contiguous().T)[:m, :n]


_buffer = threading.local()  # of a thread: fresh memory is slow to touch


def _as_float(x: Tensor, side: int) -> Tensor:
    """`x` in float32, until this thread asks for the next on that side of a product."""
    if x.device.type != "cpu":
        return x.float()
    buffers = _buffer.__dict__.setdefault("buffers", {})
    if side not in buffers or buffers[side].numel() < x.numel():
        with torch.inference_mode(False):  # it will be written outside, too
            buffers[side] = torch.empty(x.numel(), dtype=torch.float32)
    return buffers[side][: x.numel()].view(x.shape).copy_(x)
