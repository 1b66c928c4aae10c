"""Randomness belongs to the item: every path, sample and training example has a generator of its own.

An item's stream is named by (seed, purpose, item, step) and by nothing else, so neither batch size, nor the order of work, nor
the number of ranks, nor the device can change it. Numbers are drawn on the CPU by NumPy's counter-based Philox.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor


def generator(seed: int, purpose: str, item: int, step: int = 0) -> np.random.Generator:
    """The generator of one item. `purpose` ("path", "train", …) keeps streams for different uses apart."""
    tag = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:8], "little")
    key = np.array([seed % 2**64, tag], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, step, item]))


def normal(seed: int, purpose: str, items: Iterable[int], shape: Sequence[int], step: int = 0) -> Tensor:
    """Standard normal float32 noise (len(items), *shape), row k owned by item k."""
    rows = [generator(seed, purpose, int(i), step).standard_normal(tuple(shape), dtype=np.float32) for i in items]
    return torch.from_numpy(np.stack(rows) if rows else np.zeros((0, *shape), np.float32))


def choose(seed: int, purpose: str, items: Iterable[int], n: int) -> np.ndarray:
    """One uniform index in [0, n) for each item, int64 (len(items),)."""
    return np.array([generator(seed, purpose, int(i)).integers(n) for i in items], dtype=np.int64)
