"""torch.compile of a network that is trained: all of it as one graph, for the shape of a run's batches, or not at all.

Compiled sums are rounded otherwise than PyTorch's own, so a run is compiled from its first step to its last. Kernels are never chosen by
timing them (inductor's `deterministic`, where this PyTorch has it): the same network is compiled to the same sums again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from scorescope.errors import InputError

WITHOUT = "leaving --compile out"


def compiled(net: nn.Module) -> Callable[..., Any]:
    """The network as torch.compile has it at the first call; weights, names and state dict stay those of `net`."""
    import torch._inductor.config as inductor

    torch.compiler.reset()  # what a process compiled before counts towards torch's limit of kinds of one network
    options: dict[str, Any] = {"deterministic": True} if hasattr(inductor, "deterministic") else {}
    return torch.compile(net, dynamic=False, fullgraph=True, options=options)


def check_compiler(device: str) -> None:
    """Refuse a machine where nothing can be compiled; in a second, and nothing is written.

    Raises:
        InputError: A Python that torch.compile does not support, no C++ compiler for a CPU, no triton for CUDA.
    """
    from torch._dynamo.eval_frame import check_if_dynamo_supported

    try:
        check_if_dynamo_supported()
    except RuntimeError as problem:
        raise InputError(f"--compile does not work on Python {sys.version.split()[0]} ({_line(problem)})", WITHOUT) from problem
    if device.startswith("cuda"):
        from torch.utils._triton import has_triton

        if not has_triton():
            raise InputError("--compile on CUDA needs triton, which is not there", f"pip install triton, or {WITHOUT}")
        return
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except (RuntimeError, OSError) as problem:
        names = "cl" if sys.platform == "win32" else "g++ or clang++"
        hint = f"installing {names} (the variable CXX names another), or {WITHOUT}"
        raise InputError("--compile needs a C++ compiler, and none was found", hint) from problem


@contextmanager
def told() -> Iterator[None]:
    """What the compiler can't do inside the block is one line.

    Raises:
        InputError: It failed.
    """
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as problem:
        raise InputError(f"torch.compile can't compile this network ({_line(problem)})", WITHOUT) from problem


def _line(problem: BaseException) -> str:
    """The first line of an error, or of the one inside it, without its end."""
    inner = getattr(problem, "inner_exception", problem)
    return next(iter(str(inner).strip().splitlines()), type(inner).__name__).strip().rstrip(".:")
