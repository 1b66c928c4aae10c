"""One array of rows (N, *shape) in an .npy file."""

from __future__ import annotations

from pathlib import Path

from scorescope.rows.arrays import array_source
from scorescope.rows.options import Options
from scorescope.rows.raw import Raw, npy
from scorescope.rows.storage import Progress, Source
from scorescope.rows.tags import Said, read_tags


def accepts(path: Path) -> bool:
    """NAME.npy."""
    return path.suffix.lower() == ".npy"


def source(path: Path, options: Options, progress: Progress) -> Source:
    """The rows of the array."""
    options.refuse(str(path), "one array", "array", "columns")
    return one_array(npy(path), options)


def one_array(raw: Raw, options: Options) -> Source:
    """The rows of an array that has nothing beside it."""
    return array_source(raw, options, read_tags(raw.where, raw.shape[0] if raw.shape else 0, options, Said({})))
