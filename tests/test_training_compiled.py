"""`--compile`: a compiled run is one network compiled whole, continues bitwise, and writes what any other run writes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import scorescope as ss
from scorescope.cli import main
from scorescope.compare.grouping import grouped
from scorescope.nets.mlp import MLP, MLPSize
from scorescope.training.compiling import check_compiler
from scorescope.training.loop import Hooks, train
from scorescope.training.objectives.dispersive import Dispersive
from scorescope.training.recipe import Recipe

# What torch's own modules say when the compiler is imported.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")

PLAIN = Recipe(MLPSize(width=8, depth=3), steps=60, batch=4, rate=3e-3, ema=0.99, seed=3)
TINY = replace(PLAIN, compile=True)


def bank():
    rng = np.random.default_rng(5)
    return ss.Bank.from_arrays(rng.uniform(-1, 1, (12, 4)).astype(np.float32), np.arange(12) % 3)


class Cut(Exception):
    """The run is cut short here."""


def cut(progress):
    if progress.step >= 50:
        raise Cut


def curve(folder):
    return np.loadtxt(folder / "loss.csv", delimiter=",", skiprows=1)


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    """A compiler whose cache begins empty and is nobody else's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        import torch._inductor.config as inductor

        try:
            check_compiler("cpu")
        except ss.InputError as problem:
            pytest.skip(problem.problem)
        with inductor.patch(compile_threads=1):
            yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory, compiler):
    """An uninterrupted compiled run."""
    return train(TINY, bank(), tmp_path_factory.mktemp("whole") / "run")


def test_a_compiled_run_that_was_cut_ends_with_the_same_files(tmp_path, whole):
    with pytest.raises(Cut):
        train(TINY, bank(), tmp_path / "run", hooks=Hooks(report=cut, save_every=0.0))
    (saved,) = (tmp_path / "run" / "checkpoints").glob("step-00000049.safetensors")
    assert not any("_orig_mod" in name for name in load_file(saved))
    file = train(TINY, bank(), tmp_path / "run")
    for name in ("model.safetensors", "loss.csv", "recipe.json", "run.json"):
        assert (file.parent / name).read_bytes() == (whole.parent / name).read_bytes()


def test_it_is_compiled_and_otherwise_as_any_run(tmp_path, whole):
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    plain = train(PLAIN, bank(), tmp_path / "run")
    np.testing.assert_allclose(curve(whole.parent), curve(plain.parent), rtol=1e-4)
    ours, theirs = load_file(whole), load_file(plain)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4)
    z, t = torch.randn(2, 4, generator=torch.Generator().manual_seed(0)), torch.full((2,), 0.5)
    models = {"ours": ss.load(whole), "theirs": ss.load(plain)}
    with torch.no_grad():
        torch.testing.assert_close(models["ours"](z, t, 1), models["theirs"](z, t, 1), rtol=1e-3, atol=1e-4)
    assert len(set(grouped(models).values())) == 1
    records = [json.loads((file.parent / "recipe.json").read_text())["recipe"] for file in (whole, plain)]
    assert records[0] == records[1] | {"compile": True}
    with pytest.raises(ss.InputError, match=r"other settings \(compile True → nothing\).*another --out, with --fork"):
        train(PLAIN, bank(), whole.parent)
    with pytest.raises(ss.InputError, match=r"other settings \(compile nothing → True\)"):
        train(TINY, bank(), plain.parent)


def test_losses_on_hidden_states_see_every_step(tmp_path, compiler):
    aim = replace(PLAIN, objective=Dispersive(dispersive_depth=1))
    for name, recipe in (("plain", aim), ("compiled", replace(aim, compile=True))):
        train(recipe, bank(), tmp_path / name)
    np.testing.assert_allclose(curve(tmp_path / "compiled"), curve(tmp_path / "plain"), rtol=1e-3, atol=1e-5)


def test_a_network_that_cannot_be_compiled_is_one_line_before_anything_is_written(tmp_path, monkeypatch, compiler):
    forward = MLP.forward

    def broken(self, z, t, label=None):
        torch._dynamo.graph_break()
        return forward(self, z, t, label)

    monkeypatch.setattr(MLP, "forward", broken)
    with pytest.raises(ss.InputError, match=r"^torch.compile can't compile this network \(.+\)\. Try: leaving --compile out$"):
        train(TINY, bank(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_a_compiler_it_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    import torch._inductor.config as inductor

    bank().save(tmp_path / "x.bank")
    words = ["--preset", "mlp-desk", "--bank", str(tmp_path / "x.bank"), "--watch-every", "0"]
    line = "error: --compile needs a C++ compiler, and none was found. Try: installing "
    with inductor.patch({"cpp.cxx": ("no-compiler-of-this-name",)}):
        for verb in (["train", *words], ["bench", "training", "--presets", "sit-desk"]):
            capsys.readouterr()
            assert main([*verb, "--compile", "--out", str(tmp_path / "run")]) == 2
            out, said = capsys.readouterr()
            assert out == ""
            assert said.startswith(line)
            assert said.count("\n") == 1
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)
    with pytest.raises(ss.InputError, match="--compile on CUDA needs triton"):
        check_compiler("cuda:1")

    def unsupported():
        raise RuntimeError("Python 3.99 not yet supported for torch.compile")

    monkeypatch.setattr("torch._dynamo.eval_frame.check_if_dynamo_supported", unsupported)
    with pytest.raises(ss.InputError, match=r"--compile does not work on Python 3\.\S+ \(Python 3\.99 not yet supported"):
        check_compiler("cpu")
    assert not (tmp_path / "run").exists()
