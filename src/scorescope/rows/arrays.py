"""Rows from arrays: in memory, in .npy and .npz files. Nothing is read whole: .npy is memory-mapped, .npz is unpacked in passing.

8-bit arrays are images unless they say otherwise: (N, H, W) becomes (N, 1, H, W), channels last becomes channels first. Every
other type is stored as numbers, as they are: float16 kept, the rest as float32.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from scorescope.errors import InputError, unknown
from scorescope.rows import content
from scorescope.rows.images import fit
from scorescope.rows.names import check_names
from scorescope.rows.options import Options
from scorescope.rows.storage import Source, batch_rows

CHANNELS = (1, 3, 4)
ROW_NAMES, LABEL_NAMES = ("x", "images", "data", "arr_0"), ("y", "labels", "label")


@dataclass(frozen=True)
class Raw:
    """An array as its file has it: `batches(n, size)` yields the first n rows, `size` at a time."""

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batches: Callable[[int, int], Iterator[np.ndarray]]


def raw_array(array: np.ndarray, where: str) -> Raw:
    """An array in memory, or memory-mapped."""
    return Raw(where, array.shape, array.dtype, lambda n, size: (array[start : min(n, start + size)] for start in range(0, n, size)))


def npy(path: Path) -> Raw:
    """The array of an .npy file, memory-mapped."""
    try:
        return raw_array(np.load(path, mmap_mode="r"), str(path))
    except (ValueError, EOFError, OSError) as problem:
        if "object" in str(problem).lower():
            raise _python_objects(str(path)) from problem
        raise InputError(f"{path} can't be read as .npy ({problem})", "writing it again with numpy.save") from problem


def npz(path: Path) -> dict[str, Raw]:
    """The arrays of an .npz file by name; only their headers are read, and compared with how many bytes there are."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    with archive.open(member) as file:
                        shape, fortran, dtype = _npy_header(file)
                        held = member.file_size - file.tell()
                    name = member.filename.removesuffix(".npy")
                    if not dtype.hasobject and (min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != held):
                        raise ValueError(f"array {name!r} claims the shape {shape} of {dtype}, and has {held:,} bytes")
                    found[name] = Raw(f"{path}: array {name!r}", shape, dtype, _member_reader(path, member.filename, fortran))
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as problem:
        raise InputError(f"{path} can't be read as .npz ({problem})", "writing it again with numpy.savez") from problem
    return found


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"array format {version} is not a plain array's")
    return read[version](file)


def _member_reader(path: Path, member: str, fortran: bool) -> Callable[[int, int], Iterator[np.ndarray]]:
    def batches(n: int, size: int) -> Iterator[np.ndarray]:
        try:
            if fortran:  # Stored column by column: no row is whole before the last byte.
                with np.load(path) as arrays:
                    yield from raw_array(arrays[member.removesuffix(".npy")], "").batches(n, size)
                return
            with zipfile.ZipFile(path) as archive, archive.open(member) as file:
                shape, _, dtype = _npy_header(file)
                row = math.prod(shape[1:]) * dtype.itemsize
                for start in range(0, n, size):
                    count = min(size, n - start)
                    data = file.read(count * row)
                    if len(data) < count * row:
                        raise EOFError(f"{member} ends within row {start + len(data) // max(1, row)}")
                    yield np.frombuffer(data, dtype).reshape(count, *shape[1:])
        except (zipfile.BadZipFile, zlib.error, EOFError) as problem:
            raise InputError(f"{path} was cut or altered ({problem})", "writing it again with numpy.savez") from problem

    return batches


def choose_rows(arrays: dict[str, Raw], where: str, options: Options) -> Raw:
    """The array that holds the rows: the one asked for, one of the usual names, or the only one with more than one axis."""
    if options.array is not None:
        if options.array not in arrays:
            raise unknown(f"array of {where}:", options.array, arrays)
        return arrays[options.array]
    several = {name: raw for name, raw in arrays.items() if len(raw.shape) > 1}
    candidates = {name: raw for name, raw in several.items() if name in ROW_NAMES} or several
    if len(candidates) == 1:
        return next(iter(candidates.values()))
    listed = ", ".join(f"{name} {raw.shape}" for name, raw in arrays.items()) or "none"
    if not candidates:
        raise InputError(f"{where} has no array with rows (arrays: {listed})", "an array (N, *shape)")
    raise InputError(f"{where} has several arrays that could hold the rows ({listed})", f"--array {next(iter(candidates))}")


