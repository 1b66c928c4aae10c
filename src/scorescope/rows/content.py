"""What defines rows in model space, and what may not be among them: storage, value range, labels, fingerprint, NaN and Inf."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from scorescope.errors import InputError

SCHEMA = 1
CLASSES, CLASSES_A_ROW = 1 << 16, 16  # more classes than both allow are nearly all empty: the numbers are no class numbers


class Sliced(Protocol):
    """Rows that slices name: an array, rows on the disk, a part of either."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


def fingerprint_of(description: Mapping[str, Any], rows: Sliced, labels: np.ndarray | None) -> str:
    """SHA-256 of everything that defines the rows in model space: storage, value range, flips, the rows and the labels."""
    digest = hashlib.sha256(json.dumps(dict(description), sort_keys=True).encode())
    for start in range(0, len(rows), 1024):
        digest.update(np.ascontiguousarray(rows[start : start + 1024]).tobytes())
    if labels is not None:
        digest.update(b"labels" + np.ascontiguousarray(labels, dtype="<i8").tobytes())
    return digest.hexdigest()


def description_of(dtype: np.dtype[Any], shape: Sequence[int], *, flips: bool, low: float, high: float) -> dict[str, Any]:
    """What, beside rows and labels, defines a bank of `shape` (N, *row) in model space; part of the fingerprint."""
    scaled = {"low": low, "high": high} if dtype == np.uint8 else {}
    return {"schema": SCHEMA, "dtype": dtype.name, "shape": list(shape), "flips": flips, **scaled}


def decode(stored: np.ndarray, low: float, high: float) -> np.ndarray:
    """Stored rows to float32 rows in model space."""
    if stored.dtype == np.uint8:
        table = (low + (high - low) * np.arange(256, dtype=np.float64) / 255.0).astype(np.float32)
        return table.take(stored, mode="clip")  # no number is out of range, and numpy need not look
    if (
        stored.dtype == np.float16 and stored.flags.writeable and stored.flags.c_contiguous
    ):  # PyTorch is three times as fast, but warns of what can't be written
        found: np.ndarray = torch.from_numpy(stored).float().numpy()
        return found
    return stored.astype(np.float32)


def as_array(x: Any) -> np.ndarray:
    """Rows or labels as the user has them, as a NumPy array; bfloat16, which NumPy does not know, becomes float32.

    Raises:
        InputError: A tensor without values in one piece, or rows of mixed shape.
    """
    if isinstance(x, Tensor):
        if x.is_meta or x.layout != torch.strided:
            raise InputError(f"a tensor on {x.device} with layout {x.layout} is no array of values", "a dense tensor")
        x = x.detach().cpu()
        return np.asarray(x.float() if x.dtype == torch.bfloat16 else x)
    try:
        return np.asarray(x)
    except ValueError as problem:
        raise InputError("rows of mixed shape are not a bank", "rows that all have the shape of row 0") from problem


def check_range(low: Any, high: Any) -> tuple[float, float]:
    """Model-space values of 8-bit 0 and 255, as numbers that float32 tells apart.

    Raises:
        InputError: They are none.
    """
    try:
        with np.errstate(over="ignore"):
            ends = np.array([low, high], np.float32)
        sound = bool(np.isfinite(ends).all() and ends[0] < ends[1])
    except (TypeError, ValueError, OverflowError):
        sound = False
    if not sound:
        raise InputError(f"8-bit values from {low} to {high} are not a range", "two finite numbers, the lower one first")
    return float(low), float(high)


def check_labels(values: np.ndarray, names: Sequence[str] | None = None, where: str = "labels") -> np.ndarray:
    """Labels (N,) int64 in [0, classes).

    Raises:
        InputError: They are no integers, negative, without a name in `names`, or so large that nearly all classes would be empty.
    """
    if values.dtype.kind not in "iu":
        raise InputError(f"{where}: labels of type {values.dtype} are not class numbers", "integers from 0, or no labels")
    row, largest = int(values.argmin()), int(values.max())
    if values[row] < 0:
        raise InputError(f"{where}: row {row} has label {values[row]}, a negative class number", "class numbers from 0, or no labels")
    if largest >= max(CLASSES, CLASSES_A_ROW * len(values)):
        said = f"{where}: row {int(values.argmax())} has label {largest:,}, as if {len(values):,} rows had {largest + 1:,} classes"
        raise InputError(said, "class numbers from 0 without gaps, as numpy.unique(labels, return_inverse=True)[1] gives them")
    if names is not None and largest >= len(names):
        raise InputError(f"{where}: label {largest} has no name among the {len(names)} class names", "one name a class")
    return np.ascontiguousarray(values, dtype=np.int64)


def refuse_non_finite(rows: np.ndarray, source: str) -> None:
    """Raise `InputError` naming the rows (at most five) that contain NaN or Inf."""
    bad = np.concatenate([~np.isfinite(part.reshape(len(part), -1)).all(1) for part in np.array_split(rows, max(1, len(rows) // 4096))])
    if bad.any():
        raise non_finite(source, np.flatnonzero(bad)[:5].tolist(), int(bad.sum()), len(rows))


def non_finite(source: str, named: Sequence[int], count: int, total: int) -> InputError:
    """The error for rows with NaN or Inf, of which the first few are named."""
    rows = f"row {named[0]} contains" if count == 1 else f"rows {', '.join(map(str, named))}{', …' * (count > len(named))} contain"
    return InputError(f"{source}: {rows} NaN or Inf ({count:,} of {total:,})", "drop or repair them")
