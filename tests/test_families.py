"""State dicts from elsewhere: the official code's answers, what names and shapes tell, what is asked for, and pickles that run nothing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import scorescope as ss
from scorescope.adapters.families import adm
from scorescope.nets.sit import SiT, SiTConfig
from scorescope.nets.unet import UNet, UNetConfig
from tests.official import reference

GUIDED = {"head_width": 16, "order": "new", "process": "ddpm", "schedule": "linear"}


def random(net, scale=0.3):
    """The state dict of a network with random weights, zeroed layers included."""
    generator = torch.Generator().manual_seed(0)
    return {name: scale * torch.randn(value.shape, generator=generator) for name, value in net.state_dict().items()}


@pytest.fixture(scope="module")
def sit():
    return random(SiT(SiTConfig(3, 8, 2, 24, 2, 3, 5)), 0.2)


@pytest.fixture(scope="module")
def guided():
    return random(UNet(UNetConfig(3, 8, 32, (1, 2), 1, (2,), 16, 4, False, doubled=True, time_scale=1.0)), 0.1)


# ---- the official code's answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "family"), [("sit", "sit"), ("sit_sigma", "sit"), ("repa", None)])
def test_velocity_and_posterior_mean_are_those_of_the_official_code(tmp_path, name, family):
    weights, io = reference(name)
    save_file(weights, tmp_path / "x.safetensors")
    model = ss.load(tmp_path / "x.safetensors", heads=3, **({} if family is None else {"family": family}))
    own = io["t"].double() if name == "repa" else 1 - io["t"].double()
    expected = io["out"] if name == "repa" else -io["out"]
    with torch.no_grad():
        mean, velocity = model(io["x"], own, io["y"]), model.velocity(io["x"], own, io["y"])  # labels hold the null one, too
    torch.testing.assert_close(velocity, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mean, io["x"] - own.float()[:, None, None, None] * expected, rtol=1e-5, atol=1e-5)
    assert (model.classes, model.has_null, model.about["family"]) == (6, True, family or "repa")
    null = io["y"] == 6
    with torch.no_grad():
        assert null.any()
        torch.testing.assert_close(model(io["x"], own)[null], mean[null], rtol=1e-5, atol=1e-5)
        with pytest.raises(ss.InputError, match="label 7 is outside the classes of x"):
            model(io["x"], own, 7)


def test_the_projectors_of_repa_are_kept_and_give_its_features(tmp_path):
    weights, io = reference("repa")
    save_file(weights, tmp_path / "x.safetensors")
    net = ss.load(tmp_path / "x.safetensors", heads=3).net
    seen = []
    net.stages[0].register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        net(io["x"], io["t"], io["y"])
        torch.testing.assert_close(net.projectors[0](seen[0]), io["z"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("order", ["legacy", "new"])
def test_noise_and_posterior_mean_are_those_of_guided_diffusion(tmp_path, order):
    weights, io = reference(f"adm_{order}")
    save_file(weights, tmp_path / "x.safetensors")
    model = ss.load(tmp_path / "x.safetensors", head_width=16, order=order, process="ddpm", schedule="linear", size=16)
    t = (io["t"].double() + 1) / 1000
    eps = io["out"][:, :3]
    alpha_bar = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))[io["t"]][:, None, None, None]
    mean = ((io["x"] - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()).float()
    with torch.no_grad():
        torch.testing.assert_close(model.noise(io["x"], t, io["y"]), eps, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(io["x"], t, io["y"]), mean, rtol=1e-5, atol=1e-5 * float(mean.abs().max()))
    assert (model.classes, model.has_null, model.shape) == (10, False, (3, 16, 16))
    with pytest.raises(ss.InputError, match="no null label"):
        model(io["x"], t)


# ---- what names and shapes tell -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        UNetConfig(3, 8, 32, (1, 2), 1, (2,), 16, 4, False, time_scale=1.0),
        UNetConfig(4, 16, 32, (1, 1, 3), 2, (1, 4), 16, 0, False, scale_shift=False, doubled=True, time_scale=1.0),
        UNetConfig(1, 8, 64, (2, 1, 1), 3, (), 16, 3, False, updown=False, time_scale=1.0),
        UNetConfig(1, 8, 32, (1, 2), 1, (), 16, 3, False, updown=False, middle_attention=False, time_scale=1.0),
    ],
)
def test_the_shape_of_a_guided_diffusion_network_is_read_off_its_weights(config):
    with torch.device("meta"):
        weights = UNet(config).state_dict()
    assert adm.shape_of(weights, 16, "new", config.size) == config


def test_betas_are_those_of_the_literature():
    bar = np.cumprod(1 - adm.cosine_betas())
    u = np.arange(1, 1000) / 1000
    expected = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(bar[:-1], expected, rtol=1e-10)
    assert adm.linear_betas()[[0, -1]].tolist() == [1e-4, 0.02]


@pytest.mark.parametrize("wrap", [dict, lambda w: {"model": {k: v + 1 for k, v in w.items()}, "ema": w, "args": argparse.Namespace(lr=1)}])
@pytest.mark.parametrize("before", ["", "module.", "_orig_mod."])
def test_bare_and_nested_pickles_give_the_same_model_as_safetensors(tmp_path, sit, wrap, before):
    save_file(sit, tmp_path / "x.safetensors")
    torch.save(wrap({before + name: value for name, value in sit.items()}), tmp_path / "x.pt")
    expected, found = (ss.load(tmp_path / name, family="sit", heads=3) for name in ("x.safetensors", "x.pt"))
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(expected(z, 0.3, 2), found(z, 0.3, 2))
    assert found.about["weights"] == ("all" if wrap is dict else "ema")
    assert found.parameters_count == sum(value.numel() for name, value in sit.items() if name != "pos_embed")


def test_sit_and_repa_run_time_in_opposite_directions(tmp_path, sit):
    save_file(sit, tmp_path / "x.safetensors")
    official, repa = (ss.load(tmp_path / "x.safetensors", family=family, heads=3) for family in ("sit", "repa"))
    z = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(official.velocity(z, 0.25, 1), -repa.velocity(z, 0.75, 1))


def test_half_precision_weights_are_widened(tmp_path, sit):
    torch.save({name: value.half() for name, value in sit.items()}, tmp_path / "x.pt")
    assert ss.load(tmp_path / "x.pt", family="sit", heads=3)(torch.zeros(1, 3, 8, 8), 0.5).dtype == torch.float32


@pytest.mark.parametrize(
    ("width", "depth", "heads", "count"),
    [(384, 12, 6, 32_963_360), (768, 12, 12, 130_512_416), (1024, 24, 16, 458_102_816), (1152, 28, 16, 675_129_632)],
)
def test_the_papers_sizes_have_the_official_number_of_parameters(width, depth, heads, count):
    with torch.device("meta"):
        net = SiT(SiTConfig(4, 32, 2, width, depth, heads, 1000, doubled=True))
    assert sum(p.numel() for p in net.parameters()) == count


# ---- what is asked for, and refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, r'do not tell which code .*sit.*family="'),
        ({"family": "sti"}, "unknown family 'sti'.*'sit'"),
        ({"family": "adm"}, "a state dict of family adm has input_blocks"),
        ({"family": "sit"}, "width 24 does not tell its attention heads.*heads=6"),
        ({"family": "sit", "heads": 5}, "heads=5 does not divide the width 24"),
        ({"family": "sit", "heads": 3, "classes": 9}, "classes=9 does not fit the 6 rows"),
        ({"family": "sit", "haeds": 3}, "unknown option of family sit 'haeds'.*'heads'"),
    ],
)
def test_what_a_sit_does_not_tell_is_asked_for_by_name(tmp_path, sit, options, said):
    save_file(sit, tmp_path / "x.safetensors")
    with pytest.raises(ss.InputError, match=said) as caught:
        ss.load(tmp_path / "x.safetensors", **options)
    assert str(tmp_path / "x.safetensors") in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "does not tell process, head_width, order"),
        (
            {"head_width": 16, "schedule": "linear"},
            r'does not tell process, order\. Try: process="ddpm" with schedule="linear" or "cosine", or ',
        ),
        (GUIDED | {"schedule": "cosin"}, "unknown schedule of family adm 'cosin'.*'cosine'"),
        (GUIDED | {"order": "old"}, "unknown order of family adm 'old'"),
        (GUIDED | {"size": 9}, "size=9 is not divisible by 2"),
    ],
)
def test_what_a_guided_diffusion_network_does_not_tell_is_asked_for_by_name(tmp_path, guided, options, said):
    save_file(guided, tmp_path / "x.safetensors")
    with pytest.raises(ss.InputError, match=said):
        ss.load(tmp_path / "x.safetensors", **options)
    assert ss.load(tmp_path / "x.safetensors", **GUIDED).classes == 4


def test_weights_that_are_missing_or_of_another_shape_are_one_line(tmp_path, sit, guided):
    broken = (
        ({k: v for k, v in sit.items() if k != "pos_embed"}, {"family": "sit", "heads": 3}, "lacks what every sit has"),
        (
            {k: v for k, v in sit.items() if k != "blocks.1.attn.qkv.bias"},
            {"family": "sit", "heads": 3},
            "do not fit.*blocks.1.attn.qkv.bias",
        ),
        ({k: v for k, v in guided.items() if k != "out.2.weight"}, GUIDED, "lacks what every guided-diffusion"),
        ({"a.b": torch.zeros(2)}, {}, "of no known family"),
    )
    for weights, options, said in broken:
        save_file(weights, tmp_path / "x.safetensors")
        with pytest.raises(ss.InputError, match=said) as caught:
            ss.load(tmp_path / "x.safetensors", **options)
        assert "\n" not in str(caught.value)


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_a_hostile_pickle_runs_nothing(tmp_path, sit):
    torch.save(Hostile(tmp_path / "owned"), tmp_path / "x.pt")
    with pytest.raises(ss.InputError, match="opening one runs whatever code is inside"):
        ss.load(tmp_path / "x.pt", family="sit", heads=3)
    torch.save({"ema": sit, "args": Hostile(tmp_path / "owned")}, tmp_path / "x.pt")
    assert "getattr" in ss.load(tmp_path / "x.pt", family="sit", heads=3).about["left_out"]
    assert not (tmp_path / "owned").exists()


def test_the_command_line_hands_on_what_a_state_dict_does_not_tell(tmp_path, sit, capsys):
    from scorescope.cli import main

    save_file(sit, tmp_path / "x.safetensors")
    rows = np.random.default_rng(0).uniform(-1, 1, (12, 3, 8, 8)).astype(np.float32)
    ss.Bank.from_arrays(rows, np.arange(12) % 5, name="x").save(tmp_path / "x.bank")
    words = ["examine", str(tmp_path / "x.safetensors"), "--bank", str(tmp_path / "x.bank"), "--out", str(tmp_path / "run")]
    words += ["--probes", "score-error", "--paths", "2", "--times", "2", "--solver", "euler", "--steps", "2", "--as-is"]
    assert main([*words, "--load", "heads"]) == 2
    assert "not of the form name=value" in capsys.readouterr().err
    assert main([*words, "--load", "family=sit", "heads=3", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)
    drawn = ["--n", "4", "--solver", "euler", "--steps", "2", "--load", "family=sit", "heads=3"]
    assert main(["sample", str(tmp_path / "x.safetensors"), *drawn, "--out", str(tmp_path / "drawn")]) == 0
    words = ["evaluate", str(tmp_path / "x.safetensors"), "--bank", str(tmp_path / "x.bank"), *drawn, "--extractor", "pixels", "--k", "2"]
    assert main([*words, "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "compared")]) == 0
    rows = [np.load(tmp_path / name / "samples.npz")["samples"] for name in ("drawn", "compared/samples")]
    assert np.array_equal(*rows)
