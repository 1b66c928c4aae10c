"""What a path or an array is, and the rows it holds: one `Source`, whatever it came from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from scorescope.errors import InputError
from scorescope.rows.options import Options
from scorescope.rows.raw import raw_array
from scorescope.rows.readers import npy, reader_of
from scorescope.rows.storage import Progress, Source, refuse_special

KINDS = (
    "images, sound, arrays (.npy, .npz, .h5, .safetensors), a table (.csv, .parquet), a folder, zip or tar of such, a datasets folder, "
    "MNIST's or CIFAR's files, or FILE.py:rows"
)


def read_source(source: str | Path | np.ndarray, options: Options, progress: Progress) -> Source:
    """Find out what `source` is and prepare its rows; the rows themselves are read when they are asked for.

    Raises:
        InputError: The source is missing, empty, unreadable, of mixed shape, or ambiguous; the labels do not fit.
    """
    if isinstance(source, np.ndarray):
        options.refuse("array", "an array in memory", "array", "columns")
        return npy.one_array(raw_array(source, "array"), options)
    path = Path(source)
    if not path.is_dir():
        refuse_special(path)
    reader = reader_of(path)
    if not path.exists() and (reader is None or not _made_up(path)):
        raise InputError(f"no source at {path}", KINDS)
    if reader is None:
        raise InputError(f"{path} is not a source that banks are built from", KINDS)
    found: Source = reader.source(path, options, progress)
    return found


def _made_up(path: Path) -> bool:
    """Whether a path is more than the name of a file: FILE.py:FUNCTION, or a pattern."""
    return any(letter in str(path) for letter in ":*?[{")
