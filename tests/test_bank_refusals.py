"""Building banks: bad sources are refused by name and leave nothing behind; outputs are replaced whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from scorescope import files
from scorescope.errors import InputError
from scorescope.rows import Bank, storage
from scorescope.rows.verify import verify
from tests.pictures import COLOUR, GREY, LABELS, RNG, write_images


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "banks").mkdir()
    return tmp_path / "banks" / "x.bank"


def broken_png(folder: Path) -> Path:
    root = write_images(folder / "a", GREY)
    (root / "007.png").write_bytes(b"not an image")
    return root


def cut_png(folder: Path) -> Path:
    root = write_images(folder / "a", np.repeat(np.repeat(GREY, 8, 1), 8, 2))
    content = (root / "007.png").read_bytes()
    (root / "007.png").write_bytes(content[: len(content) // 2])
    return root


def mixed(folder: Path) -> Path:
    root = write_images(folder / "a", GREY)
    Image.fromarray(GREY[0, :5]).save(root / "zz.png")
    return root


def deep(folder: Path) -> Path:
    root = write_images(folder / "a", GREY)
    Image.fromarray(GREY[0].astype(np.uint16) * 257).save(root / "zz.png")
    return root


def loose(folder: Path) -> Path:
    root = write_images(folder / "a", GREY, LABELS)
    Image.fromarray(GREY[0]).save(root / "loose.png")
    return root


def empty(folder: Path) -> Path:
    (folder / "a").mkdir()
    return folder / "a"


def text_only(folder: Path) -> Path:
    (empty(folder) / "notes.txt").write_text("x")
    return folder / "a"


def saved_as(name: str, **arrays: np.ndarray) -> Any:
    def write(folder: Path) -> Path:
        if name.endswith(".npy"):
            np.save(folder / name, arrays["x"], allow_pickle=True)
        else:
            np.savez(folder / name, **arrays)
        return folder / name

    return write


def cut(name: str, kept: float) -> Any:
    def write(folder: Path) -> Path:
        path = saved_as(name, x=GREY)(folder)
        os.truncate(path, int(path.stat().st_size * kept))
        return path

    return write


def altered_npz(folder: Path) -> Path:
    path = saved_as("x.npz", x=np.repeat(GREY, 1000, 0))(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def nan_rows(*rows: int) -> np.ndarray:
    x = RNG.standard_normal((9000, 3)).astype(np.float32)
    x[list(rows), 1] = np.nan
    return x


RAGGED = np.array([np.zeros(3), np.zeros(4)], dtype=object)
BAD = {
    "missing": (lambda folder: folder / "nothing", {}, r"no source at .*nothing"),
    "empty folder": (empty, {}, "has no images, it is empty"),
    "folder without images": (text_only, {}, r"has no images; it holds notes\.txt"),
    "broken image": (broken_png, {}, r"007\.png can't be read as image \(not an image"),
    "cut image": (cut_png, {}, r"007\.png can't be read as image"),
    "mixed sizes": (mixed, {}, r"mixed shape: 000\.png is 6×8, zz\.png is 6×5 .*--size 6"),
    "16-bit image": (deep, {}, r"zz\.png has more than 8 bits"),
    "images beside class folders": (loose, {}, r"beside its class subfolders \(loose\.png\)"),
    "unknown file": (lambda folder: Path(__file__), {}, "is not a source"),
    "empty array": (saved_as("x.npy", x=GREY[:0]), {}, "is empty"),
    "array without rows": (saved_as("x.npy", x=np.zeros(5)), {}, "which are no rows"),
    "one number": (saved_as("x.npy", x=np.array(5.0)), {}, "which are no rows"),
    "ragged array": (saved_as("x.npy", x=RAGGED), {}, "Python objects"),
    "ragged npz": (saved_as("x.npz", x=RAGGED, z=GREY), {"array": "x"}, "Python objects"),
    "words": (saved_as("x.npy", x=np.array([["a"]])), {}, "not numbers"),
    "complex": (saved_as("x.npy", x=np.zeros((2, 2), complex)), {}, "not numbers"),
    "nan": (saved_as("x.npy", x=nan_rows(17, 402, 8999)), {}, r"rows 17, 402, 8999 contain NaN or Inf \(3 of 9,000\)"),
    "overflow": (saved_as("x.npy", x=np.array([[1.0], [1e300]])), {}, "row 1 contains NaN or Inf"),
    "overflow by scale": (saved_as("x.npy", x=np.array([[1.0], [2.0]])), {"scale": 1e300}, "contain NaN or Inf"),
    "cut npy": (cut("x.npy", 0.7), {}, r"x\.npy can't be read"),
    "cut npy head": (cut("x.npy", 0.01), {}, r"x\.npy can't be read"),
    "cut npz": (cut("x.npz", 0.5), {}, r"x\.npz can't be read"),
    "altered npz": (altered_npz, {}, r"x\.npz was cut or altered"),
    "several arrays": (saved_as("x.npz", a=GREY, b=GREY), {}, r"several arrays .*--array a"),
    "no array": (saved_as("x.npz", a=np.zeros(3)), {}, "no array with rows"),
    "unknown array": (saved_as("x.npz", pictures=GREY), {"array": "picture"}, r"unknown array .*did you mean"),
    "unknown labels": (saved_as("x.npz", x=GREY, kind=LABELS), {"labels": "kinds"}, r"unknown array .*'kind'"),
    "missing label file": (saved_as("x.npy", x=GREY), {"labels": "nothing.npy"}, r"--labels nothing\.npy is not there"),
    "too few labels": (saved_as("x.npz", x=GREY, y=LABELS[:3]), {}, "one label a row"),
    "negative label": (saved_as("x.npz", x=GREY, y=LABELS - 1), {}, "row 0 has label -1"),
    "labels that are no classes": (saved_as("x.npz", x=GREY, y=LABELS / 2), {}, "not class numbers"),
    "resized numbers": (saved_as("x.npy", x=GREY.astype(float)), {"size": 4}, "--size is for 8-bit images"),
    "ranged numbers": (saved_as("x.npy", x=GREY.astype(float)), {"range": (0.0, 1.0)}, "--range is for 8-bit images"),
    "scaled pixels": (saved_as("x.npy", x=GREY), {"scale": 2.0}, "--scale does not apply"),
    "resized vectors": (saved_as("x.npy", x=GREY[:, 0]), {"size": 4}, "--size and --gray work on images"),
    "flipped vectors": (saved_as("x.npy", x=GREY[:, 0]), {"flips": True}, "flips need rows with a width"),
    "flipped numbers": (saved_as("x.npy", x=np.zeros((3, 4, 8, 8))), {"flips": True}, "is not the latent of the mirror image"),
    "unknown layout": (saved_as("x.npy", x=GREY), {"layout": "hcw"}, r"unknown layout .*did you mean"),
    "no rows asked for": (saved_as("x.npy", x=GREY), {"limit": 0}, "--limit 0"),
    "reversed range": (saved_as("x.npy", x=GREY), {"range": (1.0, -1.0)}, "is not a range"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_sources_are_refused_and_leave_nothing(case: str, tmp_path: Path, out: Path) -> None:
    write, options, said = BAD[case]
    with pytest.raises(InputError, match=said) as caught:
        Bank.build(write(tmp_path), out, **options)
    assert "\n" not in str(caught.value)
    assert os.listdir(out.parent) == []


# ---- the output -------------------------------------------------------------------------------------------------------------


def test_an_existing_bank_is_replaced_only_on_request(tmp_path: Path, out: Path) -> None:
    first = Bank.build(COLOUR, out).fingerprint
    with pytest.raises(InputError, match=r"x\.bank exists.*--force"):
        Bank.build(GREY, out)
    with pytest.raises(InputError, match="NaN"):
        Bank.build(nan_rows(3), out, force=True)
    assert Bank.open(out).fingerprint == first
    assert Bank.build(GREY, out, force=True).fingerprint != first
    assert os.listdir(out.parent) == ["x.bank"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_force_never_replaces_what_is_not_a_bank(kind: str, tmp_path: Path, out: Path) -> None:
    if kind == "folder":
        out.mkdir()
        (out / "manifest.json").write_text("a web page's")
    elif kind == "file":
        out.write_text("precious")
    else:
        Bank.build(COLOUR, tmp_path / "real.bank")
        out.symlink_to(tmp_path / "real.bank")
    with pytest.raises(InputError, match="not replaced"):
        Bank.build(GREY, out, force=True)
    assert os.listdir(out.parent) == ["x.bank"]


@contextlib.contextmanager
def somebody() -> Iterator[None]:
    """Act as a user whom permissions bind."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_without_write_permission_is_named() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o555)
        with somebody(), pytest.raises(InputError, match=rf"can't write into {folder} \(Permission denied\)"):
            Bank.build(GREY, Path(folder) / "x.bank")
        os.chmod(folder, 0o755)
        assert os.listdir(folder) == []


