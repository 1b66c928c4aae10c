"""CIFAR-10's and CIFAR-100's own files, of either version, as a folder, as a single batch, or as the .tar.gz that is downloaded.

    python version   data_batch_1 … data_batch_5, test_batch; train, test      pickles of {data, labels or fine_labels, filenames}
    binary version   data_batch_1.bin …; train.bin, test.bin                   a byte for each label, then 3,072 of pixels

Of a folder or a tar the training batches are read; name `test_batch` or `test` to read those. CIFAR-100's classes are the fine ones,
unless `--labels coarse_labels`. Pickles are read without running anything: whatever they name becomes an object that does nothing.
"""

from __future__ import annotations

import io
import pickle
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from scorescope.errors import InputError
from scorescope.rows.arrays import array_source
from scorescope.rows.options import Options
from scorescope.rows.raw import Raw, in_words, raw_array
from scorescope.rows.storage import Progress, Source
from scorescope.rows.tags import Said, read_tags

BATCH = re.compile(r"(data_batch_\d+|test_batch)(\.bin)?$")
TRAINING = re.compile(r"data_batch_\d+(\.bin)?$|train(\.bin)?$")
HUNDRED = ("train", "test", "train.bin", "test.bin")
META = {"batches.meta", "meta", "batches.meta.txt", "fine_label_names.txt", "coarse_label_names.txt"}
FOLDERS = ("cifar-10-batches-py", "cifar-100-python", "cifar-10-batches-bin", "cifar-100-binary")
ARCHIVE = re.compile(r"cifar-10.*\.(tar\.gz|tgz|tar)$")
SHAPE = (3, 32, 32)
PIXELS = 3072
AGAIN = "downloading it again"


class Batch(NamedTuple):
    """A file of images: pixels (n, 3072) uint8, labels by their name (n,), the names of the images where there are any."""

    pixels: np.ndarray
    labels: dict[str, np.ndarray]
    names: list[str] | None


def accepts(path: Path) -> bool:
    """A batch, a folder of them, or CIFAR's archive."""
    return bool(ARCHIVE.match(path.name)) or _is_batch(path) or (path.is_dir() and _folder(path) is not None)


def _is_batch(path: Path) -> bool:
    """A file of one of the names; `train` and `test` only beside CIFAR-100's list of names."""
    if path.name in HUNDRED:
        return path.is_file() and any((path.parent / name).is_file() for name in META)
    return bool(BATCH.match(path.name)) and path.is_file()


def _folder(path: Path) -> Path | None:
    """The folder with the batches: this one, or one of the usual names in it."""
    for one in (path, *(path / name for name in FOLDERS)):
        if any(_is_batch(one / name) for name in ("data_batch_1", "data_batch_1.bin", "train", "train.bin")):
            return one
    return None


def source(path: Path, options: Options, progress: Progress) -> Source:
    """The images as rows (3, 32, 32), their classes with names, and the names of their files."""
    options.refuse(str(path), "CIFAR's files", "array", "columns")
    labels: dict[str, list[np.ndarray]] = {}
    names: list[str] | None = []
    counts = []
    for name, batch in _batches(path):
        counts.append(len(batch.pixels))
        for key, values in batch.labels.items():
            labels.setdefault(key, []).append(values)
        names = None if names is None or batch.names is None else names + batch.names
        progress(f"labels of {name}", sum(counts), sum(counts))
    n = sum(counts)
    if not n:
        raise InputError(f"{path} has none of CIFAR's training batches", AGAIN)
    columns = {key: raw_array(np.concatenate(parts), f"{path}: {key}") for key, parts in labels.items() if sum(map(len, parts)) == n}
    known = _class_names(path)
    key = "fine_labels" if "fine_labels" in columns else "labels"
    asked = options.labels if options.labels in columns else key
    if asked not in columns:
        raise InputError(f"{path} has no labels", "--labels none")
    told = Said(columns, columns[str(asked)], known.get(str(asked)), names, "list")

    def batches(count: int, size: int) -> Iterator[np.ndarray]:
        for _, batch in _batches(path):
            take = min(count, len(batch.pixels))
            for start in range(0, take, size):
                yield batch.pixels[start : min(take, start + size)].reshape(-1, *SHAPE)
            count -= take

    raw = Raw(str(path), (n, *SHAPE), np.dtype(np.uint8), batches)
    return array_source(raw, options, read_tags(str(path), n, options, told))


