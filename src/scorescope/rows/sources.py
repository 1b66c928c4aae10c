"""What a path or an array is, and the rows it holds: one `Source`, whatever it came from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from scorescope.errors import InputError
from scorescope.rows import arrays, hub, images
from scorescope.rows.options import Options
from scorescope.rows.storage import MANIFEST, ROWS, Progress, Source, refuse_special

KINDS = "a folder of images, an .npy or .npz file, a datasets folder, or parquet"


def read_source(source: str | Path | np.ndarray, options: Options, progress: Progress) -> Source:
    """Find out what `source` is and prepare its rows; the rows themselves are read when they are asked for.

    Raises:
        InputError: The source is missing, empty, unreadable, of mixed shape, or ambiguous; the labels do not fit.
    """
    if isinstance(source, np.ndarray):
        return _one_array(arrays.raw_array(source, "array"), options)
    path = Path(source)
    if not path.exists():
        raise InputError(f"no source at {path}", KINDS)
    if path.is_dir():
        return _folder(path, options, progress)
    refuse_special(path)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return _one_array(arrays.npy(path), options)
    if suffix == ".npz":
        found = arrays.npz(path)
        rows = arrays.choose_rows(found, str(path), options)
        return _one_array(rows, options, arrays.choose_labels(found, rows, str(path), options), found)
    if suffix == ".parquet":
        return hub.parquet_source([path], str(path), options, progress)
    raise InputError(f"{path} is not a source that banks are built from", KINDS)


def _one_array(
    raw: arrays.Raw, options: Options, own_labels: arrays.Raw | None = None, beside: dict[str, arrays.Raw] | None = None
) -> Source:
    labels = own_labels if own_labels is not None else arrays.label_file(options)
    rows = raw.shape[0] if raw.shape else 0
    found = arrays.array_source(raw, options, *(arrays.read_labels(labels, rows, options) if rows else (None, None)))
    return replace(found, names=arrays.read_names(arrays.choose_names(beside or {}, raw.where, options), rows, options))


def _folder(path: Path, options: Options, progress: Progress) -> Source:
    if (path / ROWS).exists() and (path / MANIFEST).exists():
        raise InputError(f"{path} is a bank already", f"scorescope bank info {path}")
    if hub.is_saved_dataset(path):
        return hub.saved_source(path, options, progress)
    found = images.read_folder(path)
    if found.files:
        if options.array is not None:
            raise InputError(f"--array does not apply to a folder of images ({path})", "leaving it out")
        if options.names not in (None, "none"):
            said = f"--names {options.names} does not apply to a folder of images, whose rows have its files' paths as names"
            raise InputError(said, "--names none, or leaving it out")
        labels = arrays.label_file(options)
        given, names = arrays.read_labels(labels, len(found.files), options)
        return images.folder_source(path, options, given, names, found, progress)
    parquet = [path / name for name in found.ignored if name.endswith(".parquet")]
    if parquet:
        return hub.parquet_source(parquet, str(path), options, progress)
    held = f"; it holds {', '.join(found.ignored[:3])}{', …' if len(found.ignored) > 3 else ''}" if found.ignored else ", it is empty"
    raise InputError(f"{path} has no images{held}", KINDS)
