"""What defines rows in model space, and what may not be among them: storage, value range, fingerprint, NaN and Inf."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scorescope.errors import InputError
from scorescope.rows.tensors import StoredRows

SCHEMA = 1


def fingerprint_of(description: Mapping[str, Any], rows: np.ndarray | StoredRows, labels: np.ndarray | None) -> str:
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
        return table[stored]
    return stored.astype(np.float32)


def refuse_non_finite(rows: np.ndarray, source: str) -> None:
    """Raise `InputError` naming the rows (at most five) that contain NaN or Inf."""
    bad = np.concatenate([~np.isfinite(part.reshape(len(part), -1)).all(1) for part in np.array_split(rows, max(1, len(rows) // 4096))])
    if bad.any():
        raise non_finite(source, np.flatnonzero(bad)[:5].tolist(), int(bad.sum()), len(rows))


def non_finite(source: str, named: Sequence[int], count: int, total: int) -> InputError:
    """The error for rows with NaN or Inf, of which the first few are named."""
    rows = f"row {named[0]} contains" if count == 1 else f"rows {', '.join(map(str, named))}{', …' * (count > len(named))} contain"
    return InputError(f"{source}: {rows} NaN or Inf ({count:,} of {total:,})", "drop or repair them")
