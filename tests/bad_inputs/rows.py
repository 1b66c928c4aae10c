"""Rows that can't be: arrays, pictures and banks of the user's, and what is asked of them."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from scorescope.rows import Bank
from scorescope.search import neighbours
from tests.bad_inputs import Case

X, PIXELS = np.arange(15, dtype=np.float32).reshape(5, 3), np.zeros((3, 8, 8, 3), np.uint8)
BUILD = ("bank", "build", "x.npz", "--out", "x.bank")


def npz(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.savez(folder / "x.npz", **arrays)


def claims(shape: tuple[int, ...], data: bytes = b"", name: str = "x") -> Callable[[Path], None]:
    """An npz whose array's header claims a shape that its bytes do not have."""

    def make(folder: Path) -> None:
        member = io.BytesIO()
        np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": shape})
        np.savez(folder / "x.npz", **({} if name == "x" else {"x": X}))
        with zipfile.ZipFile(folder / "x.npz", "a") as archive:
            archive.writestr(f"{name}.npy", member.getvalue() + data)

    return make


def saved(folder: Path) -> None:
    Bank.from_arrays(X).save(folder / "x.bank")


def pipe(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "pictures").mkdir()
        Image.fromarray(PIXELS[0]).save(folder / "pictures" / "a.png")
        os.mkfifo(folder / name)

    return make


def edited(key: str, value: Any) -> list[Case]:
    """A bank whose manifest was edited by hand, by `info` and by `check`."""

    def make(folder: Path) -> None:
        Bank.from_arrays(PIXELS.transpose(0, 3, 1, 2), np.arange(3) % 2, class_names=("a", "b")).save(folder / "x.bank")
        manifest = json.loads((folder / "x.bank" / "manifest.json").read_text())
        (folder / "x.bank" / "manifest.json").write_text(json.dumps(manifest | {key: value}))

    said = rf"x\.bank/manifest\.json was altered: its {key} (can't be|contradicts)"
    return [Case(f"{verb} where {key} = {str(value)[:20]}", ("bank", verb, "x.bank"), said, make) for verb in ("info", "check")]


def wrong(key: str, value: Any) -> Case:
    """A bank whose manifest was edited to something that could be."""
    case = edited(key, value)[1]
    return case._replace(says=rf"x\.bank: its manifest is wrong about {key}")


def from_arrays(*arguments: Any, **options: Any) -> Callable[[Path], Bank]:
    return lambda folder: Bank.from_arrays(*arguments, **options)


def nearest(*arguments: Any, **options: Any) -> Callable[[Path], Any]:
    return lambda folder: neighbours(Bank.from_arrays(X), *arguments, **options)


