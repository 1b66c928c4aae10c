"""Rows from Hugging Face datasets: a folder written by `save_to_disk`, or parquet files, through the extra `hf`.

Parquet is streamed, so no second copy is made in a cache. A column of images is decoded like a folder of images, a column of numbers is
taken like an array: the library would stop at the first bad row without saying which.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from scorescope.errors import InputError, unknown
from scorescope.rows.arrays import LABEL_NAMES, Raw, array_source, choose_names, label_file, number_labels, read_labels, read_names
from scorescope.rows.images import Item, image_source
from scorescope.rows.names import check_names
from scorescope.rows.options import Options
from scorescope.rows.storage import Progress, Source, refuse_special

INSTALL = "pip install 'scorescope[hf]'"


def is_saved_dataset(path: Path) -> bool:
    """Whether a folder was written by `save_to_disk`."""
    return any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def saved_source(path: Path, options: Options, progress: Progress) -> Source:
    """The rows of a dataset that `save_to_disk` wrote."""
    datasets = _library(path)
    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as problem:
        raise InputError(f"{path} can't be read as a dataset ({problem})", "writing it again with save_to_disk") from problem
    if isinstance(found, dict):
        splits = list(found)
        if len(splits) != 1:
            raise InputError(f"{path} has the splits {', '.join(splits)}", f"one of them, e.g. {path / splits[0]}")
        found = found[splits[0]]
    return _source(found, len(found), str(path), options, progress)


def parquet_source(files: list[Path], where: str, options: Options, progress: Progress) -> Source:
    """The rows of parquet files of one split, in the order of their names."""
    datasets = _library(files[0])
    splits = sorted({file.stem.split("-")[0] for file in files})
    if len(splits) > 1:
        raise InputError(
            f"{where} has parquet files of several splits ({', '.join(splits)})", "one file, or a folder with one split's files"
        )
    import pyarrow
    from pyarrow import parquet

    n = 0
    for file in files:
        refuse_special(file)
        try:
            n += parquet.read_metadata(file).num_rows
        except (pyarrow.ArrowException, OSError) as problem:
            raise InputError(f"{file} can't be read as parquet ({problem})", "writing it again") from problem
    stream = datasets.load_dataset("parquet", data_files=[str(file) for file in sorted(files)], split="train", streaming=True)
    return _source(stream if stream.features else stream._resolve_features(), n, where, options, progress)


def _library(path: Path) -> Any:
    try:
        import datasets
    except ImportError as problem:
        raise InputError(f"reading {path} needs the package datasets", INSTALL) from problem
    return datasets


def _source(data: Any, total: int, where: str, options: Options, progress: Progress) -> Source:
    datasets = _library(Path(where))
    if total == 0:
        raise InputError(f"{where} is empty: it has no rows", "a source with rows")
    n, features = min(total, options.limit or total), data.features
    label = _label_column(features, where, options)
    column = _row_column(features, label, where, options)
    labels, names = _labels(data, label, n, total, where, options)
    if isinstance(features[column], datasets.Image):
        encoded = data.select_columns([column]).cast_column(column, datasets.Image(decode=False))

        def items() -> Iterator[Item]:
            for i, row in enumerate(islice(encoded, n)):
                image = row[column]
                if image is None:
                    raise InputError(f"{where}: row {i} has no image", "removing the row")
                yield f"row {i}", image["bytes"] if image["bytes"] is not None else Path(image["path"])

        found = image_source(where, items, n, options, labels, names, progress)
    else:
        found = array_source(_numbers(data, column, total, where), options, labels, names)
    return replace(found, names=_names(data, n, total, where, options))


def _names(data: Any, n: int, total: int, where: str, options: Options) -> tuple[str, ...] | None:
    """The column of names, where one is asked for; the text of other values is their name."""
    if options.names is None or options.names == "none" or (options.names not in data.features and options.names.endswith(".npy")):
        return read_names(choose_names({}, where, options), total, options)
    if options.names not in data.features:
        raise unknown(f"column of {where}:", options.names, [*data.features, "none"])
    values = (row[options.names] for row in islice(data.select_columns([options.names]), n))
    return check_names(("" if value is None else value for value in values), n, where)


def _row_column(features: Any, label: str | None, where: str, options: Options) -> str:
    if options.array is not None:
        if options.array not in features:
            raise unknown(f"column of {where}:", options.array, features)
        return options.array
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    numbers = [
        name for name, feature in features.items() if name != label and _leaf(feature) is not None and not hasattr(feature, "id2label")
    ]
    candidates = images or [name for name in numbers if type(features[name]).__name__ not in ("Value", "ClassLabel")]
    if len(candidates) != 1:
        held = f"the columns {', '.join(features)}"
        raise InputError(
            f"{where} has {held}; {'several' if candidates else 'none'} could hold the rows", f"--array {(candidates or list(features))[0]}"
        )
    return candidates[0]


def _leaf(feature: Any) -> np.dtype[Any] | None:
    """The NumPy type of the numbers in a column, or None if it holds anything else."""
    while not isinstance(getattr(feature, "dtype", None), str) or feature.dtype in ("list", "dict"):
        feature = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
        if feature is None:
            return None
    try:
        dtype = np.dtype(feature.dtype)
    except TypeError:
        return None
    return dtype if dtype.kind in "fiub" else None


def _label_column(features: Any, where: str, options: Options) -> str | None:
    if options.labels is not None:
        if options.labels in features:
            return options.labels
        if options.labels == "none" or options.labels.endswith(".npy"):
            return None
        raise unknown(f"column of {where}:", options.labels, [*features, "none"])
    classes = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    if len(classes) > 1:
        raise InputError(f"{where} has several class columns ({', '.join(classes)})", f"--labels {classes[0]}, or --labels none")
    return next(iter(classes), None) or next((name for name in LABEL_NAMES if name in features), None)


def _labels(
    data: Any, label: str | None, n: int, total: int, where: str, options: Options
) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    if label is None:
        return read_labels(label_file(options), total, options)
    values = [row[label] for row in islice(data.select_columns([label]), n)]
    if None in values:
        raise InputError(f"{where}: row {values.index(None)} has no label in column {label!r}", "--labels none")
    numbers, words = number_labels(np.array(values), f"{where}: column {label!r}")
    names = getattr(data.features[label], "names", None)
    return numbers, tuple(names) if names else words


def _numbers(data: Any, column: str, total: int, where: str) -> Raw:
    """A column of numbers as an array; that all rows have the shape of row 0 is checked in passing."""
    dtype = _leaf(data.features[column])
    if dtype is None:
        raise InputError(f"{where}: column {column!r} does not hold numbers or images", "--array with another column")
    rows = data.select_columns([column])
    shape = np.shape(next(iter(rows))[column])

    def batches(n: int, size: int) -> Iterator[np.ndarray]:
        stream, start = iter(rows), 0
        while values := [row[column] for row in islice(stream, min(size, n - start))]:
            for i, value in enumerate(values, start):
                if np.shape(value) != shape:
                    raise InputError(f"{where}: row {i} has shape {np.shape(value)}, row 0 has {shape}", "rows of one shape")
            start += len(values)
            yield np.array(values, dtype)

    return Raw(f"{where}: column {column!r}", (total, *shape), dtype, batches)
