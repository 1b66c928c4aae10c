"""Data sets in an HDF5 file, called by their paths in it; they are read in slices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scorescope.errors import InputError
from scorescope.rows.arrays import container_source
from scorescope.rows.options import Options
from scorescope.rows.raw import Raw, in_words
from scorescope.rows.storage import Progress, Source

SUFFIXES = frozenset({".h5", ".hdf5", ".hdf"})


def accepts(path: Path) -> bool:
    """NAME.h5 or NAME.hdf5."""
    return path.suffix.lower() in SUFFIXES


def source(path: Path, options: Options, progress: Progress) -> Source:
    """The rows of one data set, the labels of another."""
    options.refuse(str(path), "arrays", "columns")
    import h5py

    found: dict[str, Raw] = {}

    def take(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and node.shape is not None:
            found[name] = _raw(path, name, node)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(take)
    except (OSError, RuntimeError, KeyError) as problem:
        raise InputError(f"{path} can't be read as HDF5 ({in_words(problem)})", "writing it again") from problem
    return container_source(found, str(path), options)


def _raw(path: Path, name: str, node: Any) -> Raw:
    import h5py

    words = h5py.check_string_dtype(node.dtype) is not None

    def batches(n: int, size: int) -> Iterator[np.ndarray]:
        try:
            with h5py.File(path, "r") as file:
                data = file[name].asstr() if words else file[name]
                for start in range(0, n, size):
                    rows = np.asarray(data[start : min(n, start + size)])
                    yield rows.astype(str) if words else rows
        except (OSError, RuntimeError, KeyError) as problem:
            raise InputError(f"{path} was cut or altered: {name} can't be read ({in_words(problem)})", "writing it again") from problem

    return Raw(f"{path}: array {name!r}", tuple(node.shape), np.dtype(str) if words else node.dtype, batches)
