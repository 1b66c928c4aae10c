"""MNIST's own files (Fashion-MNIST's, KMNIST's): `train-images-idx3-ubyte` with `train-labels-idx1-ubyte` beside it, gzipped or not.

An idx file begins with 0, 0, the type of its values (8: unsigned bytes), the number of axes, and the length of each as big-endian int32.
Of a folder, also as torchvision leaves it, the training files are read; name `t10k-images-idx3-ubyte` to read those.
"""

from __future__ import annotations

import gzip
import math
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from scorescope.errors import InputError
from scorescope.rows.arrays import array_source
from scorescope.rows.options import Options
from scorescope.rows.raw import Raw, in_words
from scorescope.rows.storage import Progress, Source
from scorescope.rows.tags import Said, read_tags

IDX = re.compile(r"[.-]idx\d-ubyte(\.gz)?$")
IMAGES = re.compile(r"train-images[.-]idx3-ubyte(\.gz)?$")
FOLDERS = ("", "raw", "*/raw")
UNSIGNED = 8
AGAIN = "downloading it again"


def accepts(path: Path) -> bool:
    """An idx file, or a folder that has MNIST's training images."""
    return bool(IDX.search(path.name)) or (path.is_dir() and bool(_images_in(path)))


def _images_in(folder: Path) -> list[Path]:
    """The training images in a folder; of a file and its gzip one."""
    found = [file for place in FOLDERS for file in sorted(folder.glob(f"{place}/*ubyte*" if place else "*ubyte*"))]
    return list({file.name.removesuffix(".gz"): file for file in reversed(found) if IMAGES.search(file.name)}.values())


def source(path: Path, options: Options, progress: Progress) -> Source:
    """The images as rows (1, H, W), and their labels."""
    options.refuse(str(path), "MNIST's files", "array", "columns")
    file = path
    if path.is_dir():
        images = _images_in(path)
        if len(images) > 1:
            raise InputError(f"{path} has several training sets ({', '.join(sorted(one.name for one in images))})", f"{images[0]}")
        file = images[0]
    rows, labels = idx(file), None
    if len(rows.shape) != 3:
        raise InputError(f"{file} has {len(rows.shape)} axes; images have three", "the file with idx3 in its name")
    if options.labels is None:
        beside = [file.with_name(re.sub(r"images([.-])idx3", r"labels\1idx1", file.name).removesuffix(".gz") + end) for end in ("", ".gz")]
        found = next((one for one in beside if one.is_file() and one != file), None)
        if found is None:
            raise InputError(f"{file} has no labels beside it ({beside[0].name})", "--labels none")
        labels = idx(found)
    return array_source(rows, options, read_tags(str(path), rows.shape[0], options, Said({}, labels)))


def idx(path: Path) -> Raw:
    """The array of an idx file; of one that is not gzipped the size is checked.

    Raises:
        InputError: It is no idx file of unsigned bytes, or it was cut.
    """
    try:
        with _open(path) as file:
            head = file.read(4)
            if len(head) < 4 or head[:2] != b"\0\0" or head[2] != UNSIGNED:
                raise InputError(f"{path} is no idx file of bytes: it begins with 0x{head.hex()}, not with 0x000008", AGAIN)
            sizes = file.read(4 * head[3])
            shape = tuple(int.from_bytes(sizes[k : k + 4], "big", signed=True) for k in range(0, len(sizes), 4))
    except (OSError, EOFError, zlib.error) as problem:
        raise InputError(f"{path} can't be read ({in_words(problem)})", AGAIN) from problem
    begin, expected = 4 + 4 * head[3], math.prod(shape)
    if len(shape) != head[3] or min(shape, default=0) < 0:
        raise InputError(f"{path} was cut or altered: its head says {shape}", AGAIN)
    if path.suffix != ".gz" and path.stat().st_size != begin + expected:
        raise InputError(f"{path} was cut: expected {begin + expected:,} bytes, found {path.stat().st_size:,}", AGAIN)

    def batches(n: int, size: int) -> Iterator[np.ndarray]:
        row = math.prod(shape[1:])
        try:
            with _open(path) as file:
                file.read(begin)
                for start in range(0, n, size):
                    count = min(size, n - start)
                    data = file.read(count * row)
                    if len(data) < count * row:
                        raise EOFError(f"it ends within row {start + len(data) // max(1, row)}")
                    yield np.frombuffer(data, np.uint8).reshape(count, *shape[1:])
        except (OSError, EOFError, zlib.error) as problem:
            raise InputError(f"{path} was cut or altered ({in_words(problem)})", AGAIN) from problem

    return Raw(str(path), shape, np.dtype(np.uint8), batches)


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]
