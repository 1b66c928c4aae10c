"""EmpiricalScore at several tolerances: by its sweeps where there is a sweep, by `posterior` where there is none."""

from __future__ import annotations

import inspect
from functools import partial

import torch

from scorescope.bench.methods.base import Method, Ready
from scorescope.empirical.score import EmpiricalScore
from scorescope.rows import Bank

DEFAULT = float(inspect.signature(EmpiricalScore).parameters["tolerance"].default)


def prepare(bank: Bank, device: torch.device, memory: int | None, *, tolerance: float) -> Ready:
    """The score of a bank to a tolerance."""
    truth = EmpiricalScore(bank, tolerance=tolerance, device=device, memory=memory)
    return Ready(lambda workload: workload.sweep(truth), lambda: str(getattr(truth, "path", "")))


def name_of(tolerance: float) -> str:
    """What tables and charts call a tolerance."""
    digits, power = f"{tolerance:e}".split("e")
    return f"scorescope-{float(digits):g}e{int(power)}"


def _method(order: int, tolerance: float) -> Method:
    default = ", the default" if tolerance == DEFAULT else ""
    return Method(
        name_of(tolerance), order, f"EmpiricalScore at tolerance {tolerance:g}{default}", partial(prepare, tolerance=tolerance), ours=True
    )


METHODS = tuple(_method(10 + k, tolerance) for k, tolerance in enumerate(sorted({1e-3, DEFAULT, 1e-5, 1e-6, 1e-8}, reverse=True)))
