"""What is said of each row beside its values: its label, its name, its group.

Each is a column of the source, a file with a value a row, or, for labels and groups, the part of a row's name that a regular expression
finds. Rows of one group belong together (a patient's, a video's): they are held out together, and are no independent draws.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scorescope.errors import InputError, unknown
from scorescope.rows.content import check_labels
from scorescope.rows.names import check_names
from scorescope.rows.options import Options
from scorescope.rows.raw import Raw, npy, python_objects, raw_array

LABEL_NAMES = ("y", "labels", "label")
FILES = (".npy", ".txt", ".csv")


@dataclass(frozen=True)
class Tags:
    """Of all rows that are kept: labels (N,) int64, a name for each class, names and groups (one a row); each None where there is none."""

    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    names: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Said:
    """What a source says of its rows.

    Attributes:
        columns: Values a row by name, any of which an option can ask for.
        labels: The class of each row, where the source has classes of its own.
        class_names: A name for each class, where labels are numbers with names.
        names: Of the rows, where they have some.
        kind: What a column is called.
    """

    columns: Mapping[str, Raw]
    labels: Raw | None = None
    class_names: tuple[str, ...] | None = None
    names: Sequence[str] | None = None
    kind: str = "array"


def read_tags(where: str, n: int, options: Options, said: Said, kept: np.ndarray | None = None) -> Tags:
    """The tags that the options ask for.

    Args:
        where: What messages call the source.
        n: Rows of the source.
        options: Which column, file or expression has them.
        said: What the source says of its rows.
        kept: Indices of the rows that are kept; the first `--limit` of them unless given.

    Raises:
        InputError: A column or a file that is not there, that has another length, or whose values can't be what they are to be.
    """
    rows = np.arange(min(n, options.limit or n)) if kept is None else kept
    if not len(rows):
        return Tags()
    names = _names(where, n, rows, options, said)
    labels, class_names = _labels(where, n, rows, options, said, names)
    return Tags(labels, class_names, names if options.names != "none" else None, _groups(where, n, rows, options, said, names))


def _names(where: str, n: int, rows: np.ndarray, options: Options, said: Said) -> tuple[str, ...] | None:
    if options.names not in (None, "none"):
        raw = _asked(where, n, "names", str(options.names), said)
        return check_names(_words(_values(raw, n, rows, "name")), len(rows), raw.where)
    return None if said.names is None else check_names((said.names[k] for k in rows), len(rows), where)


def _labels(
    where: str, n: int, rows: np.ndarray, options: Options, said: Said, names: tuple[str, ...] | None
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    asked = options.labels
    if asked == "none":
        return None, None
    if asked is None:
        return (
            (None, None) if said.labels is None else numbered(_values(said.labels, n, rows, "label"), said.labels.where, said.class_names)
        )
    if _pattern(asked, said):
        return numbered(_whole(np.array(_found("labels", asked, names, where))), f"{where}: --labels {asked}")
    raw = _asked(where, n, "labels", asked, said)
    own = said.class_names if raw is said.labels else None
    return numbered(_values(raw, n, rows, "label"), raw.where, own)


def _groups(where: str, n: int, rows: np.ndarray, options: Options, said: Said, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
    asked = options.groups
    if asked in (None, "none"):
        return None
    if _pattern(str(asked), said):
        return check_names(_found("groups", str(asked), names, where), len(rows), where)
    raw = _asked(where, n, "groups", str(asked), said)
    return check_names(_words(_values(raw, n, rows, "group")), len(rows), raw.where)


def numbered(values: np.ndarray, where: str, class_names: tuple[str, ...] | None = None) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels as class numbers from 0; words are numbered in alphabetical order and become the class names."""
    if values.dtype.kind in "US":
        names, numbers = np.unique(np.array(_words(values)), return_inverse=True)
        return numbers.astype(np.int64), tuple(map(str, names))
    return check_labels(values, class_names, where), class_names


# ---- where values are ---------------------------------------------------------------------------------------------------------


def _asked(where: str, n: int, option: str, name: str, said: Said) -> Raw:
    """The column or the file of that name."""
    if name in said.columns:
        return said.columns[name]
    path = Path(name)
    if path.suffix.lower() in FILES:
        if not path.is_file():
            raise InputError(f"--{option} {name} is not there", "a .npy, .txt or .csv file with a value a row, or none")
        return file_column(path, n)
    if said.columns:
        raise unknown(f"{said.kind} of {where}:", name, said.columns)
    remedy = "a .npy, .txt or .csv file with a value a row" + (
        r", or an expression with a group, as '_(\w+)_'" if option != "names" else ""
    )
    raise InputError(f"--{option} {name} is no file, and {where} has no columns", remedy)


def file_column(path: Path, n: int) -> Raw:
    """The values of a file, one for each of n rows: an .npy array, or lines of text, whole numbers if all are; a .csv may have a head."""
    if path.suffix.lower() == ".npy":
        return npy(path)
    try:
        with open(path, newline="", encoding="utf-8") as file:
            if path.suffix.lower() == ".csv":
                table = [row for row in csv.reader(file) if row]
                if any(len(row) != 1 for row in table):
                    raise InputError(f"{path} has {max(map(len, table))} columns", "a file with one column, a value a row")
                lines = [row[0] for row in table][len(table) == n + 1 :]
            else:
                lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InputError(f"{path} can't be read as text ({problem})", "UTF-8, a value a line") from problem
    return raw_array(_whole(np.array(lines)), str(path))


def _values(raw: Raw, n: int, rows: np.ndarray, what: str) -> np.ndarray:
    """The values of the rows, in order."""
    if raw.dtype.hasobject:
        raise python_objects(raw.where)
    if not raw.shape or raw.shape[0] != n or math.prod(raw.shape) != n or (what != "label" and len(raw.shape) > 1):
        raise InputError(f"{raw.where} has shape {raw.shape}; the rows are {n:,}", f"one {what} a row")
    last = int(rows.max()) + 1
    return np.concatenate(list(raw.batches(last, last))).reshape(last)[rows]


def _words(values: np.ndarray) -> list[str]:
    """Values as text; bytes are UTF-8."""
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in values.tolist()]


def _whole(words: np.ndarray) -> np.ndarray:
    """Words as whole numbers where all are."""
    try:
        return words.astype(np.int64) if len(words) else words
    except (ValueError, OverflowError):
        return words


def _pattern(text: str, said: Said) -> bool:
    """Whether an option is a regular expression: no column, no file, and it has a group."""
    return text not in said.columns and Path(text).suffix.lower() not in FILES and "(" in text


def _found(option: str, pattern: str, names: tuple[str, ...] | None, where: str) -> list[str]:
    """What the first group of an expression finds in each name."""
    try:
        expression = re.compile(pattern)
    except re.error as problem:
        raise InputError(f"--{option} {pattern} is no regular expression ({problem})", r"one with a group, as '_(\w+)_'") from problem
    if not expression.groups:
        raise InputError(f"--{option} {pattern} has no group in it", r"the part in brackets, as '_(\w+)_'")
    if names is None:
        raise InputError(f"--{option} {pattern} looks at the names of rows, and those of {where} have none", "--names, or a column")
    found = [expression.search(name) for name in names]
    for name, match in zip(names, found, strict=True):
        if match is None or match[1] is None:
            raise InputError(f"--{option} {pattern} finds nothing in the name {name!r}", "an expression that finds something in every name")
    return [str(match[1]) for match in found if match]
