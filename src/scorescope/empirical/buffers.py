"""Memory that is used again: fresh memory is slow to touch."""

from __future__ import annotations

import threading
from collections.abc import Callable
from math import prod

import torch
from torch import Tensor


class Buffers(threading.local):
    """Named pieces of memory, each as large as was asked of it so far; every thread has its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pieces: dict[tuple[str, torch.dtype], Tensor] = {}
        self.owned: dict[str, tuple[object, Tensor]] = {}

    def take(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Room for a tensor, with whatever was in it; the piece of that name is not to be used any more."""
        size = prod(shape)
        held = self.pieces.get((name, dtype))
        if held is None or held.numel() < size:
            with torch.inference_mode(False):  # it will be written outside, too
                held = self.pieces[name, dtype] = torch.empty(size, dtype=dtype, device=self.device)
        return held[:size].view(shape)

    def filled(self, name: str, x: Tensor, dtype: torch.dtype = torch.float64) -> Tensor:
        """`x` in another type."""
        return self.take(name, tuple(x.shape), dtype).copy_(x)

    def once(self, name: str, owner: object, make: Callable[[], Tensor]) -> Tensor:
        """What is made for an owner, until another asks under that name."""
        if name not in self.owned or self.owned[name][0] is not owner:
            self.owned.pop(name, None)
            self.owned[name] = owner, make()
        return self.owned[name][1]
