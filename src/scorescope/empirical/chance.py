"""Random numbers that belong to a row: the same in any order and on every machine."""

from __future__ import annotations

from torch import Tensor

GOLDEN, FIRST, SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # of SplitMix64, as signed 64-bit integers
LOWEST, HIGHEST = -4.0, 38.0  # between which all Gumbel numbers of 53 bits lie


def uniform(key: Tensor | int, row: Tensor) -> Tensor:
    """Float64 in (0, 1) of int64 keys and row indices, broadcast against each other."""
    x = key + (row + 1) * GOLDEN
    x = (x ^ (x >> 30 & (1 << 34) - 1)) * FIRST
    x = (x ^ (x >> 27 & (1 << 37) - 1)) * SECOND
    x = x ^ (x >> 31 & (1 << 33) - 1)
    return ((x >> 11 & (1 << 53) - 1).double() + 0.5) * 2.0**-53


def gumbel(key: Tensor, row: Tensor) -> Tensor:
    """Standard Gumbel numbers, likewise."""
    return -(-uniform(key, row).log()).log()
