"""Every layout that people keep data in builds a bank by one line: its rows, labels, names and groups are those that were written."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from scorescope.cli import main
from scorescope.errors import InputError
from scorescope.rows import Bank, sound
from scorescope.rows.hold_out import build, held_out_path, split
from scorescope.rows.verify import verify
from tests.pictures import write_images

RNG = np.random.default_rng(7)
N = 6
LABELS = np.array([0, 1, 2, 0, 1, 2])
COLOUR = RNG.integers(0, 256, (N, 3, 8, 8), dtype=np.uint8)
CIFAR = RNG.integers(0, 256, (N, 3, 32, 32), dtype=np.uint8)
GREY = RNG.integers(0, 256, (N, 1, 7, 5), dtype=np.uint8)
LATENTS = RNG.standard_normal((N, 4, 4, 4)).astype(np.float32)
MIRRORED = RNG.standard_normal((N, 4, 4, 4)).astype(np.float32)
TABLE = RNG.integers(-50, 50, (N, 3)) / 8


class Built(NamedTuple):
    """What is built with which options, and what the bank must be."""

    source: Any
    rows: np.ndarray
    labels: np.ndarray | None = LABELS
    names: tuple[str, ...] | None = None
    options: Mapping[str, Any] = {}
    classes: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.moveaxis(pixels, 0, -1) if len(pixels) == 3 else pixels[0]).save(out, "png")
    return out.getvalue()


def npy(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


def npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def wav(wave: np.ndarray, rate: int = 8000, form: str = "WAV") -> bytes:
    soundfile = pytest.importorskip("soundfile", reason="the extra audio is not installed")
    out = io.BytesIO()
    soundfile.write(out, wave, rate, format=form, subtype="PCM_16")
    return out.getvalue()


def folder(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def zipped(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def of(files: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


# ---- layouts ------------------------------------------------------------------------------------------------------------------

WORDS = ("plane", "car", "bird")
FILES = tuple(f"{WORDS[label]}_s_{k:06d}.png" for k, label in enumerate(LABELS))


class Python2(pickle._Pickler):
    """Pickles bytes as Python 2 does its strings."""

    def save_bytes(self, data: bytes) -> None:
        self.write(pickle.BINSTRING + len(data).to_bytes(4, "little") + data)
        self.memoize(data)

    dispatch = {**pickle._Pickler.dispatch, bytes: save_bytes}


def pickled(content: Any) -> bytes:
    out = io.BytesIO()
    Python2(out, protocol=2).dump(content)
    return out.getvalue()


def cifar10(dump: Callable[[Any], bytes], rows: np.ndarray = CIFAR) -> dict[str, bytes]:
    """The python version."""
    files = {}
    for batch, part in enumerate((slice(0, 4), slice(4, 6)), 1):
        content = {b"data": rows[part].reshape(-1, 3072), b"labels": LABELS[part].tolist()}
        content[b"filenames"] = [name.encode() for name in FILES[part]]
        files[f"data_batch_{batch}"] = dump(content)
    files["test_batch"] = dump({b"data": rows[:1].reshape(-1, 3072), b"labels": [2]})
    files["batches.meta"] = dump({b"label_names": [word.encode() for word in WORDS]})
    return files


def cifar_python(root: Path) -> Built:
    folder(root / "cifar-10-batches-py", cifar10(pickled))
    return Built(root, CIFAR, names=FILES, classes=WORDS)


def cifar_archive(root: Path) -> Built:
    files = {f"cifar-10-batches-py/{name}": data for name, data in cifar10(lambda content: pickle.dumps(content, 2)).items()}
    return Built(tarred(root / "cifar-10-python.tar.gz", files, "w:gz"), CIFAR, names=FILES, classes=WORDS)


def cifar_binary(root: Path) -> Built:
    table = np.concatenate([LABELS[:, None].astype(np.uint8), CIFAR.reshape(N, -1)], 1)
    files = {"data_batch_1.bin": table[:4].tobytes(), "data_batch_2.bin": table[4:].tobytes(), "test_batch.bin": table[:1].tobytes()}
    return Built(folder(root, files | {"batches.meta.txt": "\n".join(WORDS).encode()}), CIFAR, classes=WORDS)


def cifar_hundred(root: Path) -> Built:
    content = {b"data": CIFAR.reshape(N, -1), b"fine_labels": LABELS.tolist(), b"coarse_labels": [1, 1, 0, 1, 1, 0]}
    names = {b"fine_label_names": [b"a", b"b", b"c"], b"coarse_label_names": [b"x", b"y"]}
    folder(root, {"train": pickle.dumps(content, 2), "meta": pickle.dumps(names, 2)})
    return Built(root, CIFAR, np.array([1, 1, 0, 1, 1, 0]), options={"labels": "coarse_labels"}, classes=("x", "y"))


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.astype(np.uint8).tobytes()


def mnist(root: Path) -> Built:
    files = {"train-images-idx3-ubyte": idx(GREY[:, 0]), "train-labels-idx1-ubyte": idx(LABELS), "t10k-images-idx3-ubyte": idx(GREY[:2, 0])}
    return Built(folder(root / "MNIST" / "raw", files).parents[1], GREY)


def mnist_file(root: Path) -> Built:
    files = {"t10k-images-idx3-ubyte.gz": idx(GREY[:, 0]), "t10k-labels-idx1-ubyte.gz": idx(LABELS)}
    folder(root, {name: gzip.compress(data) for name, data in files.items()})
    return Built(root / "t10k-images-idx3-ubyte.gz", GREY)


def image_folder(root: Path) -> Built:
    order = np.argsort(LABELS, kind="stable")
    names = tuple(f"{WORDS[LABELS[k]]}/{k}.png" for k in sorted(range(N), key=lambda k: (WORDS[LABELS[k]], k)))
    folder(root, {f"{WORDS[LABELS[k]]}/{k}.png": png(COLOUR[k]) for k in order})
    kept = [int(name.split("/")[1][0]) for name in names]
    return Built(root, COLOUR[kept], np.array([0, 0, 1, 1, 2, 2]), names, classes=("bird", "car", "plane"))


def class_tars(root: Path) -> Built:
    files = {f"n0000000{label}.tar": of({f"n{label}_{k}.JPEG.png": png(COLOUR[k]) for k in (label, label + 3)}) for label in range(3)}
    names = tuple(f"n0000000{label}/n{label}_{k}.JPEG.png" for label in range(3) for k in (label, label + 3))
    classes = ("n00000000", "n00000001", "n00000002")
    return Built(tarred(root / "train.tar", files), COLOUR[[0, 3, 1, 4, 2, 5]], np.repeat(range(3), 2), names, classes=classes)


def class_tars_in_a_folder(root: Path) -> Built:
    packed = class_tars(root)
    with tarfile.open(packed.source) as tar:
        tar.extractall(root / "train", filter="data")
    return packed._replace(source=root / "train")


def webdataset(root: Path) -> Built:
    for shard, part in enumerate((range(0, 4), range(4, 6))):
        files = {f"{k:04d}.{end}": data for k in part for end, data in (("cls", str(LABELS[k]).encode()), ("png", png(COLOUR[k])))}
        tarred(root / f"s-{shard:03d}.tar", files)
    names = tuple(f"s-{k // 4:03d}/{k:04d}.png" for k in range(N))
    return Built(f"{root}/s-{{000..001}}.tar", COLOUR, names=names)


def webdataset_json(root: Path) -> Built:
    said = [json.dumps({"label": WORDS[label], "patient": f"p{k % 2}"}).encode() for k, label in enumerate(LABELS)]
    files = {f"{k}.{end}": data for k in range(N) for end, data in (("png", png(COLOUR[k])), ("json", said[k]), ("txt", b"words"))}
    labels, classes = np.array([2, 1, 0, 2, 1, 0]), ("bird", "car", "plane")
    names, groups = tuple(f"{k}.png" for k in range(N)), tuple(f"p{k % 2}" for k in range(N))
    return Built(tarred(root / "x.tar", files), COLOUR, labels, names, {"groups": "patient"}, classes, groups)


STYLE = tuple(f"00000/img{k:08d}.png" for k in range(N))


def stylegan(root: Path) -> Built:
    files = {name: png(row) for name, row in zip(STYLE, COLOUR, strict=True)}
    table = {"labels": [[name, int(label)] for name, label in zip(STYLE, LABELS, strict=True)]}
    return Built(zipped(root / "x.zip", files | {"dataset.json": json.dumps(table).encode()}), COLOUR, names=STYLE)


def stylegan_folder(root: Path) -> Built:
    files = {name: png(row) for name, row in zip(STYLE, COLOUR, strict=True)}
    return Built(folder(root, files | {"dataset.json": b'{"labels": null}'}), COLOUR, None, STYLE)


def edm2(root: Path) -> Built:
    names = tuple(f"00000/img-mean-std-{k:08d}.npy" for k in range(N))
    files = {name: npy(np.concatenate([row, abs(other)])) for name, row, other in zip(names, LATENTS, MIRRORED, strict=True)}
    table = {"labels": [[name, int(label)] for name, label in zip(names, LABELS, strict=True)]}
    return Built(folder(root, files | {"dataset.json": json.dumps(table).encode()}), LATENTS, names=names)


def lightningdit(root: Path) -> Built:
    for shard, part in enumerate((slice(0, 4), slice(4, 6))):
        arrays = {"latents": LATENTS[part], "latents_flip": MIRRORED[part], "labels": LABELS[part]}
        safetensors.numpy.save_file(arrays, root / f"latents_rank00_shard{shard:03d}.safetensors")
    groups = tuple(map(str, range(N)))
    return Built(root, np.concatenate([LATENTS, MIRRORED]), np.tile(LABELS, 2), groups=groups * 2)


def fast_dit(root: Path) -> Built:
    rows = np.concatenate([LATENTS, MIRRORED])
    features = {f"imagenet256_features/{k}.npy": npy(row[None]) for k, row in enumerate(rows)}
    labels = {f"imagenet256_labels/{k}.npy": npy(np.array([k % 3])) for k in range(2 * N)}
    return Built(folder(root, features | labels), rows, np.arange(2 * N) % 3, tuple(f"{k}.npy" for k in range(2 * N)))


def mar(root: Path) -> Built:
    log = RNG.standard_normal((2, *LATENTS.shape)).astype(np.float32)
    both = [np.concatenate([rows, one], 1) for rows, one in zip((LATENTS, MIRRORED), log, strict=True)]
    files = {f"n{k // 2}/{k}.JPEG.npz": npz(moments=both[0][k], moments_flip=both[1][k]) for k in range(N)}
    names = tuple(files)
    called = (*names, *(f"{name} (mirrored)" for name in names))
    rows, labels = np.concatenate([LATENTS, MIRRORED]), np.tile(np.repeat(range(3), 2), 2)
    return Built(folder(root, files), rows, labels, called, classes=("n0", "n1", "n2"), groups=names * 2)


def hdf5(root: Path) -> Built:
    with h5py.File(root / "x.h5", "w") as file:
        file.create_dataset("train/images", data=LATENTS, chunks=(2, 4, 4, 4), compression="gzip")
        file["train/masks"], file["labels"] = LATENTS[:, :1], LABELS
        file["who"] = [f"p{k // 2}" for k in range(N)]
    groups = tuple(f"p{k // 2}" for k in range(N))
    return Built(root / "x.h5", LATENTS, options={"array": "train/images", "groups": "who"}, groups=groups)


def hdf5_group(root: Path) -> Built:
    with h5py.File(root / "x.h5", "w") as file:
        file["train/images"], file["train/labels"], file["labels"] = LATENTS, LABELS, LABELS[::-1]
    return Built(root / "x.h5", LATENTS)


def adm(root: Path) -> Built:
    np.savez(root / "x.npz", np.moveaxis(COLOUR, 1, -1), LABELS)
    return Built(root / "x.npz", COLOUR)


def function(root: Path) -> Built:
    np.save(root / "rows.npy", LATENTS)
    (root / "mine.py").write_text(
        "import numpy as np\n"
        "def rows():\n"
        "    for k, row in enumerate(np.load(__file__.replace('mine.py', 'rows.npy'))):\n"
        "        yield row, 'abc'[k % 3], f'take {k}'\n"
    )
    return Built(f"{root}/mine.py:rows", LATENTS, names=tuple(f"take {k}" for k in range(N)), classes=("a", "b", "c"))


def csv(root: Path) -> Built:
    lines = ["a,b,c,label,who", *(f"{','.join(map(str, TABLE[k]))},{LABELS[k]},p{k % 2}" for k in range(N))]
    (root / "x.csv").write_text("\n".join(lines))
    return Built(root / "x.csv", TABLE, options={"groups": "who"}, groups=tuple(f"p{k % 2}" for k in range(N)))


def bare_csv(root: Path) -> Built:
    np.savetxt(root / "x.csv", np.concatenate([TABLE, LABELS[:, None]], 1), "%g", ",")
    return Built(root / "x.csv", TABLE[:, [1, 0]], options={"columns": "1,0", "labels": "3"})


def parquet(root: Path) -> Built:
    datasets = pytest.importorskip("datasets", reason="the extra hf is not installed")
    columns = {f"f{k}": TABLE[:, k] for k in range(3)} | {"label": LABELS, "who": [f"p{k % 2}" for k in range(N)]}
    datasets.Dataset.from_dict(columns).to_parquet(root / "x.parquet")
    return Built(root / "x.parquet", TABLE, options={"columns": "f*", "groups": "who"}, groups=tuple(f"p{k % 2}" for k in range(N)))


def waves(root: Path) -> Built:
    rows = np.round(RNG.uniform(-1, 1, (N, 1, 100)) * 2**14) / 2**15
    names = tuple(f"{LABELS[k]}_anna_{k}.wav" for k in range(N))
    order = np.argsort(names)
    folder(root, {name: wav(row[0, : 60 + 10 * k]) for k, (name, row) in enumerate(zip(names, rows, strict=True))})
    for k, row in enumerate(rows):
        row[0, 60 + 10 * k :] = 0
    options = {"seconds": 0.0125, "labels": r"^(\d)_", "groups": r"_(\w+)_"}
    return Built(root, rows[order], LABELS[order], tuple(names[k] for k in order), options, groups=("anna",) * N)


LAYOUTS: list[Callable[[Path], Built]] = [
    *(cifar_python, cifar_archive, cifar_binary, cifar_hundred, mnist, mnist_file, image_folder, class_tars, class_tars_in_a_folder),
    *(webdataset, webdataset_json, stylegan, stylegan_folder, edm2, lightningdit, fast_dit, mar, hdf5, hdf5_group, adm, function),
    *(csv, bare_csv, parquet, waves),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_a_layout_is_built_by_one_line(layout: Callable[[Path], Built], tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    made = layout(tmp_path / "data")
    bank = Bank.build(made.source, tmp_path / "x.bank", **made.options)
    np.testing.assert_array_equal(bank.rows, made.rows.astype(bank.rows.dtype))
    assert (bank.rows.dtype == np.uint8) == (made.rows.dtype == np.uint8)
    assert (bank.labels is None) == (made.labels is None)
    if made.labels is not None:
        np.testing.assert_array_equal(bank.labels, made.labels)
    assert (bank.names, bank.groups, bank.class_names) == (made.names, made.groups, made.classes)
    verify(bank)


def test_the_command_line_builds_and_says_what_it_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    made = webdataset_json(tmp_path / "data")
    assert main(["bank", "build", str(made.source), "--out", str(tmp_path / "x.bank"), "--groups", "patient", "--limit", "5"]) == 0
    assert "5 rows (3, 8, 8) uint8, 3 classes, 2 groups" in capsys.readouterr().out
    assert main(["bank", "info", str(tmp_path / "x.bank")]) == 0
    assert "groups         2, with 2 to 3 rows, as p0" in capsys.readouterr().out
    assert main(["bank", "show", str(tmp_path / "x.bank"), "3.png", "--out", str(tmp_path / "3.png")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / '3.png'}: row 3, 3.png, class plane, group p1\n"


def test_the_spread_of_an_encoder_is_kept(tmp_path: Path) -> None:
    bank = Bank.build(edm2(tmp_path / "data").source, tmp_path / "x.bank", scale=0.5)
    np.testing.assert_allclose(bank.manifest["latent_std"], 0.5 * abs(MIRRORED.astype(float)).mean((0, 2, 3)), rtol=1e-6)
    assert bank.manifest["cautions"][0].startswith("rows are the means of the encoder's Gaussians")
    log = np.full((4, 4, 4), 2 * np.log(0.25), np.float32)
    source = folder(tmp_path / "mar", {f"{k}.npz": npz(moments=np.concatenate([row, log])) for k, row in enumerate(LATENTS)})
    assert Bank.build(source, tmp_path / "y.bank").manifest["latent_std"] == pytest.approx([0.25] * 4)
    whole = Bank.build(source, tmp_path / "z.bank", array="moments")  # asked for by name, an array is taken as it is
    assert whole.shape == (8, 4, 4)
    assert "latent_std" not in whole.manifest


def test_a_limit_takes_rows_evenly_from_class_tars(tmp_path: Path) -> None:
    made = class_tars(tmp_path)
    bank = Bank.build(made.source, tmp_path / "x.bank", limit=4)
    assert bank.labels.tolist() == [0, 0, 1, 2]
    np.testing.assert_array_equal(bank.rows, made.rows[[0, 1, 2, 4]])


# ---- groups -------------------------------------------------------------------------------------------------------------------


def test_groups_come_from_a_file_a_column_or_the_names(tmp_path: Path) -> None:
    who = ["p0", "p0", "p1", "p1", "p2", "p2"]
    write_images(tmp_path / "a", np.moveaxis(COLOUR, 1, -1))
    (tmp_path / "who.txt").write_text("\n".join(who))
    (tmp_path / "who.csv").write_text("patient\n" + "\n".join(who) + "\n")
    np.save(tmp_path / "who.npy", np.array(who))
    for end in ("txt", "csv", "npy"):
        bank = Bank.build(tmp_path / "a", tmp_path / "x.bank", groups=str(tmp_path / f"who.{end}"), force=True)
        assert bank.groups == tuple(who)
    assert Bank.build(tmp_path / "a", tmp_path / "x.bank", groups=r"00(\d)", names="none", force=True).groups == tuple("012345")
    # Groups are no part of what defines the rows, but altered ones are noticed.
    assert bank.fingerprint == Bank.from_arrays(COLOUR).fingerprint
    bank = Bank.build(tmp_path / "a", tmp_path / "x.bank", groups=str(tmp_path / "who.npy"), force=True)
    bank.manifest["groups"] = {**bank.manifest["groups"], "count": 4}
    with pytest.raises(InputError, match="its manifest is wrong about groups"):
        verify(bank)


def test_no_group_is_on_both_sides_of_a_split(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    patient = rng.integers(0, 40, 300)
    x, labels = rng.integers(0, 256, (300, 1, 4, 4), dtype=np.uint8), patient % 3
    x[0] = x[np.flatnonzero(patient != patient[0])[0]]  # two patients share a row: they are kept together
    bank = Bank.from_arrays(x, labels, groups=[f"patient {k}" for k in patient])
    kept, held = split(bank, 0.3, seed=2)
    assert sorted([*kept, *held]) == list(range(300))
    assert not {*patient[kept]} & {*patient[held]}
    assert not {row.tobytes() for row in x[kept]} & {row.tobytes() for row in x[held]}
    for label in range(3):
        drawn = {*patient[held][labels[held] == label]}
        assert len(drawn) in (round(0.3 * len({*patient[labels == label]})), round(0.3 * len({*patient[labels == label]})) - 1)
    np.savez(tmp_path / "x.npz", x=x, y=labels, who=patient)
    built = build(tmp_path / "x.npz", tmp_path / "x.bank", 0.3, groups="who", layout="chw")
    beside = Bank.open(held_out_path(tmp_path / "x.bank"))
    assert not {*built.groups} & {*beside.groups}
    assert {*built.groups, *beside.groups} == {*map(str, patient)}


def test_mirrored_latents_are_held_out_with_their_rows(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", latents=LATENTS, latents_flip=MIRRORED)
    kept, held = split(Bank.build(tmp_path / "x.npz", tmp_path / "x.bank"), 0.3)
    assert {*kept % N}.isdisjoint(held % N)
    assert len(Bank.build(tmp_path / "x.npz", tmp_path / "y.bank", array="latents")) == N


# ---- sound --------------------------------------------------------------------------------------------------------------------


def tone(rate: int, frequency: float = 440.0, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


def test_sound_of_another_rate_is_resampled(tmp_path: Path) -> None:
    source = folder(tmp_path / "a", {"0.wav": wav(tone(8000)), "1.flac": wav(tone(16000), 16000, "FLAC")})
    with pytest.raises(InputError, match=r"several rates \(1 of 8000 Hz, 1 of 16000 Hz\).*--rate 8000"):
        Bank.build(source, tmp_path / "x.bank")
    bank = Bank.build(source, tmp_path / "x.bank", rate=8000)
    assert bank.shape == (1, 4000)
    middle = np.asarray(bank.rows)[:, 0, 200:-200]
    np.testing.assert_allclose(middle[1], middle[0], atol=2e-3)
    np.testing.assert_allclose(middle[0], tone(8000)[200:-200], atol=1e-4)


def test_a_log_mel_bank_is_that_of_the_spectra(tmp_path: Path) -> None:
    tones = [tone(8000, frequency) for frequency in (300, 700, 1900)]
    source = folder(tmp_path / "a", {f"{k}.wav": wav(wave) for k, wave in enumerate(tones)})
    bank = Bank.build(source, tmp_path / "x.bank", log_mel=True, scale=2.0)
    assert bank.shape == (1, 32, 32)
    heard = [np.round(wave * 2**15) / 2**15 for wave in tones]
    np.testing.assert_allclose(bank.rows, [2 * sound.log_mel(wave, 8000) for wave in heard], atol=0.05)
    assert "32 frames of 256 samples, 96 apart, from the onset on" in bank.manifest["transform"][0]


@pytest.mark.parametrize(("rate", "seconds"), [(8000, 0.404), (16000, 1.0), (44100, 3.7)])
def test_frames_span_the_seconds(rate: int, seconds: float) -> None:
    window, hop, spectrum = sound.frames_of(rate, seconds)
    assert window + 31 * hop == round(rate * seconds)
    assert 1.5 * hop < window <= spectrum // 2
    assert sound.log_mel(np.zeros(10), rate, seconds).tolist() == np.full((1, 32, 32), -1.0).tolist()


# ---- what runs nothing --------------------------------------------------------------------------------------------------------


class Runs:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_nothing_in_a_pickle_runs(tmp_path: Path) -> None:
    content = {b"data": CIFAR.reshape(N, -1), b"labels": LABELS.tolist(), b"more": Runs(tmp_path / "ran")}
    folder(tmp_path / "a", {"data_batch_1": pickle.dumps(content, 2)})
    np.testing.assert_array_equal(Bank.build(tmp_path / "a", tmp_path / "x.bank").rows, CIFAR)
    assert not (tmp_path / "ran").exists()


def test_garbled_pickles_are_one_line(tmp_path: Path) -> None:
    whole = pickle.dumps({b"data": CIFAR[:1].reshape(1, -1), b"labels": [1]}, 2)
    rng = np.random.default_rng(0)
    refusals = []
    for _ in range(100):
        data = bytearray(whole)
        data[rng.integers(0, 150)] = rng.integers(0, 256)
        folder(tmp_path / "a", {"data_batch_1": bytes(data)})
        try:
            Bank.build(tmp_path / "a", tmp_path / "x.bank", force=True)
        except InputError as problem:
            refusals.append(str(problem))
    assert 30 < len(refusals) < 100
    assert not [one for one in refusals if "\n" in one or "data_batch_1" not in one]
