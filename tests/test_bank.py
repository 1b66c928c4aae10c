"""The bank in memory and on disk: rows, flips, moments, fingerprints, round trips, damage."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.rows.content import fingerprint_of
from scorescope.rows.tensors import StoredRows
from scorescope.rows.verify import verify

SHAPES = {"image": (3, 6, 5), "latent": (4, 3, 3), "vector": (7,), "waveform": (1, 16)}


@st.composite
def banks(draw: st.DrawFn) -> Bank:
    """Any small bank: shape, storage type, labels, flips, range."""
    shape = draw(st.sampled_from(sorted(SHAPES.values())))
    n = draw(st.integers(1, 23))
    dtype = draw(st.sampled_from([np.uint8, np.float16, np.float32]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = rng.integers(0, 256, (n, *shape)).astype(np.uint8) if dtype is np.uint8 else (3 + rng.standard_normal((n, *shape))).astype(dtype)
    labels = rng.integers(0, 4, n) if draw(st.booleans()) else None
    low = draw(st.sampled_from([-1.0, 0.0, -0.3]))
    return Bank.from_arrays(rows, labels, flips=len(shape) > 1 and draw(st.booleans()), low=low, high=1.7, name="any")


def everything(bank: Bank) -> np.ndarray:
    """Rows and mirrored rows in model space (len, *shape), written down without the bank's own code."""
    rows = np.array(bank.rows)
    if rows.dtype == np.uint8:
        rows = (bank.low + (bank.high - bank.low) * rows.astype(np.float64) / 255).astype(np.float32)
    rows = rows.astype(np.float32)
    return np.concatenate([rows, rows[..., ::-1]]) if bank.flips else rows


