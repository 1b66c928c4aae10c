"""What one pass over stored rows tells: the fingerprint, the statistics of the manifest, rows that are not finite, duplicates.

Rows stream through in batches of any size, which change nothing but the last digit of a sum. Memory is 8 bytes a row (a hash that
finds exact duplicates) and two float64 vectors of one row's size.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np

from scorescope.errors import InputError
from scorescope.rows.content import decode, description_of, non_finite

NAMED = 5


class Summary:
    """Collects what the manifest says about the rows.

    Args:
        dtype: Storage type of the rows.
        shape: (N, *row).
        flips: Whether each row also stands for its mirror image.
        low: Model-space value of a stored 0 (8-bit storage only).
        high: Model-space value of a stored 255.
    """

    def __init__(self, dtype: np.dtype[Any], shape: tuple[int, ...], *, flips: bool, low: float, high: float) -> None:
        self.dtype, self.shape, self.flips, self.low, self.high = dtype, shape, flips, low, high
        description = description_of(dtype, shape, flips=flips, low=low, high=high)
        # The same bytes in the same order as bank.fingerprint_of.
        self._digest = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
        self._hashes = np.zeros(shape[0], np.uint64)
        self._shift: np.ndarray | None = None
        self._total = np.zeros(shape[1:], np.float64)
        self._square, self._minimum, self._maximum = 0.0, np.inf, -np.inf
        self._bad: list[int] = []
        self._bad_count = 0
        self.mean = np.zeros(shape[1:], np.float64)
        """Mean of the rows and their mirror images, once all were seen."""
        self.seen = 0

    @property
    def sound(self) -> bool:
        """Whether every row so far was finite."""
        return not self._bad_count

    def update(self, rows: np.ndarray) -> None:
        """Take in the next rows, as stored, in order."""
        start, self.seen = self.seen, self.seen + len(rows)
        if self.seen > self.shape[0]:
            raise InputError(
                f"the source gave more rows than the {self.shape[0]:,} it announced", "a source that does not change meanwhile"
            )
        if rows.dtype != np.uint8:
            bad = np.flatnonzero(~np.isfinite(rows.reshape(len(rows), -1)).all(1))
            self._bad += [start + int(i) for i in bad[: NAMED - len(self._bad)]]
            self._bad_count += len(bad)
        if not self.sound:
            return  # The rest is only searched for more rows to name.
        rows = np.ascontiguousarray(rows)
        self._digest.update(rows.data)
        for i, row in enumerate(rows, start):
            self._hashes[i] = int.from_bytes(hashlib.blake2b(row.data, digest_size=8).digest(), "little")
        x = decode(rows, self.low, self.high).astype(np.float64)
        self._minimum, self._maximum = min(self._minimum, float(x.min())), max(self._maximum, float(x.max()))
        if self._shift is None:
            # Sums are taken about one row, so that data far from zero loses no digits; symmetric, so that mirrors share it.
            self._shift = (x[0] + x[0][..., ::-1]) / 2 if self.flips else x[0].copy()
        x -= self._shift
        self._total += x.sum(0)
        self._square += float(np.square(x, out=x).sum())

    def refuse_non_finite(self, where: str) -> None:
        """Raise `InputError` naming the rows that contain NaN or Inf."""
        if not self.sound:
            raise non_finite(where, self._bad, self._bad_count, self.shape[0])

    def finish(self, labels: np.ndarray | None) -> dict[str, Any]:
        """The manifest's entries about the content, once all rows were seen."""
        if self.seen != self.shape[0] or self._shift is None:
            raise InputError(
                f"the source gave {self.seen:,} rows of the {self.shape[0]:,} it announced", "a source that does not change meanwhile"
            )
        if labels is not None:
            self._digest.update(b"labels" + np.ascontiguousarray(labels, dtype="<i8").tobytes())
        n = self.shape[0]
        total = (self._total + self._total[..., ::-1]) / 2 if self.flips else self._total
        offset = total / n
        mean = self.mean = self._shift + offset
        duplicates, examples = self._duplicates()
        summary = {
            "minimum": self._minimum,
            "maximum": self._maximum,
            "mean": float(mean.mean()),
            "channel_means": [float(channel.mean()) for channel in mean] if mean.ndim == 3 else None,
            "radius": max(self._square / n - float(np.square(offset).sum()), 0.0) ** 0.5,
            "duplicates": duplicates,
            "fingerprint": self._digest.hexdigest(),
        }
        return {**summary, "cautions": self._cautions(summary, examples)}

    def _duplicates(self) -> tuple[int, list[tuple[int, int]]]:
        """How many rows repeat an earlier row, and the first few as (row, earlier row)."""
        order = np.argsort(self._hashes, kind="stable")
        repeats = np.zeros(len(order), bool)
        repeats[1:] = self._hashes[order[1:]] == self._hashes[order[:-1]]
        first = np.maximum.accumulate(np.where(repeats, 0, np.arange(len(order))))
        pairs = sorted((int(order[k]), int(order[first[k]])) for k in np.flatnonzero(repeats)[:100_000])
        return int(repeats.sum()), pairs[:3]

    def _cautions(self, summary: dict[str, Any], examples: list[tuple[int, int]]) -> list[str]:
        """What a user should know about data that can be stored, but may not be what was meant."""
        n, found = self.shape[0], []
        if n == 1:
            found.append("the bank has one row: its empirical score points at that row everywhere")
        elif summary["radius"] == 0 and not self.flips:
            found.append(f"the data is constant: all {n:,} rows are equal")
        elif summary["duplicates"]:
            named = ", ".join(f"row {row} repeats row {earlier}" for row, earlier in examples)
            more = ", …" if summary["duplicates"] > len(examples) else ""
            found.append(f"{summary['duplicates']:,} of {n:,} rows repeat an earlier row exactly ({named}{more})")
        if summary["minimum"] == summary["maximum"]:
            found.append(f"every value of every row is {summary['minimum']:g}")
        if self.dtype != np.uint8 and summary["minimum"] >= 0 and 200 < summary["maximum"] <= 255:
            found.append("the values go from 0 to 255 and are kept so; 8-bit pixels should be stored as uint8, to be mapped to model space")
        return found
