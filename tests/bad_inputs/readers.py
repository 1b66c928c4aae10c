"""Data on disk that can't be: each layout cut, garbled, of mixed shape or short of labels, and options that do not apply."""

from __future__ import annotations

import io
import os
import tarfile
import wave
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from tests.bad_inputs import Case

X = np.arange(15, dtype=np.float32).reshape(5, 3)


def build(source: str, *words: str) -> tuple[str, ...]:
    return ("bank", "build", source, "--out", "x.bank", *words)


def files(written: Mapping[str, bytes | str]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name, data in written.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)

    return make


def tarred(members: Mapping[str, bytes], keep: int | None = None) -> Callable[[Path], None]:
    """x.tar with some files, of which the first `keep` bytes are kept."""

    def make(folder: Path) -> None:
        with tarfile.open(folder / "x.tar", "w") as archive:
            for name, data in members.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        if keep is not None:
            os.truncate(folder / "x.tar", keep)

    return make


def npz(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.savez(folder / "x.npz", **arrays)


def hdf5(**arrays: np.ndarray) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        with h5py.File(folder / "x.h5", "w") as file:
            for name, array in arrays.items():
                file[name] = array

    return make


def idx(*, kind: int = 8, labels: int = 5, cut: int = 0) -> Callable[[Path], None]:
    """MNIST's two files, of five images."""
    images = bytes([0, 0, kind, 3]) + np.array([5, 4, 4], ">i4").tobytes() + bytes(80 - cut)
    told = bytes([0, 0, 8, 1]) + np.array([labels], ">i4").tobytes() + bytes(labels)
    return files({"m/train-images-idx3-ubyte": images, "m/train-labels-idx1-ubyte": told})


def npy(array: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, array, allow_pickle=True)
    return out.getvalue()


def wav(samples: int, cut: int = 0) -> bytes:
    """A silent .wav of 16 bits, one channel and 8 kHz."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setparams((1, 2, 8000, samples, "NONE", ""))
        file.writeframes(bytes(2 * samples))
    return out.getvalue()[: len(out.getvalue()) - cut]


def png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(out, "png")
    return out.getvalue()


PNG = png()
PAIR = {"x/a.png": PNG, "x/b.png": PNG}
TWO = files(PAIR)
TARRED = {"a.png": PNG, "b.png": PNG}
VECTORS = '{"labels": [["a.png", [1, 0]]]}'
HEADS = "\x10\0\0\0\0\0\0\0{}"
OBJECTS = npy(np.array([X, 3], dtype=object))
SHAPES = {"x/a.npy": npy(X), "x/b.npy": npy(X[:, :2])}
CODE = """
def rows():
    yield [0.0, 1.0], 1
    yield [2.0, 3.0]

def none():
    return 3

def fails():
    yield [1.0]
    1 / 0

def anew():
    import random
    yield [random.random()]
"""
PY = files({"x.py": CODE})
SOUND = files({"x/a.wav": wav(80)})
MIXED = files({"x/a.wav": wav(80), "x/b.wav": wav(160)})

CASES = [
    Case("a tar that was cut", build("x.tar"), r"x\.tar was cut or is no tar", tarred(TARRED, keep=1100)),
    Case("a tar cut between files", build("x.tar"), r"x\.tar was cut.*without an end", tarred(TARRED, keep=1024)),
    Case("a tar that is none", build("x.tar"), r"x\.tar was cut or is no tar", files({"x.tar": b"x" * 2000})),
    Case("a shard that is missing", build("x-{0..2}.tar"), r"no tar at x-0\.tar, which is one of x-\{0\.\.2\}"),
    Case("a pattern without files", build("x-*.tar"), r"no source at x-\*\.tar"),
    Case("a row without its label", build("x.tar"), r"b\.png has no label", tarred(TARRED | {"a.cls": b"1"})),
    Case("labels that are lists", build("x"), r"a label that is no class: \[1, 0\]", files({"x/a.png": PNG, "x/dataset.json": VECTORS})),
    Case("a table of labels that is cut", build("x"), r"dataset\.json is not", files(PAIR | {"x/dataset.json": VECTORS[:20]})),
    Case("a zip that was cut", build("x.zip"), r"x\.zip was cut or altered", files({"x.zip": b"PK\x03\x04 and no more"})),
    Case("an idx file of floats", build("m"), r"no idx file of bytes: it begins with 0x00000d03", idx(kind=13)),
    Case("an idx file that was cut", build("m"), r"was cut: expected 96 bytes, found 90", idx(cut=6)),
    Case("an idx file with labels for others", build("m"), r"labels-idx1-ubyte has shape \(4,\); the rows are 5", idx(labels=4)),
    Case("two data sets in HDF5", build("x.h5"), r"several arrays .*--array a", hdf5(a=X, b=X)),
    Case("HDF5 that was cut", build("x.h5"), r"x\.h5 can't be read as HDF5", files({"x.h5": b"\x89HDF\r\n\x1a\n" + bytes(99)})),
    Case("safetensors that were cut", build("x.safetensors"), r"can't be read as safetensors", files({"x.safetensors": HEADS})),
    Case("words in a table", build("x.csv"), r"row 1 has 'four' in column 'b', not a number", files({"x.csv": "a,b\n1,2\n3,four\n"})),
    Case("a gap in a table", build("x.csv"), r"row 1 has nothing in column 'b'", files({"x.csv": "a,b\n1,2\n3,\n"})),
    Case("a table with no lines", build("x.csv"), r"x\.csv is empty", files({"x.csv": "a,b\n"})),
    Case("columns that no table has", build("x.csv", "--columns", "a,c*"), r"unknown column .*: 'c\*'", files({"x.csv": "a,b\n1,2\n"})),
    Case("columns of no table", build("x.npz", "--columns", "a"), r"--columns does not apply to arrays", npz(x=X)),
    Case("rows that are pickled", build("x"), r"a\.npy holds Python objects .* FILE\.py:rows", files({"x/a.npy": OBJECTS})),
    Case("arrays of mixed shape", build("x"), r"b\.npy has shape \(5, 2\).*a\.npy has \(5, 3\)", files(SHAPES)),
    Case("a batch of CIFAR's that was cut", build("c"), r"data_batch_1 was cut or is no pickle", files({"c/data_batch_1": b"\x80\x02}q"})),
    Case(
        "a label file of another length", build("x", "--labels", "y.txt"), r"\(3,\); the rows are 2", files(PAIR | {"y.txt": "1\n2\n3\n"})
    ),
    Case("groups of no file", build("x", "--groups", "g.csv"), r"--groups g\.csv is not there", TWO),
    Case("groups of a wide file", build("x", "--groups", "g.csv"), r"g\.csv has 2 columns", files(PAIR | {"g.csv": "1,2\n2,3\n"})),
    Case("groups that names don't have", build("x", "--groups", r"(\d)"), r"finds nothing in the name 'a\.png'", TWO),
    Case("groups of no expression", build("x", "--groups", "(a"), r"\(a is no regular expression", TWO),
    Case("groups without brackets", build("x", "--groups", "a"), r"--groups a is no file.*expression with a group", TWO),
    Case("groups of rows without names", build("x.npz", "--groups", "(a)"), r"those of .*x\.npz have none", npz(x=X)),
    Case("sound of mixed length", build("x"), r"a\.wav lasts 0\.010 s, b\.wav 0\.020 s.*--seconds", MIXED),
    Case("sound that was cut", build("x"), r"a\.wav was cut: expected 204 bytes, found 194", files({"x/a.wav": wav(80, 10)})),
    Case("sound that is none", build("x"), r"a\.flac can't be read as sound", files({"x/a.flac": b"fLaC and no more"})),
    Case("sound in a mirror", build("x", "--flips"), r"--flips mirrors pixels", SOUND),
    Case("too little sound for a spectrum", build("x", "--log-mel", "--seconds", "0.001"), r"too few for 32 mel bands", SOUND),
    Case("sound of no length", build("x", "--seconds", "0"), r"--seconds 0 is no length", SOUND),
    Case("pictures at a rate", build("x", "--rate", "8000"), r"--rate does not apply to images", TWO),
    Case("latents in a mirror", build("x.npz", "--flips"), r"--flips mirrors pixels", npz(x=np.zeros((5, 4, 8, 8)))),
    Case("mirrored latents of others", build("x.npz"), r"x_flip' has 4 rows", npz(x=X, x_flip=X[:4])),
    Case("a function with labels for some rows", build("x.py:rows"), r"yields 1 labels for 2 rows", PY),
    Case("a function that yields nothing", build("x.py:none"), r"none in x\.py returned int", PY),
    Case("a function that fails", build("x.py:fails"), r"x\.py, line 11: ZeroDivisionError", PY),
    Case("a function that draws anew", build("x.py:anew"), r"yields another row 0 when it is run again", PY),
    Case("a Python file without a function", build("x.py"), r"x\.py is not a source", PY),
]
