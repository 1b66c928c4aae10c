"""Building banks: every kind of source gives exactly its rows, whatever its form."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.rows.images import fit
from scorescope.rows.verify import verify
from tests.pictures import COLOUR, GREY, LABELS, RNG, write_images


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "banks").mkdir()
    return tmp_path / "banks" / "x.bank"


def sources(kind: str, folder: Path, pixels: np.ndarray) -> tuple[Path | np.ndarray, dict[str, Any]]:
    """The same pixels and labels in one of the forms that a bank is built from."""
    if kind == "folder":
        return write_images(folder / "images", pixels, LABELS), {}
    if kind == "array":
        np.save(folder / "labels.npy", LABELS)
        return pixels, {"labels": str(folder / "labels.npy")}
    if kind == "npy":
        np.save(folder / "labels.npy", LABELS)
        np.save(folder / "x.npy", pixels)
        return folder / "x.npy", {"labels": str(folder / "labels.npy")}
    if kind == "npz":
        np.savez(folder / "x.npz", images=pixels, labels=LABELS, other=np.zeros((2, 2)))
        return folder / "x.npz", {}
    if kind == "compressed":
        np.savez_compressed(folder / "x.npz", pictures=np.asfortranarray(pixels), kinds=LABELS)
        return folder / "x.npz", {"labels": "kinds"}
    np.savez(folder / "x.npz", x=np.moveaxis(pixels, -1, 1) if pixels.ndim == 4 else pixels[:, None], y=np.array([f"c{k}" for k in LABELS]))
    return folder / "x.npz", {"array": "x"}


@pytest.mark.parametrize("kind", ["folder", "array", "npy", "npz", "compressed", "channels first"])
@pytest.mark.parametrize("pixels", [COLOUR, GREY], ids=["colour", "grey"])
def test_every_form_of_the_same_images_gives_the_same_bank(kind: str, pixels: np.ndarray, tmp_path: Path, out: Path) -> None:
    source, options = sources(kind, tmp_path, pixels)
    bank = Bank.build(source, out, flips=True, **options)
    rows = np.moveaxis(pixels, -1, 1) if pixels.ndim == 4 else pixels[:, None]
    np.testing.assert_array_equal(bank.rows, rows)
    np.testing.assert_array_equal(bank.labels, LABELS)
    assert bank.fingerprint == Bank.from_arrays(rows, LABELS, flips=True).fingerprint
    assert bank.manifest["class_counts"] == [4, 4, 4]
    verify(bank)
    assert os.listdir(out.parent) == ["x.bank"]


@pytest.mark.parametrize("shape", [(7,), (1, 50), (4, 5, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int16", ">f4", "bool"])
def test_numbers_are_kept_as_they_are(shape: tuple[int, ...], dtype: str, tmp_path: Path, out: Path) -> None:
    x = (50 * RNG.standard_normal((9, *shape))).astype(dtype)
    np.savez(tmp_path / "x.npz", x)
    bank = Bank.build(tmp_path / "x.npz", out)
    assert bank.rows.dtype == (np.float16 if dtype == "float16" else np.float32)
    np.testing.assert_array_equal(bank.rows, x.astype(np.float32))
    assert Bank.build(torch.from_numpy(x.astype(np.float32)), out, force=True).shape == shape


def test_scale_multiplies_in_double_precision(out: Path) -> None:
    x = RNG.integers(-(2**15), 2**15, (5, 1, 40)).astype(np.int16)
    bank = Bank.build(x, out, scale=1 / 3)
    np.testing.assert_array_equal(bank.rows, (x / 3).astype(np.float32))
    assert bank.manifest["transform"] == ["multiplied by 0.333333"]


def test_range_is_the_model_space_of_8_bit_pixels(out: Path) -> None:
    bank = Bank.build(GREY, out, range=(0.0, 2.0))
    np.testing.assert_allclose(bank[0].numpy()[0], GREY[0] / 255 * 2, rtol=1e-6)
    assert bank.manifest["maximum"] == pytest.approx(GREY.max() / 255 * 2)


def test_resizing_cuts_the_centre_square(tmp_path: Path, out: Path) -> None:
    # Three vertical bars; the middle one is exactly the centre square, so no other colour may be left far from its edges.
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, :20], wide[:, 20:40], wide[:, 40:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    write_images(tmp_path / "a", wide[None])
    write_images(tmp_path / "a", np.moveaxis(wide, 0, 1)[None], suffix=".bmp")
    bank = Bank.build(tmp_path / "a", out, size=10)
    assert bank.rows.shape == (2, 3, 10, 10)
    assert (bank.rows[:, 1, 1:-1, 1:-1] == 255).all()
    assert (bank.rows[:, 0, 1:-1, 1:-1] == 0).all()
    # Arrays of images are resized alike.
    resized = bank.rows[1]
    assert np.array_equal(Bank.build(wide[None], out, size=10, force=True).rows[0], resized)


def test_resizing_is_antialiased() -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))[..., None]
    assert fit(stripes, gray=False, size=8).std() < 8  # Every second pixel alone would be black or white.


def test_grey_and_colour_become_colour_and_gray_makes_all_grey(tmp_path: Path, out: Path) -> None:
    write_images(tmp_path / "a", GREY[:3])
    write_images(tmp_path / "a", COLOUR[:1])
    bank = Bank.build(tmp_path / "a", out)
    np.testing.assert_array_equal(bank.rows[0], np.moveaxis(COLOUR[0], -1, 0))
    np.testing.assert_array_equal(bank.rows[1:], np.repeat(GREY[1:3, None], 3, 1))
    grey = Bank.build(tmp_path / "a", out, gray=True, force=True)
    np.testing.assert_array_equal(grey.rows[1:, 0], GREY[1:3])
    np.testing.assert_allclose(grey.rows[0, 0], COLOUR[0] @ [0.299, 0.587, 0.114], atol=1)


def test_palettes_and_transparency(tmp_path: Path, out: Path) -> None:
    alpha = np.concatenate([COLOUR[0], GREY[0][..., None]], -1)
    (tmp_path / "a").mkdir()
    Image.fromarray(alpha).save(tmp_path / "a" / "0.png")
    flat = np.zeros((8, 6), np.uint8)
    flat[:, 3:] = 1
    palette = Image.fromarray(flat)
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.save(tmp_path / "a" / "1.png", transparency=b"\x00\xff")
    Image.fromarray(flat.astype(bool)).convert("1").save(tmp_path / "a" / "2.png")
    bank = Bank.build(tmp_path / "a", out)
    np.testing.assert_array_equal(bank.rows[0], np.moveaxis(COLOUR[0], -1, 0))
    assert bank.rows[1, :, 0, 0].tolist() == [10, 20, 30]
    assert bank.rows[1, :, 0, 5].tolist() == [200, 100, 50]
    assert bank.rows[2, :, 0, 5].tolist() == [255, 255, 255]
    assert any(text.startswith("2 of 3 images have transparency") for text in bank.manifest["cautions"])


def test_clutter_is_ignored_and_other_files_are_named(tmp_path: Path, out: Path) -> None:
    root = write_images(tmp_path / "a", GREY, LABELS)
    (root / ".DS_Store").write_bytes(b"x")
    (root / "class_0" / "Thumbs.db").write_bytes(b"x")
    (root / "class_0" / "._000.png").write_bytes(b"x")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "bad.png").write_bytes(b"x")
    (root / "empty").mkdir()
    clean = Bank.build(root, out)
    assert clean.manifest["cautions"] == []
    assert clean.class_names == ("class_0", "class_1", "class_2")
    (root / "notes.txt").write_text("hello")
    assert Bank.build(root, out, force=True).manifest["cautions"] == ["1 files that are not images were left out (notes.txt)"]


def test_numbered_class_folders_are_in_the_order_of_their_numbers(tmp_path: Path, out: Path) -> None:
    for k in range(11):
        write_images(tmp_path / "a" / str(k), GREY[k : k + 1])
    bank = Bank.build(tmp_path / "a", out)
    assert bank.class_names == tuple(map(str, range(11)))
    np.testing.assert_array_equal(bank.rows[:, 0], GREY[:11])


def test_limit_takes_first_rows_and_spreads_over_class_folders(tmp_path: Path, out: Path) -> None:
    np.testing.assert_array_equal(Bank.build(COLOUR, out, limit=5).rows, np.moveaxis(COLOUR[:5], -1, 1))
    root = write_images(tmp_path / "a", COLOUR, LABELS)
    bank = Bank.build(root, out, limit=5, force=True)
    assert bank.manifest["class_counts"] == [2, 2, 1]
    np.testing.assert_array_equal(bank.rows, np.moveaxis(COLOUR[[0, 1, 4, 5, 8]], -1, 1))
    np.savez(tmp_path / "x.npz", x=GREY, y=LABELS)
    np.testing.assert_array_equal(Bank.build(tmp_path / "x.npz", out, limit=5, force=True).labels, LABELS[:5])


def test_labels_can_be_left_out(tmp_path: Path, out: Path) -> None:
    assert Bank.build(write_images(tmp_path / "a", GREY, LABELS), out, labels="none").labels is None
    np.savez(tmp_path / "x.npz", x=GREY, y=LABELS)
    assert Bank.build(tmp_path / "x.npz", out, labels="none", force=True).labels is None


def test_layout_settles_what_is_ambiguous(out: Path) -> None:
    x = RNG.integers(0, 256, (4, 3, 9, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="could be the first axis or the last"):
        Bank.build(x, out)
    np.testing.assert_array_equal(Bank.build(x, out, layout="chw").rows, x)
    np.testing.assert_array_equal(Bank.build(x, out, layout="hwc", force=True).rows, np.moveaxis(x, -1, 1))
    floats = RNG.standard_normal((4, 8, 9, 3)).astype(np.float32)
    np.testing.assert_array_equal(Bank.build(floats, out, layout="hwc", force=True).rows, np.moveaxis(floats, -1, 1))


def test_the_same_source_gives_the_same_bytes(tmp_path: Path, out: Path) -> None:
    root, other = write_images(tmp_path / "a", COLOUR, LABELS), out.with_name("y.bank")
    Bank.build(root, out, name="same")
    Bank.build(root, other, name="same")
    for file in ("rows.safetensors", "manifest.json"):
        assert (out / file).read_bytes() == (other / file).read_bytes()


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (GREY[:1], "the bank has one row"),
        (np.full((5, 3), 2.0), "all 5 rows are equal"),
        (np.full((5, 3), 2.0), "every value of every row is 2"),
        (GREY.astype(float), "8-bit pixels should be stored as uint8"),
        (np.concatenate([GREY, GREY[3:4]]), "1 of 13 rows repeat an earlier row exactly (row 12 repeats row 3)"),
    ],
)
def test_odd_data_is_reported_not_refused(x: np.ndarray, said: str, out: Path) -> None:
    bank = Bank.build(x, out)
    assert any(said in text for text in bank.manifest["cautions"])
    verify(bank)


@pytest.mark.parametrize("form", ["saved", "parquet"])
def test_datasets_give_the_same_bank_as_a_folder(form: str, tmp_path: Path, out: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])})
    data = datasets.Dataset.from_dict({"image": [Image.fromarray(image) for image in COLOUR], "label": LABELS}, features=features)
    latents = datasets.Dataset.from_dict({"z": GREY.astype(np.float32).tolist(), "label": list("abcabcabcabc")})
    if form == "saved":
        data.save_to_disk(tmp_path / "images")
        latents.save_to_disk(tmp_path / "latents")
    else:
        for name, table in (("images", data), ("latents", latents)):
            (tmp_path / name).mkdir()
            table.to_parquet(tmp_path / name / "train-00000-of-00001.parquet")
    bank = Bank.build(tmp_path / "images", out)
    assert bank.fingerprint == Bank.from_arrays(np.moveaxis(COLOUR, -1, 1), LABELS).fingerprint
    assert bank.class_names == ("a", "b", "c")
    numbers = Bank.build(tmp_path / "latents", out, force=True)
    np.testing.assert_array_equal(numbers.rows, GREY.astype(np.float32))
    assert numbers.class_names == ("a", "b", "c")