def test_a_disk_too_small_is_named_before_anything_is_read(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shutil.disk_usage(out.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=500))
    with pytest.raises(InputError, match=r"needs 0\.0 MB, the disk has"):
        Bank.build(COLOUR, out)
    assert os.listdir(out.parent) == []


def test_a_disk_that_becomes_full_leaves_nothing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "_sync", full)
    with pytest.raises(InputError, match="the disk became full"):
        Bank.build(COLOUR, out)
    assert os.listdir(out.parent) == []


SLOW = """
import sys, time
def slow(stage, done, total):
    print("started", flush=True)
    time.sleep(60)
from scorescope.rows import Bank
Bank.build(sys.argv[1], sys.argv[2], progress=slow)
"""


def test_a_killed_build_is_run_again_and_two_at_once_are_refused(tmp_path: Path, out: Path) -> None:
    np.save(tmp_path / "x.npy", COLOUR)
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(tmp_path / "x.npy"), str(out)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"started\n"
    with pytest.raises(InputError, match=r"another process is writing x\.bank"):
        Bank.build(COLOUR, out)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.listdir(out.parent) == [".x.bank.partial"]
    assert not out.exists()
    verify(Bank.build(COLOUR, out))
    assert os.listdir(out.parent) == ["x.bank"]


def test_an_interrupted_build_leaves_nothing(out: Path) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Bank.build(COLOUR, out, progress=interrupt)
    assert os.listdir(out.parent) == []


def test_rows_stream_through(tmp_path: Path, out: Path) -> None:
    """A source of many megabytes goes through in small batches, and progress says how far it is."""
    np.savez(tmp_path / "x.npz", x=np.zeros((3000, 1000), np.float32) + np.arange(3000, dtype=np.float32)[:, None])
    told: list[tuple[str, int, int]] = []
    started = time.monotonic()
    bank = Bank.build(tmp_path / "x.npz", out, progress=lambda *state: told.append(state))
    steps = np.diff([0, *(done for _, done, _ in told)])
    assert told[-1][1:] == (3000, 3000)
    assert steps.max() * 4000 <= storage.BATCH_BYTES
    assert bank.radius == pytest.approx(np.sqrt(1000 * (3000**2 - 1) / 12))
    assert time.monotonic() - started < 30
