"""Safetensors files that are larger than memory: written in pieces behind a header made first, read in pieces when asked.

Rows on disk are read with `pread` into ordinary arrays, never memory-mapped: pages of a map count as resident memory, and a file
that is cut while it is mapped kills the process. Every read checks that the file is still the one that was opened.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from scorescope.errors import InputError

TYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
}
ONE_READ = 1 << 30  # Linux reads at most 2 GiB at once


@dataclass(frozen=True)
class Entry:
    """Where a tensor lies: its type, its shape and its first byte in the file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Layout:
    """The head of a safetensors file: its tensors in order, the metadata, the header's own bytes and the size of the whole."""

    tensors: dict[str, Entry]
    metadata: dict[str, str]
    header: bytes

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.header) + sum(entry.nbytes for entry in self.tensors.values())


def plan(tensors: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]], metadata: Mapping[str, str] | None = None) -> Layout:
    """The layout of a file to be written. Tensors of wide types come first, so that each is aligned to its type."""
    codes = {known: code for code, known in TYPES.items()}
    text: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    begins = {}
    for name, (dtype, shape) in tensors.items():
        begins[name], end = end, end + math.prod(shape) * dtype.itemsize
        text[name] = {"dtype": codes[dtype], "shape": list(shape), "data_offsets": [begins[name], end]}
    encoded = json.dumps(text, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    header = len(encoded).to_bytes(8, "little") + encoded
    return Layout({name: Entry(*tensors[name], len(header) + begin) for name, begin in begins.items()}, dict(metadata or {}), header)


def read_layout(path: Path, least: int, hint: str) -> Layout:
    """The layout of a file, after its size was checked.

    Args:
        path: The file.
        least: Bytes that the tensors surely take; names the expected size where the header itself was cut.
        hint: What to do about a file that was cut or altered.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(8)
        length = int.from_bytes(head, "little")
        if size < 8 + length and size < least:
            raise InputError(f"{path} was cut: expected more than {least:,} bytes, found {size:,}", hint)
        try:
            encoded = file.read(min(length, 1 << 20))
            tensors = json.loads(encoded)
            metadata = {str(key): str(value) for key, value in tensors.pop("__metadata__", {}).items()}
            entries = {
                name: Entry(TYPES[entry["dtype"]], tuple(map(int, entry["shape"])), 8 + length + int(entry["data_offsets"][0]))
                for name, entry in tensors.items()
            }
            end = 8 + length + max(int(entry["data_offsets"][1]) for entry in tensors.values())
            whole = all(entry.offset + entry.nbytes == 8 + length + tensors[name]["data_offsets"][1] for name, entry in entries.items())
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as problem:
            raise InputError(f"{path} was altered: its header can't be read as safetensors", hint) from problem
    if size != end:
        what = "was cut" if size < end else "has bytes too many"
        raise InputError(f"{path} {what}: expected {end:,} bytes, found {size:,}", hint)
    if not whole or any(entry.offset < 8 + length for entry in entries.values()):
        raise InputError(f"{path} was altered: its header contradicts itself", hint)
    return Layout(entries, metadata, head + encoded)


@dataclass(frozen=True)
class StoredFile:
    """A file as it was when it was opened. It is opened anew for every read, so that nothing has to be closed or shared."""

    path: Path
    size: int
    modified: int
    identity: tuple[int, int]

    @classmethod
    def at(cls, path: Path) -> StoredFile:
        """The file as it is now."""
        path = Path(os.path.abspath(path))
        found = os.stat(path)
        return cls(path, found.st_size, found.st_mtime_ns, (found.st_dev, found.st_ino))

    @contextmanager
    def reading(self) -> Iterator[int]:
        """A descriptor to read from; the file is checked before and after, so that no read mixes two contents.

        Raises:
            InputError: The file was cut, changed, replaced or removed since it was opened, or the disk fails.
        """
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as problem:
            raise InputError(f"{self.path} can't be opened any more ({problem.strerror})", "opening the bank again") from problem
        try:
            self._check(descriptor)
            yield descriptor
            self._check(descriptor)
        except OSError as problem:
            raise InputError(f"{self.path} can't be read ({problem.strerror})", "another disk") from problem
        finally:
            os.close(descriptor)

    def _check(self, descriptor: int) -> None:
        found = os.fstat(descriptor)
        if (found.st_dev, found.st_ino) != self.identity:
            raise InputError(f"{self.path} was replaced while it was open", "opening the bank again")
        if found.st_size < self.size:
            said = f"{self.path} was cut: expected {self.size:,} bytes as when it was opened, found {found.st_size:,}"
            raise InputError(said, "building it again")
        if (found.st_size, found.st_mtime_ns) != (self.size, self.modified):
            raise InputError(f"{self.path} changed while it was open", "opening the bank again when nothing writes to it")

    def fill(self, descriptor: int, out: np.ndarray, offset: int) -> None:
        """Read the bytes of a contiguous array from `offset` on."""
        view = out.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            got = os.preadv(descriptor, [view[done : done + ONE_READ]], offset + done)
            if not got:
                self._check(descriptor)
                raise InputError(f"{self.path} ends before byte {offset + len(view):,}", "building it again")
            done += got

    def read(self, entry: Entry) -> np.ndarray:
        """A whole tensor."""
        out = np.empty(entry.shape, entry.dtype)
        with self.reading() as descriptor:
            self.fill(descriptor, out, entry.offset)
        return out


class StoredRows:
    """Rows (N, *shape) in a file, like a read-only array along the first axis: every index reads just the rows it names.

    Takes an integer, a slice, or one array of integers or booleans, with NumPy's meaning. What follows an integer or a slice in a
    tuple is applied to the rows that were read. `np.asarray` reads everything.
    """

    def __init__(self, file: StoredFile, entry: Entry) -> None:
        self.file, self.entry = file, entry
        self.shape, self.dtype = entry.shape, entry.dtype
        self.ndim, self.size, self.nbytes = len(entry.shape), math.prod(entry.shape), entry.nbytes
        self._row = entry.nbytes // entry.shape[0]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._pass(start, max(start, stop)) if step == 1 else self._gather(np.arange(start, stop, step))
        if isinstance(index, SupportsIndex) and not isinstance(index, (bool, np.ndarray)):
            return self._gather(np.array([index.__index__()]))[0]
        if isinstance(index, tuple) and isinstance(index[0], (slice, SupportsIndex)):
            rows = self[index[0]]
            return rows[(slice(None), *index[1:])] if isinstance(index[0], slice) else rows[index[1:]]
        if isinstance(index, tuple) or index is None or index is Ellipsis:
            raise IndexError("rows on disk are named by an integer, a slice or one array; index the array that comes back further")
        wanted = np.asarray(index)
        if wanted.dtype == bool:
            if wanted.shape != (len(self),):
                raise IndexError(f"a mask of shape {wanted.shape} for {len(self)} rows")
            wanted = np.flatnonzero(wanted)
        if wanted.dtype.kind not in "iu" and wanted.size:
            raise IndexError(f"rows are named by integers, not by {wanted.dtype}")
        return self._gather(wanted.astype(np.int64).reshape(-1)).reshape(*wanted.shape, *self.shape[1:])

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("rows on disk can't be an array without being read")
        return self[:].astype(dtype or self.dtype, copy=False)

    def _pass(self, start: int, stop: int) -> np.ndarray:
        """Consecutive rows, by one read."""
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        with self.file.reading() as descriptor:
            self.file.fill(descriptor, out, self.entry.offset + start * self._row)
        return out

    def _gather(self, index: np.ndarray) -> np.ndarray:
        """Rows in any order: each is read once, in the order of the file, neighbours together."""
        if not len(index):
            return np.empty((0, *self.shape[1:]), self.dtype)
        if index.min() < -len(self) or index.max() >= len(self):
            raise IndexError(f"row {index.max() if index.max() >= len(self) else index.min()} of {len(self)} rows")
        index = np.where(index < 0, index + len(self), index)
        ordered = bool((np.diff(index) > 0).all())
        named, place = (index, None) if ordered else np.unique(index, return_inverse=True)
        out = np.empty((len(named), *self.shape[1:]), self.dtype)
        begins = np.flatnonzero(np.diff(named, prepend=-2) != 1).tolist()
        with self.file.reading() as descriptor:
            for begin, end in zip(begins, [*begins[1:], len(named)], strict=True):
                self.file.fill(descriptor, out[begin:end], self.entry.offset + int(named[begin]) * self._row)
        return out if place is None else out[place]
