"""Hidden states of a network while it is evaluated, for losses on representations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from scorescope.errors import InputError


def stage_of(net: nn.Module, depth: int, option: str) -> nn.Module:
    """The `depth`-th of the network's stages, counted from 1.

    Raises:
        InputError: The network has fewer.
    """
    stages: list[nn.Module] = net.stages  # type: ignore[assignment]
    if not stages:
        raise InputError("this network has no hidden blocks whose states a loss could look at", "a larger --depth")
    if not 1 <= depth <= len(stages):
        raise InputError(f"{option} {depth} is not one of the network's {len(stages)} blocks", f"{option} {max(1, len(stages) // 2)}")
    return stages[depth - 1]


@contextmanager
def tapped(stage: nn.Module) -> Iterator[list[Tensor]]:
    """After the block: the output that a stage gave last inside it. Nothing is left in the stage.

    A compiled network keeps the hook that it was compiled with, and asks for no other: so it is one function, and leaves what it sees in
    the stage itself.
    """
    seen: list[Tensor] = []
    handle = stage.register_forward_hook(_see)
    try:
        yield seen
        seen.append(vars(stage)["seen"])
    finally:
        handle.remove()
        vars(stage).pop("seen", None)


def _see(module: nn.Module, given: Any, answer: Tensor) -> None:
    module.seen = answer


def tokens(h: Tensor) -> Tensor:
    """Hidden states as tokens (B, L, width): of a transformer as they are, of a convolution (B, width, H, W) place by place."""
    return h.flatten(2).mT if h.ndim == 4 else h if h.ndim == 3 else h[:, None]
