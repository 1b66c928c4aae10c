"""Shadows: their bounds hold, they are made whole or not at all, and one that does not fit its bank is refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.search.shadow import SHADOW, build_shadow, shadow_of, verify_shadow
from tests.pictures import GREY

RNG = np.random.default_rng(7)


def saved(path: Path, rows: np.ndarray, **options: Any) -> Bank:
    return Bank.from_arrays(rows, **options).save(path, force=True)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    saved(tmp_path / "x.bank", RNG.standard_normal((50, 2, 4, 3)).astype(np.float16), flips=True)
    build_shadow(tmp_path / "x.bank")
    return tmp_path / "x.bank"


@st.composite
def float_rows(draw: st.DrawFn) -> np.ndarray:
    """Rows that are far from zero, of very unequal size, constant, with outliers, tiny or huge."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, d = draw(st.integers(1, 30)), draw(st.sampled_from([1, 7, 60]))
    x = rng.standard_normal((n, d)) * np.exp(draw(st.sampled_from([0.0, 2.0])) * rng.standard_normal((n, 1)))
    if draw(st.booleans()):
        x[draw(st.integers(0, n - 1)), draw(st.integers(0, d - 1))] = 1e3
    x = (x + draw(st.sampled_from([0.0, 1e3]))) * draw(st.sampled_from([1.0, 0.0, 1e-3, 1e-30, 1e30]))
    return x.astype(draw(st.sampled_from([np.float16, np.float32]))) if abs(x).max() < 6e4 else x.astype(np.float32)


