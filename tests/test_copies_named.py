"""Rows have names from the folder of images to the gallery and the CSV; finished samples are examined without their model."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import scorescope as ss
from scorescope import copies, results
from scorescope.cli import main
from scorescope.errors import InputError
from scorescope.rows.storage import ROWS
from scorescope.rows.verify import verify
from tests.test_copies import nudged, photos

ROWS_OF = photos(40)


@pytest.fixture
def bank(tmp_path):
    """A bank of images in two classes, one of them held twice, with mirror images."""
    for k, row in enumerate(np.concatenate([ROWS_OF, nudged(ROWS_OF[:1])])):
        path = tmp_path / "photos" / ("cat" if k < 20 else "dog") / f"{k:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(row[0]).save(path)
    return ss.Bank.build(tmp_path / "photos", tmp_path / "x.bank", flips=True)


@pytest.fixture
def samples(tmp_path):
    """Images: thrice the row that is held twice, once another, mirrored, and 36 new ones."""
    new = photos(36, seed=5)
    every = np.concatenate([np.repeat(ROWS_OF[:1], 3, axis=0), ROWS_OF[30:31, ..., ::-1], new])
    (tmp_path / "made").mkdir()
    for k, row in enumerate(every):
        Image.fromarray(row[0]).save(tmp_path / "made" / f"s{k:02d}.png")
    return tmp_path / "made"


def test_rows_are_named_after_files_and_mirror_images_say_so(bank, tmp_path):
    assert bank.row_name(3) == "cat/003.png"
    assert bank.row_name(41 + 21) == "dog/021.png (mirrored)"
    assert bank.row_named("dog/021.png") == bank.row_named("21") == 21
    assert ss.Bank.from_arrays(ROWS_OF, flips=True).row_name(41) == "1 (mirrored)"
    verify(bank)
    copied = bank.save(tmp_path / "again.bank")
    assert copied.names == bank.names
    nameless = ss.Bank.build(tmp_path / "photos", tmp_path / "nameless.bank", flips=True, names="none")
    assert nameless.names is None
    assert nameless.fingerprint == bank.fingerprint == copied.fingerprint


@pytest.mark.parametrize("kind", ["npz", "bytes", "npy", "array"])
def test_names_come_from_an_array_that_is_asked_for(kind, tmp_path):
    names = np.array([f"é{k}" for k in range(40)])
    stored = np.array([name.encode() for name in names]) if kind == "bytes" else names
    np.savez(tmp_path / "x.npz", x=ROWS_OF, names=stored)
    np.save(tmp_path / "x.npy", ROWS_OF)
    np.save(tmp_path / "names.npy", names)
    file = str(tmp_path / "names.npy")
    source = {"npy": tmp_path / "x.npy", "array": ROWS_OF}.get(kind, tmp_path / "x.npz")
    given = file if kind in ("npy", "array") else "names"
    assert ss.Bank.build(source, tmp_path / "x.bank", names=given, limit=30).names == tuple(names[:30])
    assert ss.Bank.build(source, tmp_path / "y.bank").names is None


def test_names_come_from_a_column_that_is_asked_for(tmp_path):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"x": ROWS_OF.reshape(40, -1).astype(np.float32).tolist(), "id": list(range(100, 140))})
    table.to_parquet(tmp_path / "x.parquet")
    assert ss.Bank.build(tmp_path / "x.parquet", tmp_path / "x.bank", array="x", names="id").row_name(7) == "107"
    with pytest.raises(InputError, match=r"unknown column of .*'ids'.*'id'"):
        ss.Bank.build(tmp_path / "x.parquet", tmp_path / "y.bank", array="x", names="ids")


@pytest.mark.parametrize("names", [["a"] * 39, "word", ["a"] * 41])
def test_names_that_are_not_one_a_row_are_refused(names):
    with pytest.raises(InputError, match=r"one name|do not match 40 rows"):
        ss.Bank.from_arrays(ROWS_OF, names=names)


def test_odd_names_are_kept_as_text_and_damaged_ones_are_told(tmp_path):
    odd = ["a\nb", "", "\udcff", "x\0y", *map(str, range(36))]
    bank = ss.Bank.from_arrays(ROWS_OF, names=odd).save(tmp_path / "x.bank")
    assert bank.names[:4] == ("a\nb", "", "\\udcff", "x y")
    file = tmp_path / "x.bank" / ROWS
    content = bytearray(file.read_bytes())
    content[-5] ^= 255
    file.write_bytes(content)
    with pytest.raises(InputError, match="names of its rows can't be read"):
        verify(ss.Bank.open(tmp_path / "x.bank"))


def test_show_writes_the_picture_of_a_row(bank, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["bank", "show", "x.bank", "dog/025.png"]) == 0
    assert capsys.readouterr().out == "dog_025.png: row 25, dog/025.png, class dog\n"
    np.testing.assert_array_equal(np.asarray(Image.open("dog_025.png")), ROWS_OF[25, 0])
    assert main(["bank", "show", "x.bank", "66", "--out", "m.png"]) == 0
    assert capsys.readouterr().out == "m.png: row 66, dog/025.png (mirrored), class dog\n"
    np.testing.assert_array_equal(np.asarray(Image.open("m.png")), ROWS_OF[25, 0, :, ::-1])
    assert main(["bank", "show", "x.bank", "3", "--out", "m.png"]) == 2
    assert "m.png exists" in capsys.readouterr().err


def test_samples_are_examined_without_a_model(bank, samples, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["examine", "made", "--bank", "x.bank", "--out", "run"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "◆ Samples copy training rows: 4 of 40 (at least 4.0 %)" in said
    assert "copied most often by made: cat/000.png (row 0) 3×, dog/030.png (mirrored) (row 71) 1×" in said
    table = list(csv.DictReader((tmp_path / "run" / copies.FILE).read_text().splitlines()))
    by_rule = [line for line in table if "ratio" in line["criteria"].split()]
    assert [(line["sample_name"], line["name"], line["group_size"], line["exact"]) for line in by_rule] == [
        *((f"s{k:02d}.png", "cat/000.png", "2", "1") for k in range(3)),
        ("s03.png", "dog/030.png (mirrored)", "1", "1"),
    ]
    found = results.load(tmp_path / "run" / "results.nc")
    assert (found["ratio_second"].values < results.COPY).sum() == 4  # as the finding and the table
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page.count("<b>3 copies</b>") == 1
    assert "Whatever made these samples copies some (4 of 40)." in page
    assert "needs the model" in page
    assert main([*words, "--json"]) == 0  # continued: nothing is computed again
    told = json.loads(capsys.readouterr().out)
    assert told["copied"][0]["name"] == "cat/000.png"
    assert told["copies"] == str(Path("run") / copies.FILE)


@pytest.mark.parametrize("form", ["array", "npz", "a bank", "sampled"])
def test_samples_come_in_any_form(form, bank, tmp_path):
    x = bank[np.arange(20)].numpy()
    if form == "npz":
        np.savez(tmp_path / "made.npz", x)
    if form == "sampled":
        model = ss.EmpiricalScore(bank)
        ss.evaluate.generate(model, ss.evaluate.Sampling(n=20, solver="heun", steps=8), tmp_path / "made", bank=bank, quiet=True)
    given = {"array": x, "a bank": ss.Bank.from_arrays(x), "npz": str(tmp_path / "made.npz"), "sampled": tmp_path / "made"}[form]
    run = ss.examine(given, bank, nulls=20, quiet=True)
    assert (run.results["ratio_second"] < results.COPY).mean() > 0.9
    assert run.claims[[claim["name"] for claim in run.claims].index("fits")]["reason"] == "it needs the model"
    assert "copier_row" not in run.results


def test_held_out_rows_mean_nothing_for_samples(bank, tmp_path):
    with pytest.raises(ss.InputError, match="held-out rows mean nothing"):
        ss.examine(bank[np.arange(20)].numpy(), bank, held_out=bank, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_samples_in_another_range_are_warned_of(bank):
    def warned(x):
        run = ss.examine(x, bank, nulls=20, quiet=True)
        return results.provenance(run.results)["warnings"]

    x = bank[np.arange(20)].numpy()
    assert not warned(x)
    assert any("outside the rows' range" in line for line in warned(100 * x))
    assert any("they may be in another range" in line for line in warned((x + 1) / 2))


def test_evaluate_says_when_samples_are_training_rows(bank):
    again = bank.stored(0, 41)
    found = ss.evaluate.compare(again, bank, "pixels")
    assert (found.copied.copies, found.copied.exact, found.copied.looked) == (41, 41, 41)
    assert "41 of 41 samples looked up copy a row of the bank, 41 of them exactly" in found.warnings[0]
    assert found.record()["copied"]["copies"] == 41
    new = ss.evaluate.compare(photos(60, seed=9), bank, "pixels")
    assert new.copied.copies == 0
    assert not any("copy a row" in line for line in new.warnings)
