"""Held-out rows: the same share of every class, two banks that name each other, killed and bad builds."""

from __future__ import annotations

import numpy as np
import pytest

from scorescope import InputError
from scorescope.rows import Bank
from scorescope.rows.hold_out import build, held_out_path, hold_out, partner, split


def labelled(rows: int = 60, classes: int = 3) -> Bank:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (rows, 1, 5, 5), dtype=np.uint8)
    return Bank.from_arrays(x, np.arange(rows) % classes, class_names=("a", "b", "c")[:classes], name="small")


def test_every_class_gives_the_same_share_and_no_row_is_in_both() -> None:
    bank = labelled()
    kept, held = split(bank, 0.1)
    assert sorted([*kept, *held]) == list(range(60))
    assert bank.labels is not None
    assert np.bincount(bank.labels[held]).tolist() == [2, 2, 2]
    assert (np.diff(held) > 0).all()
    assert split(bank, 0.1, seed=1)[1].tolist() != held.tolist()


def test_a_class_is_drawn_whatever_the_other_classes_are() -> None:
    bank = labelled()
    assert bank.labels is not None
    only = bank.indices(1)
    alone = Bank.from_arrays(bank.rows[only], np.ones(len(only), dtype=int))
    assert only[split(alone, 0.25)[1]].tolist() == [k for k in split(bank, 0.25)[1] if bank.labels[k] == 1]


def test_without_labels_all_rows_are_one_group() -> None:
    assert len(split(Bank.from_arrays(labelled().rows), 0.3)[1]) == 18


def test_two_banks_in_memory_name_each_other() -> None:
    bank = labelled()
    kept, held = hold_out(bank, 0.2)
    assert (len(kept), len(held)) == (48, 12)
    assert (partner(kept), partner(held)) == (held.fingerprint, kept.fingerprint)
    assert held.name == "small-held-out"
    assert held.class_names == bank.class_names
    assert partner(bank) == ""


def test_built_on_disk_they_are_the_banks_in_memory(tmp_path) -> None:
    bank = labelled()
    np.savez(tmp_path / "rows.npz", x=bank.rows, y=bank.labels)
    built = build(tmp_path / "rows.npz", tmp_path / "photos.bank", 0.2)
    beside = Bank.open(held_out_path(tmp_path / "photos.bank"))
    kept, held = hold_out(Bank.from_arrays(bank.rows, bank.labels), 0.2)
    assert (built.fingerprint, beside.fingerprint) == (kept.fingerprint, held.fingerprint)
    assert (partner(built), partner(beside)) == (beside.fingerprint, built.fingerprint)
    assert (built.name, beside.name) == ("photos", "photos-held-out")
    assert built.manifest["held_out"]["folder"] == "photos-held-out.bank"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos-held-out.bank", "photos.bank", "rows.npz"]


def test_a_leftover_of_a_killed_build_is_replaced(tmp_path) -> None:
    np.save(tmp_path / "rows.npy", labelled().rows)
    Bank.build(tmp_path / "rows.npy", tmp_path / ".photos.bank.whole")
    build(tmp_path / "rows.npy", tmp_path / "photos.bank", 0.5)
    assert not (tmp_path / ".photos.bank.whole").exists()


@pytest.mark.parametrize("existing", ["photos.bank", "photos-held-out.bank"])
def test_neither_bank_is_replaced_unasked(tmp_path, existing: str) -> None:
    np.save(tmp_path / "rows.npy", labelled().rows)
    before = Bank.build(tmp_path / "rows.npy", tmp_path / existing).fingerprint
    with pytest.raises(InputError, match="exists"):
        build(tmp_path / "rows.npy", tmp_path / "photos.bank", 0.5)
    assert Bank.open(tmp_path / existing).fingerprint == before
    build(tmp_path / "rows.npy", tmp_path / "photos.bank", 0.5, force=True)
    assert Bank.open(tmp_path / existing).fingerprint != before


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, float("nan")])
def test_a_share_is_between_0_and_1(share: float) -> None:
    with pytest.raises(InputError, match="not between 0 and 1"):
        split(labelled(), share)


def test_a_class_that_would_be_empty_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"0\.01 of the 20 rows of class a leaves one side empty"):
        split(labelled(), 0.01)
    np.savez(tmp_path / "rows.npz", x=labelled().rows, y=labelled().labels)
    with pytest.raises(InputError, match="leaves one side empty"):
        build(tmp_path / "rows.npz", tmp_path / "x.bank", 0.01)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npz"]
