"""Models from files: what was saved comes back, what can't be a model is refused in one line, and no pickle is opened untold."""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import scorescope as ss
from scorescope.nets.sit import SiTSize
from scorescope.training.loop import train
from scorescope.training.recipe import Recipe
from tests.problems import Gaussian

RECIPE = Recipe(SiTSize(width=8, depth=1, heads=2, patch=2), steps=50, batch=4, rate=3e-3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a finished run on a bank of three classes."""
    rng = np.random.default_rng(0)
    bank = ss.Bank.from_arrays(rng.uniform(-1, 1, (9, 1, 4, 4)).astype(np.float32), np.arange(9) % 3, name="tiny")
    folder = tmp_path_factory.mktemp("runs") / "mine"
    train(RECIPE, bank, folder)
    return folder


def described(run):
    with safe_open(run / "model.safetensors", framework="pt") as opened:
        return json.loads(opened.metadata()["scorescope"])


def written(folder, tensors, record):
    path = folder / "changed.safetensors"
    save_file(tensors, path, metadata=None if record is None else {"scorescope": record if isinstance(record, str) else json.dumps(record)})
    return path


def refused(path, said, **options):
    """The refusal is one line that names the file."""
    with pytest.raises(ss.InputError, match=said) as caught:
        ss.load(path, **options)
    assert Path(str(path)).name.partition(":")[0] in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- what was trained here ----------------------------------------------------------------------------------------------------


def test_a_trained_model_comes_back_from_its_folder_and_from_its_file(run):
    weights = load_file(run / "model.safetensors")
    rng = torch.Generator().manual_seed(0)
    z, t, label = torch.randn(3, 1, 4, 4, generator=rng), torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0, 2, 1])
    for place, name in ((run, "mine"), (run / "model.safetensors", "mine"), (str(run), "mine")):
        model = ss.load(place)
        assert (model.name, model.classes, model.shape, model.has_null) == (name, 3, (1, 4, 4), True)
        assert all(torch.equal(value, weights[key]) for key, value in model.net.state_dict().items())
        assert not model.net.training
        with torch.no_grad():
            expected = z - t[:, None, None, None] * model.net(z, t, label)  # x̂ = z − t v on the linear path
            torch.testing.assert_close(model(z, t, label), expected)
        assert model.about["recipe"] == RECIPE.record()
        assert model.about["bank"]["name"] == "tiny"
        assert len(model.about["sha256"]) == 64


def test_a_copied_file_is_the_same_model_under_its_own_name(run, tmp_path):
    (tmp_path / "best.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    copied, original = ss.load(tmp_path / "best.safetensors"), ss.load(run)
    assert (copied.name, copied.about["sha256"]) == ("best", original.about["sha256"])
    z = torch.ones(1, 1, 4, 4)
    assert torch.equal(copied(z, 0.5, 1), original(z, 0.5, 1))


def test_written_weights_can_be_read_by_others(run):
    old = os.umask(0)
    os.umask(old)
    assert (run / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~old


@pytest.mark.parametrize("size", [0, 5, 200, -9])
def test_a_truncated_file(run, tmp_path, size):
    path = tmp_path / "cut.safetensors"
    path.write_bytes((run / "model.safetensors").read_bytes()[:size])
    refused(path, "can't be read as safetensors")


def test_weights_that_do_not_say_what_they_are(run, tmp_path):
    refused(written(tmp_path, load_file(run / "model.safetensors"), None), r"do not tell which code it belongs to.*family=")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda record: "{", "metadata of .* can't be read"),
        (lambda record: [1, 2], "metadata of .* can't be read"),
        (lambda record: {key: value for key, value in record.items() if key != "architecture"}, r"metadata of .*'architecture'"),
        (lambda record: record | {"architecture": record["architecture"] | {"patch": 3}}, "size 4 is not divisible by patch 3"),
        (lambda record: record | {"architecture": record["architecture"] | {"experts": 8}}, "experts"),
        (lambda record: record | {"family": "vit"}, r"does not know \(vit, v, linear\)"),
        (lambda record: record | {"prediction": "w"}, r"does not know \(sit, w, linear\)"),
        (lambda record: record | {"schedule": "bent"}, r"does not know \(sit, v, bent\)"),
        (lambda record: record | {"architecture": record["architecture"] | {"width": 16}}, "size mismatch"),
        (lambda record: record | {"architecture": record["architecture"] | {"depth": 2}}, r"Missing key.*blocks\.1"),
        (lambda record: record | {"architecture": record["architecture"] | {"depth": 10**12}}, "can't have depth = 1000000000000"),
        (lambda record: record | {"architecture": record["architecture"] | {"width": 2**40}}, "can't have width"),
        (lambda record: record | {"architecture": record["architecture"] | {"channels": -1}}, "can't have channels = -1"),
        (lambda record: record | {"architecture": record["architecture"] | {"size": "large"}}, "metadata of .* can't be read"),
        (lambda record: record | {"bank": 3}, "its bank is no record"),
    ],
)
def test_metadata_that_the_weights_do_not_bear_out(run, tmp_path, change, said):
    refused(written(tmp_path, load_file(run / "model.safetensors"), change(described(run))), said)


def test_an_unfinished_run(run, tmp_path):
    folder = tmp_path / "going-on"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "run.json").write_bytes((run / "run.json").read_bytes())
    refused(folder, r"going-on is not finished.*running its command again")
    for finished in (False, True):
        file = max((run / "checkpoints").iterdir())
        (folder / "checkpoints" / file.name).write_bytes(file.read_bytes())
        if finished:
            (folder / "model.safetensors").write_bytes(b"")
        remedy = r"going-on, which is finished" if finished else "running the command of its training again"
        for place in (folder / "checkpoints", folder / "checkpoints" / file.name):
            refused(place, rf"is what the training run in .*going-on continues from, not a model\. Try: .*{remedy}")


def test_nothing_there_and_nothing_known(tmp_path):
    refused(tmp_path / "nothing.safetensors", "there is no model at")
    refused(tmp_path / "nothing.pt", "there is no model at")
    (tmp_path / "notes.txt").write_text("weights are elsewhere")
    refused(tmp_path / "notes.txt", "of no known family")
    (tmp_path / "photos").mkdir()
    refused(tmp_path / "photos", "of no known family")


def test_options_that_a_file_has_no_use_for(run):
    refused(run, r"takes no options \(depth given\)", depth=3)


# ---- Python files -------------------------------------------------------------------------------------------------------------

MINE = """
import torch
from pathlib import Path
import scorescope as ss
from beside import width

class Mine(ss.Denoiser):
    shape, name = (2,), "mine"

    def __init__(self, scale=0.5):
        self.scale = scale

    def forward(self, z, t, label=None):
        return self.scale * z

def build(scale=0.5):
    from later import factor
    return Mine(scale * factor * width)

def needy(scale):
    return Mine(scale)

def other():
    return torch.nn.Linear(2, 2)

def _hidden():
    return None

constant = 3
"""


@pytest.fixture
def file(tmp_path):
    (tmp_path / "beside.py").write_text("width = 2")
    (tmp_path / "later.py").write_text("factor = 3")
    (tmp_path / "my_model.py").write_text(MINE)
    yield tmp_path / "my_model.py"
    for name in ("beside", "later"):
        sys.modules.pop(name, None)


def test_a_function_builds_the_model_with_what_lies_beside_its_file(file):
    before = list(sys.path)
    for place in (f"{file}:build", file):
        model = ss.load(place)
        assert torch.equal(model(torch.ones(1, 2), 0.5), torch.full((1, 2), 3.0))
        assert model.about["file"] == f"{file}:build"
    assert ss.load(f"{file}:build", scale=1.0).scale == 6
    assert ss.load(f"{file}:Mine").scale == 0.5
    assert sys.path == before


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("biuld", r"unknown function in .*my_model.py 'biuld'; there is Mine, build, needy, other\. Try: 'build'"),
        ("constant", "unknown function in .* 'constant'"),
        ("other", r"other in .*my_model.py returned Linear, not a Denoiser.*NetworkDenoiser"),
        ("needy", r"needy in .* can't be called with no arguments \(missing a required argument: 'scale'\)"),
        ("_hidden", "returned NoneType, not a Denoiser"),
    ],
)
def test_functions_that_build_no_model(file, function, said):
    refused(f"{file}:{function}", said)


def test_files_that_build_no_model(tmp_path, file):
    refused(tmp_path / "nothing.py", "there is no file")
    refused(f"{tmp_path / 'nothing.py'}:build", "there is no file")
    refused(f"{file}:build", r"can't be called with depth \(got an unexpected keyword argument 'depth'\)", depth=2)
    (tmp_path / "empty.py").write_text("from pathlib import Path")
    refused(tmp_path / "empty.py", "defines no function.*def build")


def test_an_error_inside_the_file_is_one_line_that_names_the_files_line(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0")
    before = list(sys.path)
    with pytest.raises(ss.InputError, match=r"broken\.py, line 1: ZeroDivisionError: division by zero"):
        ss.load(tmp_path / "broken.py")
    assert "scorescope_user_broken" not in sys.modules
    assert sys.path == before


# ---- pickles ------------------------------------------------------------------------------------------------------------------


class Trap:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin", ".PT"])
@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_is_not_opened_untold(tmp_path, suffix, how):
    path, sprung = tmp_path / f"model{suffix}", tmp_path / "sprung"
    if how == "torch":
        torch.save(Trap(sprung), path)
    else:
        path.write_bytes(pickle.dumps(Trap(sprung)))
    refused(path, r"is a pickled object, and opening one runs whatever code is inside.*--trust")
    assert not sprung.exists()
    if how == "torch":  # The trap is a real one.
        refused(path, "holds a NoneType", trust=True)
        assert sprung.exists()


def test_a_pickle_by_another_name_is_not_opened_either(tmp_path):
    for name in ("model.safetensors", "model", "model.dat"):
        path = tmp_path / name
        path.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
        for trust in (False, True):
            refused(path, "can't be read as safetensors|of no known family", trust=trust)
    assert not (tmp_path / "sprung").exists()


def test_a_trusted_pickle_of_a_denoiser_is_the_model(tmp_path, run):
    torch.save(Gaussian(3, 0.5), tmp_path / "gaussian.pt")
    model = ss.load(tmp_path / "gaussian.pt", trust=True)
    z = torch.ones(2, 3)
    assert torch.equal(model(z, 0.5), Gaussian(3, 0.5)(z, 0.5))
    assert model.about["file"] == str(tmp_path / "gaussian.pt")
    assert len(model.about["sha256"]) == 64

    trained = ss.load(run)
    trained.net.train()
    torch.save(trained, tmp_path / "trained.pt")
    again = ss.load(tmp_path / "trained.pt", trust=True)
    z = torch.ones(2, 1, 4, 4)
    assert torch.equal(again(z, 0.5, 2), trained(z, 0.5, 2))
    assert not again.net.training
    assert again.about["recipe"] == RECIPE.record()


def test_classes_of_a_pickle_are_looked_for_beside_it(tmp_path):
    (tmp_path / "its_home.py").write_text(
        "import scorescope as ss\nclass Mine(ss.Denoiser):\n    def forward(self, z, t, label=None):\n        return z\n"
    )
    sys.path.insert(0, str(tmp_path))
    try:
        import its_home  # type: ignore[import-not-found]

        torch.save(its_home.Mine(), tmp_path / "model.pt")
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["its_home"]
    assert type(ss.load(tmp_path / "model.pt", trust=True)).__name__ == "Mine"
    del sys.modules["its_home"]
    (tmp_path / "its_home.py").unlink()
    refused(tmp_path / "model.pt", r"can't be unpickled \(No module named 'its_home'\).*put beside it", trust=True)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (torch.nn.Linear(2, 2), r"holds a network, which does not say its schedule.*NetworkDenoiser"),
        ({"weight": torch.ones(2)}, "of no known family"),
    ],
)
def test_a_trusted_pickle_of_something_else(tmp_path, held, said):
    torch.save(held, tmp_path / "model.pt")
    refused(tmp_path / "model.pt", said, trust=True)


def test_a_trusted_file_that_is_no_pickle(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"\x00" * 100)
    refused(tmp_path / "model.bin", "can't be read as a pickle", trust=True)
    (tmp_path / "model.pt").write_bytes(b"")
    refused(tmp_path / "model.pt", "can't be read as a pickle", trust=True)
    torch.save(Gaussian(3, 0.5), tmp_path / "model.ckpt")
    refused(tmp_path / "model.ckpt", r"takes no options \(depth given\)", trust=True, depth=1)
