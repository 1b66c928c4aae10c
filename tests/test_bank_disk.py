"""Banks on the disk are read as arrays are indexed, read no more than they are asked for, and notice when their file changes."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.rows.content import fingerprint_of
from scorescope.rows.tensors import StoredRows
from scorescope.rows.verify import verify

N, SHAPE = 23, (2, 3, 4)
ROWS = np.random.default_rng(3).standard_normal((N, *SHAPE)).astype(np.float16)
LABELS = np.random.default_rng(4).integers(0, 3, N)
ROW = ROWS[0].nbytes


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("disk") / "x.bank"
    Bank.from_arrays(ROWS, LABELS, flips=True).save(path)
    return path


@pytest.fixture
def own(tmp_path: Path) -> Path:
    Bank.from_arrays(ROWS, LABELS, flips=True).save(tmp_path / "own.bank")
    return tmp_path / "own.bank"


@contextmanager
def counted() -> Iterator[list[tuple[int, int]]]:
    """Every read of the block, as (offset, bytes)."""
    read, real = [], os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        got = real(descriptor, buffers, offset)
        read.append((offset, got))
        return got

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", preadv)
        yield read


ENDS = st.none() | st.integers(-N - 3, N + 3)
INDICES = st.one_of(
    st.integers(-N, N - 1),
    st.integers(-N, N - 1).map(np.int64),
    st.builds(slice, ENDS, ENDS, st.none() | st.integers(-4, 4).filter(bool)),
    st.lists(st.integers(-N, N - 1), max_size=40).map(lambda index: np.array(index, dtype=np.int64)),
    st.lists(st.integers(0, N - 1), min_size=1, max_size=40).map(lambda index: np.array(index, dtype=np.uint8)),
    st.lists(st.integers(0, N - 1), min_size=6, max_size=6).map(lambda index: np.array(index).reshape(2, 3)),
    st.lists(st.booleans(), min_size=N, max_size=N).map(np.array),
    st.lists(st.integers(-N, N - 1), min_size=1, max_size=5),
    st.tuples(st.integers(-N, N - 1) | st.builds(slice, ENDS, ENDS), st.integers(0, 1), st.builds(slice, ENDS, ENDS)),
)


@given(index=INDICES)
@settings(max_examples=300, deadline=None)
def test_rows_on_disk_are_indexed_as_the_array_is(disk: Path, index: Any) -> None:
    rows = Bank.open(disk).rows
    assert isinstance(rows, StoredRows)
    found, expected = rows[index], ROWS[index]
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


@given(index=st.lists(st.integers(0, N - 1), max_size=60), start=st.integers(0, N), length=st.integers(0, N))
@settings(max_examples=100, deadline=None)
def test_stored_rows_are_those_of_the_array_and_each_is_read_once(disk: Path, index: list[int], start: int, length: int) -> None:
    bank = Bank.open(disk)
    chosen = np.array(index, dtype=np.int64)
    with counted() as read:
        np.testing.assert_array_equal(bank.stored_at(chosen), ROWS[chosen])
    assert sum(got for _, got in read) == len(set(index)) * ROW
    assert sorted(read) == read  # in the order of the file, neighbours together
    assert len(read) == sum(i - 1 not in index for i in set(index))
    with counted() as read:
        np.testing.assert_array_equal(bank.stored(start, start + length), ROWS[start : start + length])
    assert [got for _, got in read] == [ROW * (min(N, start + length) - start)] * (start < N and length > 0)


@pytest.mark.parametrize("index", [N, -N - 1, [0, N], np.array([-N - 1]), np.ones(N + 1, bool), 1.5, [0.5], None, ..., ([0, 1], 0)])
def test_indices_that_name_no_rows_are_refused(disk: Path, index: Any) -> None:
    with pytest.raises(IndexError):
        Bank.open(disk).rows[index]


def test_the_rest_of_an_array_is_there_too(disk: Path) -> None:
    rows = Bank.open(disk).rows
    assert (len(rows), rows.shape, rows.dtype, rows.ndim, rows.size, rows.nbytes) == (
        N, ROWS.shape, ROWS.dtype, ROWS.ndim, ROWS.size, ROWS.nbytes,
    )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(rows), ROWS)
    assert np.asarray(rows, dtype=np.float64).dtype == np.float64
    np.testing.assert_array_equal(np.stack(list(rows)), ROWS)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(rows))[3:5], ROWS[3:5])
    assert fingerprint_of(Bank.open(disk).description(), rows, LABELS) == Bank.from_arrays(ROWS, LABELS, flips=True).fingerprint


def test_opening_reads_no_rows_and_the_mean_is_recorded(disk: Path) -> None:
    with counted() as read:
        bank = Bank.open(disk)
        assert "23 × (2, 3, 4)" in repr(bank)
        mean, radius = bank.mean, bank.radius
    assert sum(got for _, got in read) == 8 * N + 8 * bank.d  # the labels and the mean
    memory = Bank.from_arrays(ROWS, LABELS, flips=True)
    np.testing.assert_allclose(mean, memory.mean, rtol=1e-12, atol=1e-12)
    assert radius == pytest.approx(memory.radius, rel=1e-9)


@given(flips=st.booleans(), seed=st.integers(0, 2**32))
@settings(max_examples=20, deadline=None)
def test_the_mean_of_a_bank_with_flips_is_its_own_mirror_image(flips: bool, seed: int) -> None:
    rows = np.random.default_rng(seed).standard_normal((7, 3, 5)).astype(np.float32)
    mean = Bank.from_arrays(rows, flips=flips).mean
    assert bool((mean == mean.flip(-1)).all()) == flips


@pytest.mark.parametrize("label", [None, 1])
def test_a_pass_reads_each_row_once_a_block_at_a_time(disk: Path, label: int | None) -> None:
    bank = Bank.open(disk)
    with counted() as read:
        largest = max(len(block.x) for block in bank.blocks(5, label, mirrored=False))
    assert largest == 5
    assert max(got for _, got in read) <= 5 * ROW
    assert sum(got for _, got in read) == ROW * len(bank.indices(label))
    assert sorted(read) == read


def test_a_read_that_comes_in_pieces_is_put_together(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda descriptor, buffers, offset: real(descriptor, [buffers[0][:7]], offset))
    np.testing.assert_array_equal(Bank.open(disk).rows[2:9], ROWS[2:9])


# ---- files that change while they are open ------------------------------------------------------------------------------------


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def grown(file: Path) -> None:
    with open(file, "ab") as opened:
        opened.write(b"x")


def rewritten(file: Path) -> None:
    with open(file, "rb+") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"x")
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))


def replaced(file: Path) -> None:
    Bank.from_arrays(ROWS[::-1], LABELS, flips=True).save(file.parent, force=True)


def removed(file: Path) -> None:
    file.unlink()


CHANGES = {
    cut: "was cut: expected",
    emptied: "was cut: expected .* found 0",
    grown: "changed while it was open",
    rewritten: "changed while it was open",
    replaced: "was replaced while it was open",
    removed: "can't be opened any more",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changes_while_open_is_one_error_at_the_next_read(own: Path, change: Any) -> None:
    bank = Bank.open(own)
    change(own / "rows.safetensors")
    reads = (
        lambda: bank[0],
        lambda: bank[np.arange(2 * N)],
        lambda: bank.stored(0, 1),
        lambda: bank.stored_at(np.array([5, 2])),
        lambda: next(bank.blocks(4)),
        lambda: verify(bank),
    )
    for read in reads:
        with pytest.raises(InputError, match=rf"own\.bank/rows\.safetensors {CHANGES[change]}") as caught:
            read()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [cut, rewritten])
def test_a_file_that_changes_during_a_read_gives_no_rows(own: Path, change: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, real = Bank.open(own), os.preadv

    def preadv(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        monkeypatch.setattr(os, "preadv", real)
        change(own / "rows.safetensors")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(InputError, match=CHANGES[change]):
        bank.stored(0, N)


def test_a_disk_that_fails_is_named(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bank = Bank.open(own)

    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    with pytest.raises(InputError, match=r"rows\.safetensors can't be read \(Input/output error\)"):
        bank[3]


@pytest.mark.parametrize("value", [np.nan, 1.0])
def test_a_recorded_mean_that_is_not_the_rows_is_found(own: Path, value: float) -> None:
    file = own / "rows.safetensors"
    mean = Bank.open(own).mean.numpy().copy()
    content = file.read_bytes()
    assert content.count(mean.tobytes()) == 1
    changed = mean.copy()
    changed[1, 2, 3] = value
    file.write_bytes(content.replace(mean.tobytes(), changed.tobytes()))
    with pytest.raises(InputError, match=re.escape(str(own)) + ".*mean"):
        verify(Bank.open(own))


def test_a_bank_without_a_recorded_mean_takes_it_from_its_rows(own: Path) -> None:
    """As banks were written before the mean was recorded."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(own / "rows.safetensors")
    mean = tensors.pop("mean")
    save_file(tensors, own / "rows.safetensors")
    bank = Bank.open(own)
    np.testing.assert_allclose(bank.mean, mean, rtol=1e-12, atol=1e-12)
    assert verify(bank)["fingerprint"] == bank.fingerprint
