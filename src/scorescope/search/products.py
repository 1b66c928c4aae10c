"""Products in float32 that no setting of the caller's program can change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

U32, U64 = 2.0**-24, 2.0**-53  # unit roundoffs


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
