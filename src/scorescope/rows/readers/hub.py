"""Rows from Hugging Face datasets: a folder written by `save_to_disk`, or parquet files, through the extra `hf`.

Parquet is streamed, so no second copy is made in a cache. A column of images is decoded like a folder of images, a column of numbers is
taken like an array: the library would stop at the first bad row without saying which.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from scorescope.errors import InputError, unknown
from scorescope.rows.arrays import MIRRORED, array_source, is_mirrored, with_mirrored
from scorescope.rows.images import Item, image_source
from scorescope.rows.options import Options
from scorescope.rows.raw import Raw, in_words
from scorescope.rows.readers.table import chosen_columns
from scorescope.rows.storage import Progress, Source, refuse_special
from scorescope.rows.tags import LABEL_NAMES, Said, read_tags

INSTALL = "pip install 'scorescope[hf]'"
SUFFIXES = frozenset({".parquet"})
BROKEN = (OSError, ValueError, KeyError, TypeError)  # and pyarrow's own: what comes of files that were cut or garbled


def accepts(path: Path) -> bool:
    """NAME.parquet, or a folder that `save_to_disk` wrote."""
    return path.suffix.lower() in SUFFIXES or any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def source(path: Path, options: Options, progress: Progress) -> Source:
    """The rows of a column, or of several columns of numbers."""
    if path.suffix.lower() in SUFFIXES:
        return several([path], str(path), options, progress)
    datasets = _library(path)
    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as problem:
        raise InputError(f"{path} can't be read as a dataset ({in_words(problem)})", "writing it again with save_to_disk") from problem
    if isinstance(found, dict):
        splits = list(found)
        if len(splits) != 1:
            raise InputError(f"{path} has the splits {', '.join(splits)}", f"one of them, e.g. {path / splits[0]}")
        found = found[splits[0]]
    return _source(found, len(found), str(path), options, progress)


def several(files: list[Path], where: str, options: Options, progress: Progress) -> Source:
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
            raise InputError(f"{file} can't be read as parquet ({in_words(problem)})", "writing it again") from problem
    try:
        stream = datasets.load_dataset("parquet", data_files=[str(file) for file in sorted(files)], split="train", streaming=True)
        stream = stream if stream.features else stream._resolve_features()
    except (pyarrow.ArrowException, *BROKEN) as problem:
        raise InputError(f"{where} can't be read as parquet ({in_words(problem)})", "writing it again") from problem
    return _source(stream, n, where, options, progress)


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
    told = {name: _column(data, name, total, where) for name in features}
    names = getattr(features[label], "names", None) if label is not None else None
    said = Said(told, told.get(label) if label is not None else None, tuple(names) if names else None, kind="column")
    tags = read_tags(where, total, options, said)
    if options.columns is not None:
        options.refuse(where, "columns of numbers", "array")
        chosen = chosen_columns(options.columns, list(features), where)
        return array_source(_numbers(data, chosen, total, where), options, tags)
    column = _row_column(features, label, where, options)
    if not isinstance(features[column], datasets.Image):
        found = array_source(_numbers(data, [column], total, where), options, tags)
        if options.array is None and column + MIRRORED in features:
            return with_mirrored(found, array_source(_numbers(data, [column + MIRRORED], total, where), options))
        return found
    encoded = data.select_columns([column]).cast_column(column, datasets.Image(decode=False))

    def items() -> Iterator[Item]:
        for i, row in enumerate(_each(encoded, n, where)):
            image = row[column]
            if image is None:
                raise InputError(f"{where}: row {i} has no image", "removing the row")
            yield f"row {i}", image["bytes"] if image["bytes"] is not None else Path(image["path"])

    return image_source(where, items, n, options, tags, progress)


def _each(data: Any, n: int, where: str) -> Iterator[Any]:
    """The first n rows."""
    import pyarrow

    try:
        yield from islice(data, n)
    except (pyarrow.ArrowException, *BROKEN) as problem:
        raise InputError(f"{where} was cut or altered ({in_words(problem)})", "writing it again") from problem


def _column(data: Any, name: str, total: int, where: str) -> Raw:
    """A column with a value a row: numbers or words, read when they are asked for."""

    def batches(n: int, size: int) -> Iterator[np.ndarray]:
        values = [row[name] for row in _each(data.select_columns([name]), n, where)]
        if None in values:
            raise InputError(f"{where}: row {values.index(None)} has no value in column {name!r}", "none in its place, or another column")
        found = np.array(values)
        if found.ndim != 1:
            raise InputError(f"{where}: column {name!r} holds lists, not one value a row", "another column, or none")
        yield found

    return Raw(f"{where}: column {name!r}", (total,), np.dtype(str), batches)


def _row_column(features: Any, label: str | None, where: str, options: Options) -> str:
    if options.array is not None:
        if options.array not in features:
            raise unknown(f"column of {where}:", options.array, features)
        return options.array
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    numbers = [
        name
        for name, feature in features.items()
        if name != label and _leaf(feature) is not None and not hasattr(feature, "id2label") and not is_mirrored(name, features)
    ]
    candidates = images or [name for name in numbers if type(features[name]).__name__ not in ("Value", "ClassLabel")]
    if len(candidates) != 1:
        held = f"the columns {', '.join(features)}"
        raise InputError(
            f"{where} has {held}; {'several' if candidates else 'none'} could hold the rows",
            f"--array {(candidates or list(features))[0]}" + ("" if candidates else ", or --columns A,B for a number each"),
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
        return options.labels if options.labels in features else None
    classes = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    if len(classes) > 1:
        raise InputError(f"{where} has several class columns ({', '.join(classes)})", f"--labels {classes[0]}, or --labels none")
    return next(iter(classes), None) or next((name for name in LABEL_NAMES if name in features), None)


def _numbers(data: Any, columns: list[str], total: int, where: str) -> Raw:
    """A column of numbers, or several with one number each, as an array; that all rows have the shape of row 0 is checked in passing."""
    types = [_leaf(data.features[name]) for name in columns]
    for name, dtype in zip(columns, types, strict=True):
        if dtype is None:
            raise InputError(f"{where}: column {name!r} does not hold numbers or images", "--array or --columns with others")
    dtype = np.result_type(*[dtype for dtype in types if dtype is not None])
    rows = data.select_columns(columns)
    called = f"{where}: column{'s' * (len(columns) > 1)} {', '.join(map(repr, columns[:3]))}{', …' if len(columns) > 3 else ''}"

    def value(row: Any) -> Any:
        return row[columns[0]] if len(columns) == 1 else [row[name] for name in columns]

    shape = np.shape(value(next(_each(rows, 1, where))))

    def batches(n: int, size: int) -> Iterator[np.ndarray]:
        stream, start = _each(rows, n, where), 0
        while values := [value(row) for row in islice(stream, size)]:
            for i, one in enumerate(values, start):
                if np.shape(one) != shape:
                    raise InputError(f"{where}: row {i} has shape {np.shape(one)}, row 0 has {shape}", "rows of one shape")
            start += len(values)
            yield np.array(values, dtype)

    return Raw(called, (total, *shape), dtype, batches)
