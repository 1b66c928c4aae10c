"""Rows that a function of the user's yields: `my_data.py:rows`, for whatever no other reader reads.

It takes no arguments and yields rows, (row, label) or (row, label, name): arrays or tensors of one shape and type, 8-bit ones as images.
It is run twice, since labels and the number of rows are written first, and must yield the same rows each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from scorescope import user_file
from scorescope.errors import InputError
from scorescope.rows.arrays import array_source
from scorescope.rows.content import as_array
from scorescope.rows.options import Options
from scorescope.rows.raw import Raw, raw_array
from scorescope.rows.storage import Progress, Source
from scorescope.rows.tags import Said, read_tags


def accepts(path: Path) -> bool:
    """FILE.py:FUNCTION; a FILE.py alone is not run."""
    return user_file.accepts(path) and path.suffix != ".py"


def source(path: Path, options: Options, progress: Progress) -> Source:
    """What the function yields."""
    options.refuse(str(path), "a function", "array", "columns")
    name = str(path)
    first: np.ndarray | None = None
    labels: list[Any] = []
    names: list[str] = []
    digests: list[bytes] = []
    for k, (row, label, called) in enumerate(islice(_yielded(name), options.limit)):
        first = row if first is None else first
        if row.shape != first.shape or row.dtype != first.dtype:
            said = f"{name}: row {k} has shape {row.shape} of {row.dtype}, row 0 has {first.shape} of {first.dtype}"
            raise InputError(said, "rows of one shape and type")
        labels += [] if label is None else [label]
        names += [] if called is None else [called]
        digests.append(_digest(row))
        if k % 1000 == 999:
            progress("counting rows", k + 1, k + 1)
    if first is None:
        raise InputError(f"{name} yields no rows", "a function that yields rows")
    n = len(digests)
    for what, found in (("labels", labels), ("names", names)):
        if len(found) not in (0, n):
            raise InputError(f"{name} yields {len(found):,} {what} for {n:,} rows", f"{what} for all rows, or for none")

    def batches(count: int, size: int) -> Iterator[np.ndarray]:
        again, start = islice(_yielded(name), count), 0
        while batch := [row for row, _, _ in islice(again, size)]:
            for k, row in enumerate(batch, start):
                if _digest(row) != digests[k]:
                    said = f"{name} yields another row {k} when it is run again"
                    raise InputError(said, "the same rows in the same order each time, as by a fixed seed")
            yield np.stack(batch)
            start += len(batch)

    told = Said({}, raw_array(as_array(labels), f"{name}: its labels") if labels else None, names=names or None)
    raw = Raw(name, (n, *first.shape), first.dtype, batches)
    return array_source(raw, options, read_tags(name, n, options, told))


def _digest(row: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row).tobytes(), digest_size=8).digest()


def _yielded(name: str) -> Iterator[tuple[np.ndarray, Any, str | None]]:
    """Row, label and name of each that the function yields; errors of the file name its line."""
    file, function = user_file.split(name)
    stream = user_file.built(name, "an iterator of rows")
    with user_file.importable(file.parent), user_file.inside(file):
        try:
            iterator = iter(stream)
        except TypeError as problem:
            said = f"{function} in {file} returned {type(stream).__name__}, which can't be gone through"
            raise InputError(said, "yield row, yield row, label or yield row, label, name") from problem
    while True:
        with user_file.importable(file.parent), user_file.inside(file):
            try:
                one = next(iterator)
            except StopIteration:
                return
        row, label, called = (*one, None, None)[:3] if isinstance(one, tuple) and 1 <= len(one) <= 3 else (one, None, None)
        yield as_array(row), _plain(label), None if called is None else str(called)


def _plain(label: Any) -> Any:
    """A label as a number or a word."""
    found = label if label is None or isinstance(label, str) else as_array(label)
    return found.item() if isinstance(found, np.ndarray) and found.size == 1 else found