@given(bank=banks())
@settings(max_examples=60, deadline=None)
def test_saving_and_opening_changes_nothing(bank: Bank, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("banks") / "any.bank"
    opened = bank.save(path)
    assert isinstance(opened.rows, StoredRows)
    np.testing.assert_array_equal(opened.rows, bank.rows)
    assert opened.rows.dtype == bank.rows.dtype
    assert (opened.labels is None) == (bank.labels is None)
    if bank.labels is not None:
        np.testing.assert_array_equal(opened.labels, bank.labels)
    assert (opened.flips, opened.name, opened.shape, opened.classes) == (bank.flips, bank.name, bank.shape, bank.classes)
    # The fingerprint that was taken while the rows streamed past is the one of the same content in memory.
    assert opened.manifest["fingerprint"] == fingerprint_of(bank.description(), bank.rows, bank.labels) == bank.fingerprint
    assert verify(opened)["fingerprint"] == bank.fingerprint
    # Other tools read the file as safetensors.
    tensors = load_file(path / "rows.safetensors")
    np.testing.assert_array_equal(tensors["rows"], bank.rows)
    assert ("labels" in tensors) == (bank.labels is not None)
    np.testing.assert_array_equal(tensors["mean"], opened.mean)


@given(bank=banks(), size=st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_blocks_of_any_size_are_all_rows_once_in_order(bank: Bank, size: int) -> None:
    blocks = list(bank.blocks(size))
    truth = everything(bank)
    np.testing.assert_array_equal(np.concatenate([block.index for block in blocks]), np.arange(len(bank)))
    np.testing.assert_array_equal(torch.cat([block.x for block in blocks]).numpy(), truth.reshape(len(truth), -1))
    if bank.labels is not None:
        label = int(bank.labels[0])
        wanted = np.flatnonzero(np.tile(bank.labels, 1 + bank.flips) == label)
        np.testing.assert_array_equal(np.concatenate([block.index for block in bank.blocks(size, label)]), wanted)
        np.testing.assert_array_equal(
            torch.cat([block.x for block in bank.blocks(size, label)]).numpy(), truth[wanted].reshape(len(wanted), -1)
        )


@given(bank=banks())
@settings(max_examples=40, deadline=None)
def test_indexing_decodes_and_mirrors(bank: Bank) -> None:
    np.testing.assert_array_equal(bank[np.arange(len(bank))].numpy(), everything(bank))
    if bank.flips:
        n = len(bank.rows)
        assert torch.equal(bank[n + n - 1], bank[n - 1].flip(-1))
    with pytest.raises(IndexError):
        bank[len(bank)]


@given(bank=banks(), offset=st.sampled_from([0.0, 1e4]))
@settings(max_examples=40, deadline=None)
def test_mean_and_radius_are_those_of_numpy(bank: Bank, offset: float) -> None:
    if bank.rows.dtype == np.float32:
        bank = Bank.from_arrays(bank.rows + np.float32(offset), bank.labels, flips=bank.flips)
    x = everything(bank).astype(np.float64)
    mean = x.mean(0)
    radius = np.sqrt(np.square(x - mean).reshape(len(x), -1).sum(1).mean())
    np.testing.assert_allclose(bank.mean.numpy(), mean, rtol=1e-12, atol=1e-12)
    # A variance from sums about one row keeps half of float64's digits when all rows are (almost) equal.
    assert bank.radius == pytest.approx(radius, rel=1e-9, abs=1e-6)
    found = verify(bank)
    assert found["radius"] == pytest.approx(radius, rel=1e-9, abs=1e-6)
    assert found["mean"] == pytest.approx(mean.mean(), rel=1e-12, abs=1e-12)
    assert (found["minimum"], found["maximum"]) == (x.min(), x.max())
    if len(bank.shape) == 3:
        np.testing.assert_allclose(found["channel_means"], mean.mean((1, 2)), rtol=1e-12, atol=1e-12)


def rows_of(shape: tuple[int, ...] = (3, 4, 4), n: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def test_fingerprint_sees_every_pixel_label_and_setting() -> None:
    rows, labels = rows_of(), np.arange(10) % 3
    prints = {Bank.from_arrays(rows, labels).fingerprint}
    pixel, label = rows.copy(), labels.copy()
    pixel[7, 2, 3, 3] ^= 1
    label[4] = 0
    prints |= {
        Bank.from_arrays(pixel, labels).fingerprint,
        Bank.from_arrays(rows, label).fingerprint,
        Bank.from_arrays(rows).fingerprint,
        Bank.from_arrays(rows, labels, flips=True).fingerprint,
        Bank.from_arrays(rows, labels, low=0.0).fingerprint,
        Bank.from_arrays(rows.reshape(10, 3, 2, 8), labels).fingerprint,
        Bank.from_arrays(rows[:, ::-1], labels).fingerprint,
        Bank.from_arrays(rows.astype(np.float32), labels).fingerprint,
    }
    assert len(prints) == 9
    # What is only a name does not count.
    assert Bank.from_arrays(rows, labels, name="other", class_names=("a", "b", "c")).fingerprint in prints


def test_duplicates_are_counted_and_named(tmp_path: Path) -> None:
    rows = rows_of(n=9)
    rows[5], rows[7], rows[8] = rows[2], rows[2], rows[0]
    bank = Bank.from_arrays(rows).save(tmp_path / "d.bank")
    assert bank.manifest["duplicates"] == 3
    assert any("row 5 repeats row 2, row 7 repeats row 2, row 8 repeats row 0" in text for text in bank.manifest["cautions"])


@pytest.mark.parametrize(
    ("x", "labels", "said"),
    [
        (np.zeros((0, 3)), None, "not a bank"),
        (np.zeros(3), None, "not a bank"),
        (np.zeros((3, 0)), None, "not a bank"),
        ([[1.0, 2.0], [3.0]], None, "mixed shape"),
        (np.array([["a"]]), None, "not numbers"),
        (np.array([[0.0], [np.nan], [1.0], [np.inf]]), None, "rows 1, 3 contain"),
        (np.array([[0.0], [1e300]]), None, "row 1 contains"),
        (np.zeros((3, 2)), np.array([0, 1]), "do not match"),
        (np.zeros((2, 2)), np.array([0, -1]), "negative"),
        (np.zeros((2, 2)), np.array([0.0, 1.0]), "not class numbers"),
    ],
)
def test_arrays_that_are_no_bank_are_refused(x: np.ndarray, labels: np.ndarray | None, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Bank.from_arrays(x, labels)


def test_class_names_must_cover_the_labels() -> None:
    with pytest.raises(InputError, match="label 2 has no name"):
        Bank.from_arrays(rows_of(n=3), np.array([0, 1, 2]), class_names=("a", "b"))


# ---- damage -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    labels = np.arange(10) % 3
    Bank.from_arrays(rows_of(), labels, class_names=("a", "b", "c")).save(tmp_path / "x.bank")
    return tmp_path / "x.bank"


def damage_manifest(path: Path, **changes: object) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | changes))


@pytest.mark.parametrize("kept", [0, 5, 30, 200, -1])
def test_a_cut_file_is_named_with_both_sizes(saved: Path, kept: int) -> None:
    file = saved / "rows.safetensors"
    size = file.stat().st_size
    os.truncate(file, kept if kept >= 0 else size + kept)
    with pytest.raises(InputError, match=rf"rows\.safetensors was cut: expected .*found {file.stat().st_size:,}"):
        Bank.open(saved)


def test_a_file_cut_after_opening_is_an_error_not_a_crash(saved: Path) -> None:
    bank = Bank.open(saved)
    os.truncate(saved / "rows.safetensors", 100)
    with pytest.raises(InputError, match="was cut: expected"):
        verify(bank)


@pytest.mark.parametrize("where", [-1, -480, -500])
def test_one_altered_byte_is_found(saved: Path, where: int) -> None:
    """The last row, the first row, the labels: each byte counts."""
    file = saved / "rows.safetensors"
    content = bytearray(file.read_bytes())
    content[where] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"altered|labels are not"):
        verify(Bank.open(saved))


@pytest.mark.parametrize(
    "changes",
    [
        {"flips": True},
        {"low": 0.0},
        {"rows": 9},
        {"shape": [3, 16]},
        {"dtype": "float32"},
        {"classes": 2},
        {"class_names": ["a"]},
        {"classes": 0, "class_counts": None},
        {"fingerprint": "0" * 64},
        {"class_counts": [1, 2, 7]},
        {"radius": 1.0},
        {"maximum": 2.0},
        {"duplicates": 1},
        {"schema": 99},
        {"rows": "ten"},
        {"shape": None},
    ],
)
def test_an_altered_manifest_is_found(saved: Path, changes: dict[str, object]) -> None:
    verify(Bank.open(saved))
    damage_manifest(saved, **changes)
    with pytest.raises(InputError):
        verify(Bank.open(saved))


def test_nan_on_disk_is_named_by_row(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)
    Bank.from_arrays(rows).save(tmp_path / "x.bank")
    rows[6, 1] = np.nan
    save_file({"rows": rows}, tmp_path / "x.bank" / "rows.safetensors")
    with pytest.raises(InputError, match="row 6 contains NaN"):
        verify(Bank.open(tmp_path / "x.bank"))


def test_garbage_and_absence_are_told_apart(saved: Path) -> None:
    with pytest.raises(InputError, match="no bank at"):
        Bank.open(saved.with_name("y.bank"))
    (saved / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="is cut or is no bank's manifest"):
        Bank.open(saved)
    (saved / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"has no manifest\.json"):
        Bank.open(saved)


@given(data=st.data())
@settings(max_examples=80, deadline=None)
def test_no_damage_to_the_header_crashes(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever happens to the first bytes: the bank still holds what was stored, or one error says that it does not."""
    path = tmp_path_factory.mktemp("banks") / "x.bank"
    bank = Bank.from_arrays(rows_of(), np.arange(10) % 3).save(path)
    file = path / "rows.safetensors"
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, 160))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    try:
        opened = Bank.open(path)
        verify(opened)
    except InputError:
        return
    finally:
        shutil.rmtree(path)
    assert opened.fingerprint == bank.fingerprint
