"""Pickles that run nothing: what comes out of them, which weights are taken, and what is refused."""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import pickletools
import struct
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import scorescope as ss
from scorescope.adapters import inert, weights
from scorescope.adapters.inert import Inert, loads
from scorescope.adapters.pickle_machine import OPERATION
from scorescope.nets.sit import SiT, SiTConfig
from tests.pickles import Call, edm, lightning, modules, saved, small, traps

ROOT = Path(__file__).parents[1]


def same(found, expected):
    """Whether two values are alike; a tuple of the file may come out as a tuple only, an ordered dictionary as a dictionary."""
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[key], value) for key, value in expected.items())
    if isinstance(expected, (list, tuple)):
        return type(found) is type(expected) and len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(expected, torch.Tensor):
        return found.dtype == expected.dtype and found.shape == expected.shape and bool((found == expected).all())
    if isinstance(expected, np.ndarray):
        return found.dtype == expected.dtype and np.array_equal(found, expected)
    if isinstance(expected, argparse.Namespace):
        return same(vars(found), vars(expected))
    return type(found) is type(expected) and found == expected


def values():
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {
        "half": base.half(), "bfloat16": base.bfloat16(), "double": base.double(), "int": base.int(), "bool": base > 3, "one": base[0, 0],
        "column": base[:, 1], "empty": torch.empty(0, 3), "complex": base * 1j, "shared": base, "again": base, "bytes": base.byte(),
    }  # fmt: skip
    plain = {
        "numbers": [1, -5, 300, 70000, 2**40, 10**30, 1.5, 1j, True, None], "text": "é" * 300, "bytes": b"\xff" * 300,
        "bytearray": bytearray(b"x"), "sets": [{1, "a"}, frozenset([(1, "b")])], "args": argparse.Namespace(lr=1e-4, sizes=(1, [2])),
        3: {"nested": ({"deep": ()},)},
    }  # fmt: skip
    arrays = {
        "float": np.arange(6.0).reshape(2, 3), "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)), "big": np.arange(3, dtype=">i4"),
        "bool": np.array([True]), "text": np.array(["a", "bb"]),
    }  # fmt: skip
    return collections.OrderedDict(tensors=collections.OrderedDict(tensors), plain=plain, arrays=arrays)


@pytest.mark.parametrize("how", ["zip", "older", *range(6)])
def test_tensors_and_plain_values_come_out_as_they_went_in(tmp_path, how):
    path, value = tmp_path / "x.pt", values()
    if isinstance(how, int):
        path.write_bytes(pickle.dumps(value, protocol=how))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=how == "zip")
    found = inert.read(path)
    assert same(found, value)
    assert inert.left_out(found) == []
    if not isinstance(how, int):
        assert found["tensors"]["shared"].data_ptr() == found["tensors"]["again"].data_ptr()


def test_what_is_a_class_of_plain_things_comes_out_plain():
    value = {
        "number": np.float32(1.5), "parameter": torch.nn.Parameter(torch.ones(2)), "size": torch.Size([2, 3]), "dtype": torch.float16,
        "path": Path("/a/b"), "device": torch.device("cuda:0"), "default": collections.defaultdict(list, {"a": [1]}),
        "counter": collections.Counter("aab"),
    }  # fmt: skip
    expected = {
        "number": 1.5, "parameter": torch.ones(2), "size": (2, 3), "dtype": torch.float16, "path": "/a/b", "device": "cuda:0",
        "default": {"a": [1]}, "counter": {"a": 2, "b": 1},
    }  # fmt: skip
    for protocol in range(6):
        assert same(loads(pickle.dumps(value, protocol)), expected)


def test_everything_else_is_a_record_of_its_class_arguments_and_state():
    class Odd(list):
        def __reduce__(self):
            return Odd, (1, "two"), {"state": 3}, iter([4]), None

    with modules(its__home={"Odd": Odd}):
        content = pickle.dumps({"odd": Odd(), "sum": np.sum, "object": types.SimpleNamespace(a=1)})
    found = loads(content)
    odd = found["odd"]
    assert (odd.name, odd.args, odd.state, odd.items) == ("its.home.Odd", (1, "two"), {"state": 3}, [4])
    assert (found["sum"].name, found["sum"].args) == ("numpy.sum", None)
    assert found["object"].state == {"a": 1}
    assert set(inert.left_out(found)) == {"its.home.Odd", "numpy.sum", "types.SimpleNamespace"}
    assert "its" not in sys.modules


