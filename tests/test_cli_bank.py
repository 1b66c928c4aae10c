"""`scorescope bank`: what a person sees, and what a machine reads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from scorescope.cli import main
from scorescope.rows import Bank


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(8):
        folder = tmp_path / "photos" / ("cat", "dog")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photos"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["bank", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_build_info_check(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "photos.bank"
    status, said, complained = run(
        capsys, "build", photos, "--out", out, "--flips", "--range", "-0.5", "0.5", "--size", "6", "--name", "pets"
    )
    assert (status, complained) == (0, "")
    assert "8 rows (3, 6, 6) uint8, 2 classes, flips" in said
    bank = Bank.open(out)
    assert (bank.flips, bank.low, bank.high, bank.name, bank.class_names) == (True, -0.5, 0.5, "pets", ("cat", "dog"))

    status, said, _ = run(capsys, "info", out)
    assert status == 0
    for expected in ("pets", "8, and their mirror images", "cat 4, dog 4", "resized to 6", bank.fingerprint):
        assert expected in said
    status, said, _ = run(capsys, "info", out, "--json")
    assert json.loads(said) == bank.manifest

    status, said, complained = run(capsys, "check", out)
    assert (status, complained) == (0, "")
    assert said.startswith(f"ok {out}")
    assert said.count("\n") == 1


def test_check_fails_with_one_line(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "x.bank"
    run(capsys, "build", photos, "--out", out)
    file = out / "rows.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 8
    file.write_bytes(content)
    status, said, complained = run(capsys, "check", out)
    assert (status, said, complained.count("\n")) == (2, "", 1)
    assert complained.startswith("error:")
    assert "was altered" in complained
    os.truncate(file, len(content) - 10)
    for verb in ("check", "info"):
        status, said, complained = run(capsys, verb, out)
        assert (status, said, complained.count("\n")) == (2, "", 1)
        assert f"expected {len(content):,} bytes, found {len(content) - 10:,}" in complained


def test_bad_input_is_one_line_and_status_2(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "banks" / "x.bank"
    out.parent.mkdir()
    (photos / "cat" / "bad\nname.png").write_bytes(b"x")
    for words in (
        ("build", photos, "--out", out),
        ("build", tmp_path / "nothing", "--out", out),
        ("info", out),
        ("check", out),
        ("chek", out),
    ):
        status, said, complained = run(capsys, *words)
        assert (status, said, complained.count("\n")) == (2, "", 1)
        assert complained.startswith("error: ")
    assert "did you mean" in complained
    assert os.listdir(out.parent) == []


def test_odd_data_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.ones((1, 4), np.float32))
    status, _, complained = run(capsys, "build", tmp_path / "x.npy", "--out", tmp_path / "x.bank")
    assert status == 0
    assert "warning: the bank has one row" in complained
    assert "warning 1" in run(capsys, "info", tmp_path / "x.bank")[1]


@pytest.mark.parametrize("words", [[], ["--help"], ["build", "--help"], ["info", "--help"], ["check", "--help"]])
def test_help_is_quick_and_shows_an_example(words: list[str]) -> None:
    code = f"""
import sys
from scorescope.cli import main
try:
    main(["bank", *{words!r}])
except SystemExit as end:
    assert end.code == 0
heavy = {{"torch", "xarray", "altair", "pandas", "numpy", "PIL"}} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "scorescope bank " in done.stdout
    assert ".bank" in done.stdout
    if not words or words == ["--help"]:
        assert all(f"  {verb} " in done.stdout for verb in ("build", "info", "check"))


def test_wrong_options_are_one_line_and_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "build", "photos", "--out", "x.bank", "--sise", "4") == (
        2,
        "",
        "error: Unrecognized options: --sise, 4. Try: --size\n",
    )