@given(rows=float_rows())
@settings(max_examples=60, deadline=None)
def test_what_was_rounded_away_bounds_every_inner_product(rows: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("shadows") / "x.bank"
    bank = saved(path, rows)
    shadow = build_shadow(path)
    assert shadow is not None
    centre, step = shadow.quantizer.centre.numpy(), shadow.quantizer.step
    centred = rows.astype(np.float64) - centre
    norm = np.linalg.norm(centred, axis=1)
    q = shadow.rows[:]
    assert (q.dtype, q.shape) == (np.int8, rows.shape)
    assert np.array_equal(centre, centre.astype(np.float32))
    assert abs(q.astype(int)).max() <= 127
    np.testing.assert_allclose(shadow.square, norm**2, rtol=1e-12)
    residual = centred - step * q
    np.testing.assert_allclose(centre, bank.mean.numpy(), rtol=1e-7, atol=1e-40)
    # The worst z of all is the residual itself; a float64 product is off by about d · 2⁻⁵³.
    for z in (residual, centred, RNG.standard_normal(residual.shape)):
        size = np.linalg.norm(z, axis=1)
        off = abs((z * centred).sum(1) - step * (z * q).sum(1))
        assert (off <= size * shadow.residual + 1e-13 * size * norm).all()
    # It is the norm of the residual, not a generous bound of it.
    np.testing.assert_allclose(shadow.residual, np.linalg.norm(residual, axis=1), rtol=1e-9, atol=1e-12 * float(norm.max()))
    assert verify_shadow(bank)


def test_rounding_loses_little_and_an_outlier_does_not_spoil_it(tmp_path: Path) -> None:
    rows = RNG.standard_normal((500, 64)).astype(np.float32)
    rows[100, 5] = 1e3
    saved(tmp_path / "x.bank", rows)
    shadow = build_shadow(tmp_path / "x.bank")
    assert shadow is not None
    lost = shadow.residual / np.sqrt(shadow.square)
    assert np.median(lost) < 0.02  # 0.008; a step that clips nothing would lose nearly all
    assert lost[100] > 0.9  # what was clipped counts as residual


def test_the_file_holds_what_the_shadow_says(path: Path) -> None:
    bank = Bank.open(path)
    shadow = shadow_of(bank)
    assert shadow is not None
    assert shadow_of(bank) is shadow  # opened once
    tensors = load_file(path / SHADOW)
    assert set(tensors) == {"square", "rounded", "mean", "rows"}
    np.testing.assert_array_equal(tensors["rows"], shadow.rows[:])
    np.testing.assert_array_equal(tensors["mean"], shadow.quantizer.centre)
    mean = tensors["mean"].reshape(bank.shape)
    np.testing.assert_array_equal(mean, mean[..., ::-1])  # so that a mirrored row needs no shadow of its own


def test_banks_in_memory_of_8_bits_and_of_old_have_none(tmp_path: Path) -> None:
    assert shadow_of(Bank.from_arrays(RNG.standard_normal((5, 3)))) is None
    bytes_only = saved(tmp_path / "b.bank", GREY[:, None])
    assert build_shadow(tmp_path / "b.bank") is None
    assert shadow_of(bytes_only) is None
    assert sorted(os.listdir(tmp_path / "b.bank")) == ["manifest.json", "rows.safetensors"]
    fresh = saved(tmp_path / "f.bank", RNG.standard_normal((5, 3)))
    assert shadow_of(fresh) is None
    build_shadow(tmp_path / "f.bank")
    assert shadow_of(fresh) is not None  # made while the bank was open


def test_a_shadow_changes_nothing_of_the_bank(tmp_path: Path) -> None:
    before = saved(tmp_path / "x.bank", RNG.standard_normal((9, 3)).astype(np.float32))
    files = {name: (tmp_path / "x.bank" / name).read_bytes() for name in ("rows.safetensors", "manifest.json")}
    build_shadow(tmp_path / "x.bank")
    assert {name: (tmp_path / "x.bank" / name).read_bytes() for name in files} == files
    assert before.stored(0, 9).shape == (9, 3)  # still open
    assert Bank.open(tmp_path / "x.bank").fingerprint == before.fingerprint


def test_blocks_do_not_matter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scorescope.search import quantize, shadow

    first = (path / SHADOW).read_bytes()
    monkeypatch.setattr(shadow, "batch_rows", lambda size: 7)
    monkeypatch.setattr(quantize, "CHUNK", 1)
    told: list[tuple[str, int, int]] = []
    build_shadow(path, lambda *state: told.append(state))
    assert (path / SHADOW).read_bytes() == first
    assert [done for _, done, _ in told] == [7, 14, 21, 28, 35, 42, 49, 50]


# ---- damage -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [0, 5, 100, 300, -1])
def test_a_cut_shadow_says_how_to_make_it_again(path: Path, kept: int) -> None:
    size = (path / SHADOW).stat().st_size
    os.truncate(path / SHADOW, kept if kept >= 0 else size + kept)
    bank = Bank.open(path)
    for _ in range(2):
        with pytest.raises(InputError, match=rf"{SHADOW} was cut: .*scorescope bank shadow .*x\.bank"):
            shadow_of(bank)
    assert bank[0].shape == (2, 4, 3)  # the bank itself is fine
    build_shadow(path)
    assert shadow_of(bank) is not None


def test_the_shadow_of_other_rows_is_refused(path: Path, tmp_path: Path) -> None:
    other = saved(tmp_path / "y.bank", RNG.standard_normal((50, 2, 4, 3)).astype(np.float16), flips=True)
    shutil.copy(path / SHADOW, tmp_path / "y.bank" / SHADOW)
    with pytest.raises(InputError, match=r"made of other rows .*scorescope bank shadow .*y\.bank"):
        shadow_of(other)


def test_a_shadow_cut_while_open_is_an_error_at_the_next_read(path: Path) -> None:
    shadow = shadow_of(Bank.open(path))
    assert shadow is not None
    os.truncate(path / SHADOW, 400)
    with pytest.raises(InputError, match=rf"{SHADOW} was cut"):
        shadow.rows[:5]
    with pytest.raises(InputError, match=rf"{SHADOW} was cut"):
        shadow.rows[np.array([3])]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_altered_byte_is_found_by_a_check(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("shadows") / "x.bank"
    bank = saved(path, np.random.default_rng(0).standard_normal((20, 6)).astype(np.float32))
    build_shadow(path)
    content = bytearray((path / SHADOW).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.sampled_from([1 << 6, 1 << 7]))
    (path / SHADOW).write_bytes(content)
    before = content[: 8 + int.from_bytes(content[:8], "little")].rstrip()
    try:
        verify_shadow(bank)
    except InputError:
        return
    # Nothing was found: then nothing was altered that an answer depends on beyond float64's last digits.
    assert place >= len(before)
    shadow = shadow_of(bank)
    assert shadow is not None
    residual = np.array(bank.rows, dtype=np.float64) - shadow.quantizer.centre.numpy() - shadow.quantizer.step * shadow.rows[:]
    np.testing.assert_allclose(shadow.residual, np.linalg.norm(residual, axis=1), rtol=1e-9)


# ---- kills and faults while it is made --------------------------------------------------------------------------------------

SLOW = """
import sys, time
from scorescope.search.shadow import build_shadow
def slow(stage, done, total):
    print("started", flush=True)
    time.sleep(60)
build_shadow(sys.argv[1], slow)
"""


@pytest.mark.parametrize("first", [False, True])
def test_a_killed_shadow_build_leaves_the_bank_usable_and_is_run_again(tmp_path: Path, first: bool) -> None:
    path = tmp_path / "x.bank"
    rows = RNG.standard_normal((40, 5)).astype(np.float32)
    saved(path, rows)
    if not first:
        build_shadow(path)
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"started\n"
    with pytest.raises(InputError, match=rf"another process is writing {SHADOW}"):
        build_shadow(path)
    process.send_signal(signal.SIGKILL)
    process.wait()
    bank = Bank.open(path)
    np.testing.assert_array_equal(bank.rows, rows)
    assert (shadow_of(bank) is None) == first  # an older shadow is still there
    assert f".{SHADOW}.{process.pid}.tmp" in os.listdir(path)
    build_shadow(path)
    assert verify_shadow(Bank.open(path))
    assert sorted(os.listdir(path)) == ["manifest.json", "rows.safetensors", SHADOW]


def test_an_interrupted_shadow_build_leaves_nothing(tmp_path: Path) -> None:
    saved(tmp_path / "x.bank", RNG.standard_normal((40, 5)))

    def interrupt(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_shadow(tmp_path / "x.bank", interrupt)
    assert sorted(os.listdir(tmp_path / "x.bank")) == ["manifest.json", "rows.safetensors"]


def test_a_bank_that_changes_meanwhile_gets_no_shadow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from scorescope.search import shadow

    path = tmp_path / "x.bank"
    saved(path, RNG.standard_normal((40, 5)))
    monkeypatch.setattr(shadow, "batch_rows", lambda size: 10)
    with pytest.raises(InputError, match=r"rows\.safetensors was cut"):
        build_shadow(path, lambda stage, done, total: os.truncate(path / "rows.safetensors", 300))
    assert sorted(os.listdir(path)) == ["manifest.json", "rows.safetensors"]


def test_a_disk_too_small_is_named_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "x.bank", RNG.standard_normal((40, 5)))
    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=500))
    with pytest.raises(InputError, match=rf"{SHADOW} needs 0\.0 MB, the disk has"):
        build_shadow(tmp_path / "x.bank")
    assert sorted(os.listdir(tmp_path / "x.bank")) == ["manifest.json", "rows.safetensors"]


def test_no_bank_no_shadow(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bank at"):
        build_shadow(tmp_path / "nothing.bank")