def test_a_network_saved_whole_gives_its_state_dict():
    net = small()
    net.register_buffer("hidden", torch.ones(1), persistent=False)
    found = loads(saved(net))
    assert same(inert.state_dict(found), dict(net.state_dict()))
    assert same(weights.checkpoint({"net": found, "step": 3}).weights, dict(net.state_dict()))


def test_a_snapshot_of_edm_gives_weights_and_architecture_without_its_source(tmp_path):
    content, expected = edm()
    found = loads(content)
    record = found["ema"]
    assert (record.name, record.args[0]["version"]) == ("EDMPrecond", 6)
    assert record.state["_init_kwargs"] == {"img_resolution": 8, "sigma_data": 0.5, "model_type": "SongUNet"}
    assert record.state["_modules"]["model"].state["_init_kwargs"]["channel_mult"] == [1, 2]
    assert found["dataset_kwargs"] == {"path": "data.zip", "use_labels": False, "xflip": True}
    checkpoint = weights.checkpoint(found)
    assert same(checkpoint.weights, expected)
    assert (checkpoint.part, checkpoint.rest["ema"], checkpoint.left_out) == ("ema", record, ("EDMLoss",))


def test_a_checkpoint_of_lightning_gives_weights_and_says_what_was_left_out(tmp_path):
    whole, names = lightning()
    checkpoint = weights.checkpoint(loads(saved(whole, names)))
    assert same(checkpoint.weights, dict(small().state_dict()))
    assert set(checkpoint.left_out) == {"omegaconf.dictconfig.DictConfig", "lightning.callbacks.Callback"}
    assert (checkpoint.rest["epoch"], checkpoint.rest["hyper_parameters"]["width"], checkpoint.rest["args"].lr) == (3, 4, 1)
    assert "optimizer_states" not in checkpoint.rest


# ---- nothing runs, and nothing grows -------------------------------------------------------------------------------------------


def test_no_operation_is_unknown():
    assert OPERATION.keys() == {opcode.name for opcode in pickletools.opcodes}


@pytest.mark.parametrize("number", range(10))
def test_a_trap_is_a_record(tmp_path, number):
    made = tmp_path / "made"
    for protocol in (0, 2, 4):
        found = loads(pickle.dumps({"trap": traps(made)[number], "x": 1}, protocol))
        assert isinstance(found["trap"], Inert)
        assert found["x"] == 1
        assert inert.left_out(found)
    assert not made.exists()