def choose_labels(arrays: dict[str, Raw], rows: Raw, where: str, options: Options) -> Raw | None:
    """The array that holds the labels: the one asked for, a file, or one of the usual names."""
    if options.labels == "none":
        return None
    if options.labels is None:
        return next((arrays[name] for name in LABEL_NAMES if name in arrays and arrays[name] is not rows), None)
    if options.labels in arrays:
        return arrays[options.labels]
    if options.labels.endswith(".npy"):
        return label_file(options)
    raise unknown(f"array of {where}:", options.labels, [*arrays, "none"])


def label_file(options: Options) -> Raw | None:
    """The labels of a source that has none of its own: an .npy file, or None."""
    if options.labels in (None, "none"):
        return None
    path = Path(str(options.labels))
    if not path.is_file() or path.suffix != ".npy":
        raise InputError(f"--labels {options.labels} is not an .npy file", "an .npy file with one class number a row, or none")
    return npy(path)


def read_labels(raw: Raw | None, n: int, options: Options) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """Class numbers (N,) of the first rows of `n`, and class names if the labels were words."""
    if raw is None:
        return None, None
    if math.prod(raw.shape) != n or raw.shape[0] != n:
        raise InputError(f"{raw.where} has shape {raw.shape}; the rows are {n:,}", "one label a row")
    kept = min(n, options.limit or n)
    if raw.dtype.hasobject:
        raise _python_objects(raw.where)
    return number_labels(np.concatenate(list(raw.batches(kept, kept))).reshape(kept), raw.where)


def read_names(raw: Raw | None, n: int, options: Options) -> tuple[str, ...] | None:
    """Names of the first rows of `n`."""
    if raw is None:
        return None
    if raw.dtype.hasobject:
        raise _python_objects(raw.where)
    if raw.shape != (n,):
        raise InputError(f"{raw.where} has shape {raw.shape}; the rows are {n:,}", "one name a row")
    kept = min(n, options.limit or n)
    values = np.concatenate(list(raw.batches(kept, kept)))
    plain = [name.decode("utf-8", "replace") for name in values.tolist()] if values.dtype.kind == "S" else values.tolist()
    return check_names(plain, kept, raw.where)


def choose_names(arrays: dict[str, Raw], where: str, options: Options) -> Raw | None:
    """The array that holds the names of the rows, where one is asked for."""
    if options.names in (None, "none"):
        return None
    name = str(options.names)
    if name in arrays:
        return arrays[name]
    if not name.endswith(".npy"):
        raise unknown(f"array of {where}:", name, [*arrays, "none"])
    if not Path(name).is_file():
        raise InputError(f"--names {name} is not there", "an .npy file with a name a row, or none")
    return npy(Path(name))


def number_labels(values: np.ndarray, where: str) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """Labels as class numbers from 0; words are numbered in alphabetical order and become the class names."""
    if values.dtype.kind in "US":
        names, numbers = np.unique(values.astype(str), return_inverse=True)
        return numbers.astype(np.int64), tuple(map(str, names))
    return content.check_labels(values, where=where), None


def array_source(raw: Raw, options: Options, labels: np.ndarray | None, class_names: tuple[str, ...] | None) -> Source:
    """The rows of an array, turned into what is stored."""
    if raw.dtype.hasobject:
        raise _python_objects(raw.where)
    if raw.dtype.kind not in "fiub":
        raise InputError(f"{raw.where} has type {raw.dtype}, not numbers", "uint8, float16, float32 or other real numbers")
    if len(raw.shape) < 2 or math.prod(raw.shape[1:]) == 0:
        raise InputError(f"{raw.where} has shape {raw.shape}, which are no rows", "an array (N, *shape)")
    if raw.shape[0] == 0:
        raise InputError(f"{raw.where} is empty: it has no rows", "a source with rows")
    n = min(raw.shape[0], options.limit or raw.shape[0])
    turn, row, dtype, words = (_as_images if raw.dtype == np.uint8 else _as_numbers)(raw, options)
    transform = (*words, *((f"first {n} of {raw.shape[0]} rows",) if n < raw.shape[0] else ()))
    size = batch_rows(math.prod(raw.shape[1:]) * max(4, raw.dtype.itemsize))
    return Source(raw.where, (n, *row), dtype, lambda: map(turn, raw.batches(n, size)), labels, class_names, transform)


