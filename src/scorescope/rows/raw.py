"""Arrays as files have them. Nothing is read whole: .npy is memory-mapped, .npz is unpacked in passing."""

from __future__ import annotations

import math
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from scorescope.errors import InputError

BROKEN_ARRAY = (ValueError, EOFError, OSError, SyntaxError, tokenize.TokenError, MemoryError, zipfile.BadZipFile, zlib.error)
"""What NumPy's readers raise for files that were cut or garbled."""


def in_words(problem: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(problem).split()) or type(problem).__name__


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


def joined(raws: list[Raw], where: str) -> Raw:
    """Arrays one after the other, as shards of a data set are.

    Raises:
        InputError: Their rows differ in shape or type.
    """
    first = raws[0]
    for other in raws[1:]:
        if other.shape[1:] != first.shape[1:] or other.dtype != first.dtype:
            said = f"{other.where} has rows {other.shape[1:]} of {other.dtype}, {first.where} has {first.shape[1:]} of {first.dtype}"
            raise InputError(said, "files of one data set")

    def batches(n: int, size: int) -> Iterator[np.ndarray]:
        for raw in raws:
            if n > 0:
                yield from raw.batches(min(n, raw.shape[0]), size)
            n -= raw.shape[0]

    return first if len(raws) == 1 else Raw(where, (sum(raw.shape[0] for raw in raws), *first.shape[1:]), first.dtype, batches)


def npy(path: Path) -> Raw:
    """The array of an .npy file, memory-mapped."""
    try:
        return raw_array(np.load(path, mmap_mode="r"), str(path))
    except BROKEN_ARRAY as problem:
        if "object" in str(problem).lower():
            raise python_objects(str(path)) from problem
        raise InputError(f"{path} can't be read as .npy ({in_words(problem)})", "writing it again with numpy.save") from problem


def npz(path: Path | IO[bytes], where: str = "") -> dict[str, Raw]:
    """The arrays of an .npz file by name; only their headers are read, and compared with how many bytes there are."""
    where = where or str(path)
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
                    found[name] = Raw(f"{where}: array {name!r}", shape, dtype, _member_reader(path, where, member.filename, fortran))
    except BROKEN_ARRAY as problem:
        raise InputError(f"{where} can't be read as .npz ({in_words(problem)})", "writing it again with numpy.savez") from problem
    return found


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    version = np.lib.format.read_magic(file)
    if version not in read:
        raise ValueError(f"array format {version} is not a plain array's")
    return read[version](file)


def _member_reader(path: Path | IO[bytes], where: str, member: str, fortran: bool) -> Callable[[int, int], Iterator[np.ndarray]]:
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
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as problem:
            raise InputError(f"{where} was cut or altered ({problem})", "writing it again with numpy.savez") from problem

    return batches


def python_objects(where: str) -> InputError:
    """The error for an array that only unpickling would read."""
    problem = f"{where} holds Python objects (often rows of mixed shape), which are never unpickled"
    return InputError(problem, "one plain array (N, *shape), or FILE.py:rows, a function that yields the rows")