def test_a_thousand_mutated_pickles_run_nothing():
    """The whole of it, 100,000, is in docs/pickles.md."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz_pickles", "--count", "1000", "--first", "1000000"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "nothing ran" in done.stdout


def nested(count):
    """t = (t, t) so many times over: 2^count to hash."""
    return b"\x80\x02}" + b")" + b"2\x86" * count + b"K\x01s."


def zipped(main, compress=zipfile.ZIP_STORED, **more):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compress) as made:
        made.writestr("x/data.pkl", main)
        for name, content in more.items():
            made.writestr(f"x/data/{name}", content)
    return out.getvalue()


def tensor(size, stride=None, key="0", count=4, offset=0):
    """A pickle of one tensor, as torch writes it, with the numbers that are asked for."""

    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, key, "cpu", count) if isinstance(value, Storage) else None

    stream = io.BytesIO()
    call = Call(torch._utils._rebuild_tensor_v2, Storage(), offset, size, stride or (1,) * len(size), False, collections.OrderedDict())
    Pickler(stream, 2).dump(call)
    return stream.getvalue()


NUMBERS = {"0": b"\0" * 16}
GREEDY = {
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b".",
    "a bytearray": b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b".",
    "a string": b"\x80\x04X\xff\xff\xff\xff.",
    "a whole number": b"\x80\x02\x8b" + struct.pack("<i", 4000) + b"\x7f" * 4000 + b".",
    "a tensor over nothing": zipped(tensor((10**9, 10**9), (0, 0)), **NUMBERS),
    "a tensor larger than its storage": zipped(tensor((5,)), **NUMBERS),
    "a tensor behind its storage": zipped(tensor((2,), offset=3), **NUMBERS),
    "a storage larger than its record": zipped(tensor((4,), count=10**12), **NUMBERS),
    "a storage that is not there": zipped(tensor((4,), key="../../etc"), **NUMBERS),
    "a zip bomb": zipped(tensor((4,)), zipfile.ZIP_DEFLATED, **NUMBERS),
    "a string copied again and again": b"\x80\x02(c_codecs\nencode\nq\x00X" + struct.pack("<i", 9000) + b"x" * 9000 + b"\x85q\x01"
    + b"h\x00h\x01R" * 9000 + b"l.",
    "a list copied again and again": b"\x80\x02(cbuiltins\nset\nq\x00]q\x01(" + b"K\x01" * 9000 + b"e\x85q\x02"
    + b"h\x00h\x02R" * 9000 + b"l.",
    "a name made longer and longer": b"\x80\x02X" + struct.pack("<i", 9000) + b"x" * 9000 + b"q\x002\x93.",
    "a value that was never stored": b"\x80\x02j\xff\xff\xff\x7f.",
}  # fmt: skip


@pytest.mark.parametrize("name", GREEDY)
def test_a_file_that_asks_for_more_than_it_explains_is_refused(name):
    with pytest.raises(ss.InputError, match="can't be read as a pickle") as caught:
        loads(GREEDY[name])
    assert "\n" not in str(caught.value)


ENDLESS = {
    "nested keys": nested(60),
    "one hash": b"\x80\x02}" + b"".join(b"\x8a\x0a" + (k * (2**61 - 1)).to_bytes(10, "little") + b"Ns" for k in range(9000)) + b".",
    "nothing to remember": b"\x80\x02r\xff\xff\xff\x7f0N.",
    "a large memo": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "deep lists": b"\x80\x02]" + b"]" * 20000 + b"a" * 20000 + b".",
    "deep tuples": b"\x80\x02)" + b"\x85" * 20000 + b".",
    "a deep key": b"\x80\x02}" + b")" + b"\x85" * 20000 + b"Ns.",
    "deep records": b"\x80\x02" + b"ca\nb\n" * 20000 + b")" + b"R\x85" * 20000 + b".",
    "calls": b"\x80\x02ccopyreg\n__newobj__\nq\x00(" + b"h\x00" * 60 + b"tR.",
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_what_could_take_for_ever_does_not(name):
    begun = time.process_time()
    if name == "nothing to remember":
        with pytest.raises(ss.InputError, match="uses what it does not hold"):
            loads(ENDLESS[name])
    else:
        list(inert.walk(loads(ENDLESS[name])))
    assert time.process_time() - begun < 5


def test_a_network_that_holds_itself_is_refused():
    net = small()
    net._modules["self"] = net
    with pytest.raises(ss.InputError, match="a network without end"):
        inert.state_dict(loads(saved(net)))


# ---- which weights --------------------------------------------------------------------------------------------------------------


MODEL = dict(small(1).state_dict())
PARAMETERS = [name for name, _ in small().named_parameters()]
AVERAGE = {name: value + 1 if name in PARAMETERS else value for name, value in MODEL.items()}
LIST = [AVERAGE[name] for name in PARAMETERS]


def before(prefix, states):
    return {f"{prefix}{name}": value for name, value in states.items()}


def dotless(states):
    return {f"model_ema.diffusion_model{name.replace('.', '')}": states[name] for name in PARAMETERS}


COUNTED = {"initted": torch.tensor(True), "step": torch.tensor(3)}
LATENT = before("model.diffusion_model.", MODEL) | {"first_stage_model.a.b": torch.ones(2), "scale_factor": torch.tensor(0.5)}
LAYOUTS = {
    "ema": ({"model": MODEL, "ema": AVERAGE, "opt": {"state": {}}}, "ema"),
    "model_ema": ({"model_ema": AVERAGE, "model": MODEL}, "model_ema"),
    "torchcfm": ({"net_model": MODEL, "ema_model": AVERAGE, "step": 3, "x_T": torch.ones(3)}, "ema_model"),
    "JiT": ({"model": before("net.", MODEL), "model_ema1": before("net.", AVERAGE), "model_ema2": before("net.", MODEL)}, "model_ema1"),
    "basicsr": ({"params": MODEL, "params_ema": AVERAGE}, "params_ema"),
    "GAN": ({"g": MODEL, "d": MODEL, "g_ema": AVERAGE}, "g_ema"),
    "another name": ({"unet": MODEL, "unet_ema": AVERAGE}, "unet_ema"),
    "inside": ({"model": MODEL, "ema": {"decay": 0.9, "shadow": AVERAGE}}, "ema"),
    "score_sde": ({"model": before("module.", MODEL), "ema": {"decay": 0.999, "num_updates": 3, "shadow_params": LIST}}, "ema"),
    "a bare list": ({"state_dict": MODEL, "ema": LIST}, "ema"),
    "flow_matching": (
        {"model": {"num_updates": torch.tensor(3), **before("model.", MODEL), **{f"shadow_params.{k}": v for k, v in enumerate(LIST)}}},
        "ema",
    ),
    "CompVis": (
        {"state_dict": LATENT | dotless(AVERAGE) | {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(3)}},
        "model_ema",
    ),
    "ema-pytorch": (
        {"step": 3, "model": MODEL, "ema": before("ema_model.", AVERAGE) | before("online_model.", MODEL) | COUNTED},
        "ema",
    ),
    "ema-pytorch alone": (before("ema_model.", AVERAGE) | before("online_model.", MODEL) | COUNTED, "ema_model"),
    "ema-pytorch without the model": (before("ema_model.", AVERAGE) | COUNTED, "ema_model"),
    "Lightning with an average": ({"state_dict": before("net.", MODEL) | before("net_ema.module.", AVERAGE)}, "net_ema"),
    "a list": ([MODEL, {"state": {}}, 3, AVERAGE], None),
    "model": ({"model": AVERAGE, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}}, "model"),
    "bare": (AVERAGE, "all"),
    "bare with statistics": (AVERAGE | {"stats": {"mean": torch.ones(2)}}, "all"),
    "wrapped": (before("module._orig_mod.model.", AVERAGE), "all"),
    "wrapped otherwise": (before("_orig_mod.module.", AVERAGE) | {"n_averaged": torch.tensor(3)}, "all"),
    "latent": (before("model.diffusion_model.", AVERAGE) | {"alphas_cumprod": torch.ones(3)}, "all"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_average_is_found_under_any_of_its_names(name):
    held, part = LAYOUTS[name]
    if part is None:
        with pytest.raises(ss.InputError, match=r'several models \(0, 3\)\. Try: weights="0" or weights="3"'):
            weights.checkpoint(held)
    found = weights.checkpoint(held, 3 if part is None else None)
    assert found.part == (part or "3")
    assert same({key: found.weights[key] for key in AVERAGE}, AVERAGE)
    assert found.weights.keys() == AVERAGE.keys()


@pytest.mark.parametrize("name", [name for name, (_, part) in LAYOUTS.items() if part not in (None, "all", "model")])
def test_the_model_itself_is_taken_when_it_is_asked_for(name):
    if name == "ema-pytorch without the model":
        with pytest.raises(ss.InputError, match="unknown part of it 'model'"):
            weights.checkpoint(LAYOUTS[name][0], "model")
    elif name == "GAN":
        with pytest.raises(ss.InputError, match=r"several models \(g, d, g_ema\)"):
            weights.checkpoint(LAYOUTS[name][0], "model")
        assert same(weights.checkpoint(LAYOUTS[name][0], "g").weights, MODEL)
    else:
        found = weights.checkpoint(LAYOUTS[name][0], "model")
        assert same({key: found.weights[key] for key in MODEL}, MODEL)
        assert not weights.AVERAGED.search(found.part)


def test_what_lies_beside_a_latent_model_is_kept():
    found = weights.checkpoint(LAYOUTS["CompVis"][0])
    assert {"first_stage_model.a.b", "scale_factor"} <= found.rest.keys()
    assert float(found.rest["scale_factor"]) == 0.5


def test_plain_values_are_kept_and_optimizers_are_not():
    held = {"ema": AVERAGE, "config": {"lr": 1}, "args": argparse.Namespace(a=1), "step": 3, "opt": {"state": {0: {"m": torch.ones(1)}}}}
    assert weights.checkpoint(held).rest == {"config": {"lr": 1}, "args": argparse.Namespace(a=1), "step": 3}


SQUARE = {"a": torch.ones(2, 2), "buffer": torch.ones(2, 2)}
REFUSED = {
    "two models": ({"generator": MODEL, "critic": MODEL}, None, r'several models \(generator, critic\)\. Try: weights="generator" or'),
    "another part": ({"ema": MODEL, "model": MODEL}, "emma", r"unknown part of it 'emma'; there is ema, model"),
    "nothing": ({"step": 3}, None, "holds no weights"),
    "no mapping": (3, None, "holds no weights"),
    "an optimizer": ({"opt": {"state": {0: {"m": torch.ones(1)}}}}, None, "holds no weights"),
    "a list without names": ({"ema": {"shadow_params": LIST}}, None, "no model beside it"),
    "a list of another model": ({"model": MODEL, "ema": {"shadow_params": [*LIST, torch.ones(7)]}}, None, "do not fit the model beside it"),
    "a list that fits twice": ({"model": SQUARE, "ema": {"shadow_params": [torch.ones(2, 2)]}}, None, "shapes do not tell.*not averaged"),
    "names of another model": ({"state_dict": LATENT | {"model_ema.other": torch.ones(2)}}, None, "averages other, which no weight"),
    "names that are two": (
        {"state_dict": {"model.a.1.1": torch.ones(1), "model.a.11": torch.ones(1), "model_ema.a11": torch.ones(1)}},
        None, "may be model.a.1.1 or",
    ),
    "NaN": (AVERAGE | {"3.bias": torch.tensor([1.0, float("nan")]).half()}, None, "NaN or Inf: 1 of the 2 numbers of 3.bias.*half"),
    "Inf": (MODEL | {"3.bias": torch.tensor([1.0, float("inf")])}, None, "NaN or Inf: 1 of the 2 numbers of 3.bias"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_leaves_a_choice_or_is_no_weights_is_refused(tmp_path, name):
    held, asked, said = REFUSED[name]
    torch.save(held, tmp_path / "x.pt")
    with pytest.raises(ss.InputError, match=said) as caught:
        weights.read(tmp_path / "x.pt", asked)
    assert str(tmp_path / "x.pt") in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- as models ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sit():
    net = SiT(SiTConfig(3, 8, 2, 24, 2, 3, 5))
    generator = torch.Generator().manual_seed(0)
    return net, {name: 0.2 * torch.randn(value.shape, generator=generator) for name, value in net.state_dict().items()}


def test_a_model_says_which_weights_it_has_and_what_was_left_out(tmp_path, sit):
    states = sit[1]
    other = {name: value + 0.1 for name, value in states.items()}
    whole, names = lightning()
    path = tmp_path / "x.ckpt"
    path.write_bytes(saved({"model": other, "ema": states, "callbacks": whole["callbacks"], "config": whole["hyper_parameters"]}, names))
    torch.save(other, tmp_path / "other.pt")
    averaged, plain = (ss.load(path, family="sit", heads=3, **asked) for asked in ({}, {"weights": "model"}))
    assert averaged.about["weights"] == "ema"
    assert averaged.about["left_out"] == "omegaconf.dictconfig.DictConfig, lightning.callbacks.Callback"
    assert (plain.about["weights"], plain.about["options"]) == ("model", {"heads": 3})
    z = torch.ones(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(plain(z, 0.5, 1), ss.load(tmp_path / "other.pt", family="sit", heads=3)(z, 0.5, 1))
        assert not torch.equal(plain(z, 0.5, 1), averaged(z, 0.5, 1))


def test_a_network_saved_whole_is_read_by_its_names_and_needs_no_trust(tmp_path, sit):
    net, states = sit
    net.load_state_dict(states)
    torch.save(net, tmp_path / "x.pt")
    torch.save(states, tmp_path / "states.pt")
    z = torch.ones(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(*(ss.load(tmp_path / name, family="sit", heads=3)(z, 0.5, 1) for name in ("x.pt", "states.pt")))
    torch.save(torch.nn.Linear(2, 2), tmp_path / "y.pt")
    with pytest.raises(ss.InputError, match=r"of no known family.*or --trust if it is a Denoiser"):
        ss.load(tmp_path / "y.pt")


@pytest.mark.parametrize("size", [3, 40, 1000, -20])
@pytest.mark.parametrize("kind", ["zip", "older", "pickle", "safetensors"])
def test_a_file_that_was_cut_is_one_line(tmp_path, sit, kind, size):
    path = tmp_path / ("x.safetensors" if kind == "safetensors" else "x.pt")
    if kind == "safetensors":
        save_file(sit[1], path)
    elif kind == "pickle":
        path.write_bytes(edm()[0])
    else:
        torch.save(sit[1], path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ss.InputError, match="can't be read as") as caught:
        ss.load(path, **({} if kind == "safetensors" else {"family": "sit", "heads": 3}))
    assert "\n" not in str(caught.value)