Turning = tuple[Callable[[np.ndarray], np.ndarray], tuple[int, ...], np.dtype[Any], list[str]]


def _as_images(raw: Raw, options: Options) -> Turning:
    """8-bit rows: how to turn a batch, the shape of a stored row, its type, and that in words."""
    if options.scale is not None:
        raise InputError(f"--scale does not apply to 8-bit rows ({raw.where})", "--range LOW HIGH")
    shape, edited = raw.shape[1:], options.gray or options.size is not None
    grey, last = len(shape) == 2 and options.layout == "auto", _channels_last(raw, options)
    height, width, channels = (*shape, 1) if grey else shape if last else (*shape[1:], shape[0]) if len(shape) == 3 else (0, 0, 0)
    if edited and channels not in CHANNELS:
        raise InputError(f"--size and --gray work on images; {raw.where} has rows {shape}", "--layout, or rows (H, W, 1 or 3)")
    words = ["channels last to channels first"] * last + ["one channel added"] * grey
    words += ["colour to grey"] * (options.gray and channels > 1)
    words += [] if options.size is None else [f"shorter side resized to {options.size} (bicubic), centre cut out"]

    def turn(rows: np.ndarray) -> np.ndarray:
        rows = rows[:, None] if grey else np.moveaxis(rows, -1, 1) if last else rows
        if edited:
            rows = np.stack([np.moveaxis(fit(np.moveaxis(row, 0, -1), gray=options.gray, size=options.size), -1, 0) for row in rows])
        return np.ascontiguousarray(rows)

    stored = (channels, height, width) if channels else shape
    if edited:
        stored = (1 if options.gray else channels, *((options.size, options.size) if options.size else (height, width)))
    return turn, stored, np.dtype(np.uint8), words


def _as_numbers(raw: Raw, options: Options) -> Turning:
    """Rows of any other type: the same."""
    refused = [f"--{name}" for name in ("size", "gray", "range") if getattr(options, name)]
    if refused:
        raise InputError(f"{refused[0]} is for 8-bit images; {raw.where} has type {raw.dtype}", "8-bit rows, or leaving it out")
    last = options.layout == "hwc" and _channels_last(raw, options)
    width_first = raw.shape[-1] in CHANNELS and raw.shape[1] not in CHANNELS
    if options.flips and options.layout == "auto" and len(raw.shape) == 4 and width_first:
        raise InputError(
            f"--flips mirrors the last axis, but {raw.where} seems to have its channels there {raw.shape}", "--layout hwc or chw"
        )
    dtype = np.dtype(np.float16) if raw.dtype == np.float16 else np.dtype(np.float32)
    words = [] if options.scale is None else [f"multiplied by {options.scale:g}"]
    words += ["channels last to channels first"] * last

    def turn(rows: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # What the storage can't hold becomes Inf, and is refused by row.
            if options.scale is not None:
                rows = rows.astype(np.float64) * options.scale
            rows = rows.astype(dtype)
        return np.ascontiguousarray(np.moveaxis(rows, -1, 1)) if last else rows

    shape = raw.shape[1:]
    return turn, (shape[-1], *shape[:-1]) if last else shape, dtype, words


def _channels_last(raw: Raw, options: Options) -> bool:
    shape = raw.shape[1:]
    if options.layout != "auto":
        if options.layout == "hwc" and len(shape) != 3:
            raise InputError(f"--layout hwc needs rows with three axes; {raw.where} has rows {shape}", "leaving --layout out")
        return options.layout == "hwc"
    if len(shape) != 3 or shape[-1] not in CHANNELS:
        return False
    if shape[0] in CHANNELS:
        raise InputError(f"{raw.where} has rows {shape}: the channels could be the first axis or the last", "--layout chw or --layout hwc")
    return True


def _python_objects(where: str) -> InputError:
    return InputError(f"{where} holds Python objects (often rows of mixed shape), which are never unpickled", "one plain array (N, *shape)")
