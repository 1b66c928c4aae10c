"""KeOps: the reduction as one formula, compiled for the bank's dimensions and never held in memory.

It is made for points of few dimensions. For images it works, but reads every row again for each state, so only a few states of a few
steps are timed.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import redirect_stdout
from importlib.util import find_spec

import torch
from torch import Tensor

from scorescope.bench.methods.base import Method, Ready, all_rows, stepwise
from scorescope.errors import InputError
from scorescope.rows import Bank


def lacking(device: torch.device) -> str:
    """KeOps must be installed, and it compiles at run time."""
    if find_spec("pykeops") is None:
        return "not installed (pip install pykeops)"
    return "" if shutil.which("c++") or shutil.which("g++") else "needs a C++ compiler"


def prepare(bank: Bank, device: torch.device, memory: int | None) -> Ready:
    """Rows and squared norms; the formula is compiled by a first question.

    Raises:
        InputError: KeOps can't compile or run it here, for whatever reason.
    """
    with redirect_stdout(sys.stderr):  # where it says what hardware it found
        import pykeops

        pykeops.set_verbose(False)
        from pykeops.torch import LazyTensor

    rows = all_rows(bank, device, torch.float32)
    half = rows.square().sum(1) / 2
    x_j, norm_j = LazyTensor(rows[None]), LazyTensor(half[None, :, None])

    def means(z: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        states = LazyTensor((z * (alpha / sigma**2)[:, None]).float().contiguous()[:, None])
        weight_of_norm = LazyTensor(((alpha / sigma) ** 2).float()[:, None, None])
        found: Tensor = ((states | x_j) - weight_of_norm * norm_j).sumsoftmaxweight(x_j, dim=1)
        return found

    one = torch.ones(1, dtype=torch.float64, device=device)
    try:
        means(torch.zeros(1, bank.d, device=device), one, one)
    except Exception as problem:
        raise InputError(f"does not work here ({type(problem).__name__})") from problem
    return stepwise(means)


METHODS = (Method("keops", 4, "a lazy softmax-weighted sum, compiled by KeOps", prepare, lacking, resident=4, steps=2, states=16),)
