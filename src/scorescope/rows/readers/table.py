"""A table of numbers in a .csv or .tsv file: a row of the bank for each line, of all columns that are not its label or its name.

A first line that is not all numbers is the head; without one, columns are called 0, 1, 2 and so on.
"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from scorescope.errors import InputError, unknown
from scorescope.rows.arrays import array_source
from scorescope.rows.options import Options
from scorescope.rows.raw import Raw, in_words, raw_array
from scorescope.rows.storage import Progress, Source
from scorescope.rows.tags import LABEL_NAMES, Said, read_tags

SEPARATORS = {".csv": ",", ".tsv": "\t"}
LINES = 1 << 14  # that are held at once


def accepts(path: Path) -> bool:
    """NAME.csv or NAME.tsv."""
    return path.suffix.lower() in SEPARATORS


def source(path: Path, options: Options, progress: Progress) -> Source:
    """The rows of the columns that are asked for, or of all that hold numbers."""
    options.refuse(str(path), "a table", "array")
    head = next(_pieces(path, 1, None))
    known = list(head.columns)
    beside = {name for name in (options.labels, options.names, options.groups) if name is not None and name in known}
    label = next((name for name in LABEL_NAMES if name in known), None) if options.labels is None else None
    if options.columns is not None:
        chosen = chosen_columns(options.columns, known, str(path))
    else:
        chosen = [name for name in known if name not in beside and name != label]
    if not chosen:
        raise InputError(f"{path} has no columns for rows (columns: {', '.join(known)})", "--columns A,B")
    if label is not None:
        beside.add(label)
    kept: dict[str, list[Any]] = {name: [] for name in beside}
    n = 0
    for piece in _pieces(path, LINES, None):
        _numbers(piece, chosen, n, path)
        for name, values in kept.items():
            values += piece[name].tolist()
        n += len(piece)
        progress("looking at lines", n, n)
    columns = {name: raw_array(_column(values, f"{path}: column {name!r}"), f"{path}: column {name!r}") for name, values in kept.items()}
    told = Said(columns, columns.get(label) if label else None, kind="column")

    def batches(count: int, size: int) -> Iterator[np.ndarray]:
        start = 0
        for piece in _pieces(path, size, count):
            yield _numbers(piece, chosen, start, path)
            start += len(piece)

    raw = Raw(str(path), (n, len(chosen)), np.dtype(np.float64), batches)
    return array_source(raw, options, read_tags(str(path), n, options, told))


def chosen_columns(asked: str, known: list[str], where: str) -> list[str]:
    """The columns that a list of names and patterns asks for, in its order.

    Raises:
        InputError: One of them fits no column.
    """
    found: dict[str, None] = {}
    for pattern in filter(None, (part.strip() for part in asked.split(","))):
        fitting = [pattern] if pattern in known else [name for name in known if fnmatchcase(name, pattern)]
        if not fitting:
            raise unknown(f"column of {where}:", pattern, known)
        found |= dict.fromkeys(fitting)
    return list(found)


def _pieces(path: Path, size: int, limit: int | None) -> Iterator[Any]:
    """The table, so many lines at a time."""
    import pandas

    try:
        with open(path, encoding="utf-8-sig") as file:
            words = file.readline().rstrip("\r\n").split(SEPARATORS[path.suffix.lower()])
        bare = all(map(_is_number, words))
        head = None if bare else 0
        sign = SEPARATORS[path.suffix.lower()]
        reader = pandas.read_csv(path, sep=sign, chunksize=size, nrows=limit, header=head, low_memory=False, index_col=False)
        with reader:
            for piece in reader:
                yield piece.rename(columns=str)
    except (ValueError, OSError, UnicodeDecodeError, pandas.errors.ParserError, pandas.errors.ParserWarning) as problem:
        raise InputError(f"{path} can't be read as a table ({in_words(problem)})", "a line a row, of as many columns") from problem


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _numbers(piece: Any, chosen: list[str], start: int, path: Path) -> np.ndarray:
    """The chosen columns (n, columns) of some lines."""
    for name in chosen:
        if len(piece) and piece[name].dtype.kind not in "fiub":
            bad = next(((k, value) for k, value in enumerate(piece[name]) if not _is_number(str(value))), (0, piece[name].iloc[0]))
            said = f"{path}: row {start + bad[0]} has {bad[1]!r:.40} in column {name!r}, not a number"
            raise InputError(said, "--columns with the columns of numbers, --labels or --names with others")
        if piece[name].isna().any():
            raise InputError(f"{path}: row {start + int(piece[name].isna().argmax())} has nothing in column {name!r}", "drop or fill it")
    return piece[chosen].to_numpy(np.float64)


def _column(values: list[Any], where: str) -> np.ndarray:
    """Values of a column as whole numbers or words."""
    empty = next((k for k, value in enumerate(values) if value != value), None)
    if empty is not None:
        raise InputError(f"{where}: row {empty} has no value", "none, or a value for each row")
    return np.array(values)
