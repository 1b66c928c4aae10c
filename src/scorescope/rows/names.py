"""Names of rows: where a row came from, as a file's path in its folder; and groups, likewise. They change no answer and no fingerprint.

On disk they are one string of UTF-8, a NUL between two names, deflated: about 8 bytes a row for numbered files.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

import numpy as np

from scorescope.errors import InputError

BETWEEN = "\0"


def check_names(names: Iterable[object], n: int, where: str = "names") -> tuple[str, ...]:
    """A name for each of n rows, as text that any file can hold.

    Raises:
        InputError: Another number of names, or one word for all.
    """
    if isinstance(names, str):
        raise InputError(f"{where}: {names!r} is one name", "a name for each row")
    found = tuple(name if isinstance(name, str) else str(name) for name in names)
    if len(found) != n:
        raise InputError(f"{where}: {len(found):,} names do not match {n:,} rows", "one name a row")
    return tuple(name.encode("utf-8", "backslashreplace").decode().replace(BETWEEN, " ") for name in found)


def packed(names: Iterable[str]) -> bytes:
    """Names as they are stored."""
    return zlib.compress(BETWEEN.join(names).encode(), 6)


def unpacked(stored: np.ndarray, n: int, where: str, what: str = "names") -> tuple[str, ...]:
    """The names of n rows, or `what` else was stored so.

    Raises:
        InputError: They were altered.
    """
    try:
        return check_names(zlib.decompress(stored.tobytes()).decode().split(BETWEEN), n, where)
    except (zlib.error, UnicodeDecodeError) as problem:
        raise InputError(f"{where} was altered: the {what} of its rows can't be read", "building the bank again") from problem
