"""Products in float32 that no setting of the caller's program can change, by the fastest library at hand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

U32, U64 = 2.0**-24, 2.0**-53  # unit roundoffs
LARGE = 1 << 20  # multiplications from which on it matters which library makes them
TIMES, LONG = 3, 4e-3  # how often a product is timed, and for how many seconds, at least


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


def product(a: Tensor, b: Tensor) -> Tensor:
    """⟨a_i, b_j⟩ (m, n) of float32 vectors a (m, d) and b (n, d), inside `full_precision`: `a @ b.T`.

    On processors oneDNN, which torch.compile uses, is up to twice as fast as what `@` calls; which is the faster is measured once.
    """
    large = a.device.type == "cpu" and len(a) * b.numel() >= LARGE and (b.is_contiguous() or b.T.is_contiguous())  # others it is slow with
    return _onednn(a, b) if large and _prefers_onednn(torch.get_num_threads()) else a @ b.T


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return found


def seconds(make: Callable[[], Any]) -> float:
    """What it takes: the best of a few times."""
    found = list[float]()
    while len(found) < TIMES or sum(found) < LONG:
        begin = time.perf_counter()
        make()
        found.append(time.perf_counter() - begin)
    return min(found)


@cache
def _prefers_onednn(threads: int) -> bool:
    """Whether oneDNN's products are at hand, are those that `@` makes, and are the faster ones, with so many threads."""
    a, b = ((torch.arange(n * 1024) % size - size // 2).view(n, 1024).float() for n, size in ((128, 2047), (1024, 3)))
    try:
        right = all(torch.equal(_onednn(a, x), a @ x.T) for x in (b, b.T.contiguous().T))  # all sums are whole numbers below 2²⁴
    except (AttributeError, RuntimeError):  # a PyTorch without it
        return False
    return right and seconds(lambda: _onednn(a, b)) < seconds(lambda: a @ b.T)
