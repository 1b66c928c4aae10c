"""Randomness belongs to the item: every path, sample and training example has a generator of its own.

An item's stream is named by (seed, purpose, item, step) and by nothing else, so neither batch size, nor the order of work, nor
the number of ranks, nor the device can change it. Numbers are drawn on the CPU by NumPy's counter-based Philox; those of all rows of a
bank, of which each item has one a row, are hashed on the device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

GOLDEN, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # of SplitMix64, as signed 64-bit integers
LOWEST, HIGHEST = -4.0, 38.0  # between which all Gumbel numbers of 53 bits lie


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


def uniform(key: Tensor | int, row: Tensor) -> Tensor:
    """Float64 in (0, 1) of int64 keys of items and row indices, broadcast against each other."""
    x = key + (row + 1) * GOLDEN
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * FIRST
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * SECOND
    x = x ^ (x >> 31 & (1 << 33) - 1)
    return ((x >> 11 & (1 << 53) - 1).double() + 0.5) * 2.0**-53


def gumbel(key: Tensor, row: Tensor) -> Tensor:
    """Standard Gumbel numbers, likewise."""
    return -(-uniform(key, row).log()).log()