# ---- files --------------------------------------------------------------------------------------------------------------------


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents of the batches that are to be read, and of the lists of names."""
    if ARCHIVE.match(path.name) and not path.is_dir():
        try:
            with tarfile.open(path) as tar:
                for one in tar:
                    inner, name = tar.extractfile(one) if one.isreg() else None, PurePosixPath(one.name).name
                    if inner is not None and (TRAINING.match(name) or name in META):
                        yield name, inner.read()
        except (tarfile.TarError, OSError, EOFError, zlib.error) as problem:
            raise InputError(f"{path} was cut or is no tar ({in_words(problem)})", AGAIN) from problem
        return
    folder = _folder(path) if path.is_dir() else path.parent
    assert folder is not None
    files = sorted(file for file in folder.iterdir() if TRAINING.match(file.name)) if path.is_dir() else [path]
    binary = all(file.suffix == ".bin" for file in files)
    for file in [*(file for file in files if binary or file.suffix != ".bin"), *(folder / name for name in sorted(META))]:
        if file.is_file():
            yield file.name, file.read_bytes()


def _batches(path: Path) -> Iterator[tuple[str, Batch]]:
    """The batches one after the other, in the order of their names but for an archive, which has its own."""
    for name, data in _files(path):
        if name not in META:
            yield name, _binary(data, name, f"{path}: {name}") if name.endswith(".bin") else _pickled(data, f"{path}: {name}")


def _class_names(path: Path) -> dict[str, tuple[str, ...]]:
    """The names of the classes, by the name of the labels."""
    found: dict[str, tuple[str, ...]] = {}
    for name, data in _files(path):
        if name in META and name.endswith(".txt"):
            key = "labels" if name == "batches.meta.txt" else name.replace("_label_names.txt", "_labels")
            found[key] = tuple(data.decode("utf-8", "replace").split())
        elif name in META:
            for label, words in _unpickled(data, f"{path}: {name}").items():
                if isinstance(words, list) and label.endswith("label_names"):
                    found[label.replace("label_names", "labels")] = tuple(map(_text, words))
    return found


def _binary(data: bytes, name: str, where: str) -> Batch:
    keys = ("coarse_labels", "fine_labels") if name in HUNDRED else ("labels",)
    width = len(keys) + PIXELS
    if not data or len(data) % width:
        raise InputError(f"{where} was cut: {len(data):,} bytes are no images of {width:,} each", AGAIN)
    table = np.frombuffer(data, np.uint8).reshape(-1, width)
    return Batch(table[:, len(keys) :], {key: table[:, k].astype(np.int64) for k, key in enumerate(keys)}, None)


# ---- pickles ------------------------------------------------------------------------------------------------------------------


class _Inert:
    """Whatever a pickle names: it takes any arguments and any state, keeps them, and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments, self.state = arguments, None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _latin1(text: Any, *_: Any) -> bytes:
    """The bytes that Python 3 writes as a call of `_codecs.encode` for Python 2."""
    return str(text).encode("latin1")


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler, written in Python: its memo is a dictionary, so that a few bytes can't ask for gigabytes."""

    def find_class(self, module: str, name: str) -> Any:
        return _latin1 if (module, name) == ("_codecs", "encode") else _Inert

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it names persistent objects")


def _unpickled(data: bytes, where: str) -> Mapping[str, Any]:
    try:
        found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as problem:  # what a garbled pickle raises is anything at all
        raise InputError(f"{where} was cut or is no pickle of CIFAR's ({type(problem).__name__}: {in_words(problem)})", AGAIN) from problem
    if not isinstance(found, dict):
        raise InputError(f"{where} holds {type(found).__name__}, not a dictionary", AGAIN)
    return {_text(key): value for key, value in found.items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _pickled(data: bytes, where: str) -> Batch:
    found = _unpickled(data, where)
    pixels = _bytes_of(found.get("data"), where)
    labels = {}
    for key in ("labels", "fine_labels", "coarse_labels"):
        values = found.get(key)
        if isinstance(values, list) and all(type(value) is int for value in values):
            if len(values) != len(pixels):
                raise InputError(f"{where} has {len(values):,} {key} for {len(pixels):,} images", AGAIN)
            labels[key] = np.array(values, np.int64)
    names = found.get("filenames")
    told = list(map(_text, names)) if isinstance(names, list) and len(names) == len(pixels) else None
    return Batch(pixels, labels, told)


def _bytes_of(array: Any, where: str) -> np.ndarray:
    """A pickled NumPy array (n, 3072) of bytes, from the state that unpickling would have set: version, shape, type, order, data."""
    state = getattr(array, "state", None)
    if isinstance(state, tuple) and len(state) == 5:
        _, shape, dtype, column_first, data = state
        letters = getattr(dtype, "arguments", ("",))[0]
        sound = isinstance(shape, tuple) and len(shape) == 2 and shape[1] == PIXELS and isinstance(data, bytes)
        if sound and _text(letters).lstrip("|<>=") == "u1" and not column_first and len(data) == shape[0] * PIXELS:
            return np.frombuffer(data, np.uint8).reshape(-1, PIXELS)
    raise InputError(f"{where} has no images (n, {PIXELS}) of bytes", AGAIN)