CASES = [
    Case("names that no array has", (*BUILD, "--names", "nmes"), r"unknown array of .*'nmes'.*'names'", npz(x=X, names=X[:, 0])),
    Case(
        "names of two axes", (*BUILD, "--names", "names", "--array", "x"), r"'names' has shape \(5, 3\); the rows are 5", npz(x=X, names=X)
    ),
    Case("names in no file", (*BUILD, "--names", "n.npy"), r"--names n\.npy is not there", npz(x=X)),
    Case("a row that is not there", ("bank", "show", "x.bank", "5"), r"no row '5', and its rows have no names.*0 to 4", saved),
    Case("a picture that is no PNG", ("bank", "show", "x.bank", "4", "--out", "x.jpg"), r"x\.jpg is not the name of a PNG", saved),
    Case("the picture of no bank", ("bank", "show", "y.bank", "4"), r"no bank at y\.bank", saved),
    Case("an array that claims to be giant", BUILD, r"array 'x' claims .*, 100\) .* has 0 bytes", claims((10**10, 100))),
    Case("an array that claims rows that are giant", BUILD, r"claims the shape \(1, 10000000000\)", claims((1, 10**10))),
    Case("an array that claims more than int64", BUILD, r"claims the shape", claims((10**30, 3))),
    Case("an array of negative length", BUILD, r"claims the shape \(-5, 3\)", claims((-5, 3), b"x" * 15)),
    Case("an array of two negative lengths", BUILD, r"claims the shape \(-5, -3\)", claims((-5, -3), b"x" * 15)),
    Case("labels that claim more than they have", BUILD, r"array 'y' claims the shape \(5,\)", claims((5,), b"x", "y")),
    Case("a label of 10¹²", BUILD, r"row 3 has label 1,000,000,000,000, .*without gaps", npz(x=X, y=np.array([0, 1, 2, 10**12, 3]))),
    Case("a label beyond int64 in a file", BUILD, r"row 0 has label", npz(x=X, y=np.full(5, 2**63, np.uint64))),
    Case("pictures too wide for anyone", (*BUILD, "--size", "100000"), r"--size 100000 is more than 4,096 pixels", npz(x=PIXELS)),
    Case("a range beyond float32", (*BUILD, "--range", "-1e300", "1"), r"are not a range", npz(x=PIXELS)),
    Case("a pipe among pictures", ("bank", "build", "pictures", "--out", "x.bank"), r"b\.png is a pipe", pipe("pictures/b.png")),
    Case("a pipe as an array", ("bank", "build", "x.npy", "--out", "x.bank"), r"x\.npy is a pipe", pipe("x.npy")),
    Case("a pipe as a table", ("bank", "build", "x.parquet", "--out", "x.bank"), r"x\.parquet is a pipe", pipe("x.parquet")),
    Case("a device as a source", ("bank", "build", "/dev/zero", "--out", "x.bank"), r"/dev/zero is a pipe, a socket or a device"),
    *edited("class_counts", [1, 2, 7]),
    *edited("class_counts", "three"),
    *edited("classes", -1),
    *(case._replace(says="its class_counts contradicts") for case in edited("classes", 10**12)),
    *edited("class_names", [1, 2]),
    *edited("minimum", None),
    *edited("maximum", "1"),
    *edited("mean", float("nan")),
    *edited("channel_means", [0.0]),
    *edited("duplicates", -1),
    *edited("radius", 10**400),
    *edited("transform", "none"),
    *edited("cautions", {}),
    *edited("low", None),
    wrong("class_counts", [1, 2]),
    wrong("minimum", 0.5),
    wrong("maximum", 0.5),
    wrong("mean", 0.5),
    wrong("channel_means", [0.0, 0.0, 0.0]),
    wrong("duplicates", 0),
    Case("8 bits from −∞", from_arrays(PIXELS, low=-np.inf), r"from -inf to 1.* are not a range"),
    Case("8 bits from NaN", from_arrays(PIXELS, low=np.nan), r"from nan to 1.* are not a range"),
    Case("8 bits that float32 can't tell apart", from_arrays(PIXELS, low=0, high=1e-60), r"are not a range"),
    Case("a range of words", from_arrays(PIXELS, low="a", high="b"), r"are not a range"),
    Case("whole numbers beyond 64 bits", from_arrays([[10**30, 1], [1, 2]]), r"object are not numbers.*beyond 64 bits"),
    Case("whole numbers beyond float64", from_arrays([[10**400, 1], [1, 2]]), r"object are not numbers.*beyond 64 bits"),
    Case("values beyond float32", from_arrays([[1e300], [1.0]]), r"row 0 contains NaN or Inf"),
    Case("rows without values", from_arrays(torch.zeros(3, 3, device="meta")), r"on meta .* no array of values"),
    Case("labels beyond int64", from_arrays(X, [0, 1, 2, 10**30, 3]), r"type object are not class numbers"),
    Case("labels beyond int64, unsigned", from_arrays(X, np.full(5, 2**63, np.uint64)), r"row 0 has label 9,223"),
    Case("fewer class names than labels", from_arrays(X, [0, 1, 2, 1, 0], class_names=("a", "b")), r"label 2 has no name"),
    Case("class names as one word", from_arrays(X, [0, 1, 2, 1, 0], class_names="abc"), r"class names 'abc' are one word"),
    Case("the neighbours of NumPy's points", nearest(X, 1), r"points: ndarray is not a tensor"),
    Case("neighbours out of reach", nearest(torch.full((1, 3), 1e300, dtype=torch.float64), 1), r"points 0 contain NaN or Inf"),
    Case("the neighbours but NumPy's", nearest(torch.zeros(1, 3), 1, without=np.zeros(1, int)), r"without: ndarray is not a tensor"),
    Case("half a neighbour", nearest(torch.zeros(1, 3), 1.5), r"k = 1\.5"),
]
