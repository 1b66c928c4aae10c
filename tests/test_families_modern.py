"""JiT, LightningDiT, DiCo, EDM, EDM2: the official code's answers, what names and shapes tell, and what is asked for."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import scorescope as ss
from scorescope.adapters.families import Checkpoint, dico, edm, edm2, jit, lightningdit
from scorescope.nets.dico import DiCo, DiCoConfig
from scorescope.nets.edm import EDMConfig, EDMUNet
from scorescope.nets.edm2 import EDM2Config, EDM2UNet
from scorescope.nets.modern import ModernConfig, ModernSiT, rotations
from scorescope.nets.sit import sincos_positions
from tests.official_modern import reference

TABLES = {"lightningdit": (4, 8), "lightningdit_layer": (4, 8)}  # side in tokens and width of a head where the code keeps tables
OPTIONS = {
    "jit": {"noise_scale": 1.0, "context_start": 1},
    "edm": {"precond": "edm", "sigma_data": 0.5},
    "edm_adm": {"precond": "edm", "sigma_data": 0.5},
    "edm2": {"sigma_data": 0.5, "head_width": 16},
    "edm_vp": {"precond": "vp"},
    "edm_ve": {"precond": "ve"},
    "edm_iddpm": {"precond": "iddpm"},
}  # what a checkpoint does not tell


def complete(network: str) -> dict[str, torch.Tensor]:
    """The weights with the tables that the official code keeps beside them."""
    weights, _ = reference(network)
    if network.partition("_")[0] in ("jit", "lightningdit"):
        weights["pos_embed"] = sincos_positions(4, 24).unsqueeze(0)
    if network in TABLES:
        weights["feat_rope.freqs_cos"], weights["feat_rope.freqs_sin"] = rotations(*TABLES[network])
    return weights


def checkpoint(name: str, folder: Path) -> Path:
    """A tiny checkpoint of a family."""
    weights = complete(name)
    save_file(weights, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


@pytest.mark.parametrize("name", ["lightningdit", "lightningdit_noshift", "lightningdit_layer"])
def test_velocity_and_posterior_mean_are_those_of_lightningdit(tmp_path, name):
    _, io = reference(name)
    model = ss.load(checkpoint(name, tmp_path))
    own, out = 1 - io["t"].double(), io["out"]
    with torch.no_grad():
        velocity, mean = model.velocity(io["x"], own, io["y"]), model(io["x"], own, io["y"])
        torch.testing.assert_close(velocity, -out, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(mean, io["x"] + own.float()[:, None, None, None] * out, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(io["x"], own)[io["y"] == 6], mean[io["y"] == 6], rtol=1e-5, atol=1e-5)
    assert (model.classes, model.null_label, model.shape, model.about["family"]) == (6, 6, (4, 4, 4), "lightningdit")


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("inside", ["", "net."])
def test_the_posterior_mean_is_that_of_jit(tmp_path, scale, inside):
    """A state τ x + (1 − τ) s ε of JiT is (τ + (1 − τ) s) times one of the linear path at t = (1 − τ) s/(τ + (1 − τ) s)."""
    _, io = reference("jit")
    weights = {inside + name: value for name, value in complete("jit").items()}
    other = {name: value + 1 for name, value in weights.items()}
    parts = {"model": other, "model_ema1": weights, "model_ema2": other, "epoch": 5}
    torch.save({**parts, "args": argparse.Namespace(noise_scale=scale)}, tmp_path / "x.pth")
    model = ss.load(tmp_path / "x.pth", context_start=1)
    tau = io["t"].double()
    total = tau + (1 - tau) * scale
    z, t = (io["x"] / total[:, None, None, None]).float(), (1 - tau) * scale / total
    with torch.no_grad():
        torch.testing.assert_close(model(z, t, io["y"]), io["out"], rtol=1e-5, atol=1e-5)
    assert (model.classes, model.null_label, model.shape, model.about["family"]) == (6, 6, (3, 8, 8), "jit")


def test_noise_and_posterior_mean_are_those_of_dico(tmp_path):
    _, io = reference("dico")
    model, eps = ss.load(checkpoint("dico", tmp_path), size=8), io["out"][:, :4]
    t = (io["t"].double() + 1) / 1000
    alpha_bar = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))[io["t"]][:, None, None, None]
    mean = ((io["x"] - (1 - alpha_bar).sqrt() * eps) / alpha_bar.sqrt()).float()
    with torch.no_grad():
        torch.testing.assert_close(model.noise(io["x"], t, io["y"]), eps, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model(io["x"], t, io["y"]), mean, rtol=1e-5, atol=1e-5 * float(mean.abs().max()))
        torch.testing.assert_close(model(io["x"], t)[io["y"] == 6], model(io["x"], t, io["y"])[io["y"] == 6])
    assert (model.classes, model.null_label, model.shape, model.about["family"]) == (6, 6, (4, 8, 8), "dico")


@pytest.mark.parametrize("name", ["edm", "edm_adm", "edm_vp", "edm_ve", "edm_iddpm", "edm2"])
@pytest.mark.parametrize("whole", [True, False])
def test_the_posterior_mean_is_that_of_edm(tmp_path, name, whole):
    """Also where the network was saved without its preconditioning."""
    _, io = reference(name)
    inside = "unet." if name == "edm2" else "model."
    weights = {key if whole else key.removeprefix(inside): value for key, value in complete(name).items() if whole or inside in key}
    save_file(weights, tmp_path / "x.safetensors")
    model = ss.load(tmp_path / "x.safetensors", **OPTIONS[name], null=1)
    classes = 0 if name in ("edm_vp", "edm_iddpm") else 5
    assert (model.classes, model.null_label, model.shape) == (classes, classes or None, tuple(io["x"].shape[1:]))
    t = model.schedule.time(1 / io["t"].double())
    sigma = model.schedule(t).sigma
    torch.testing.assert_close(sigma, io["t"].double())
    with torch.no_grad():
        found = model(io["x"], t, io["y"] if classes else None)
        torch.testing.assert_close(found, io["out"], rtol=1e-5, atol=1e-5 * float(io["out"].abs().max()))
        noise, expected = ((io["x"] - mean) / io["t"][:, None, None, None] for mean in (found, io["out"]))
        torch.testing.assert_close(noise, expected, rtol=1e-4, atol=1e-4)  # of which little is left in the mean where σ is small
        if classes:
            torch.testing.assert_close(model(io["x"], t)[io["y"] == 5], found[io["y"] == 5], rtol=1e-5, atol=1e-5)


def record(name: str, kwargs: dict) -> SimpleNamespace:
    """A module as a pickle read without running code gives it."""
    return SimpleNamespace(name=name, state={"_init_kwargs": kwargs, "_parameters": {}, "_modules": {}})


def test_what_a_pickle_of_edm_tells_is_taken_from_there():
    weights, _ = reference("edm")
    own = {"sigma_data": 0.4, "label_dropout": 0.1, "sigma_min": 0, "model_type": "SongUNet"}
    data = {"path": "x.zip", "xflip": True}
    rest = {"ema": record("training.networks.EDMPrecond", own), "dataset_kwargs": data}
    model = edm.build(Checkpoint(weights, "ema", rest), {})
    assert (model.net.scales, model.null_label, model.about["dataset_kwargs"]) == (edm.EDM(0.4), 5, data)
    rest["ema"] = record("VPPrecond", {"beta_min": 0.2})
    model = edm.build(Checkpoint(weights, "ema", rest), {})
    assert (model.net.scales, model.has_null) == (edm.VP(beta_min=0.2), False)
    rest["ema"] = record("PFGMPrecond", {})
    with pytest.raises(ss.InputError, match="it holds a PFGMPrecond, which is unknown"):
        edm.build(Checkpoint(weights, "ema", rest), {})


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (EDMConfig(), 55_735_299),
        (EDMConfig(noise=256, fourier=True, residual=True, taps=4), 56_400_643),
        (EDMConfig(True, 3, 3, 64, 192, (192, 384, 576, 768), 3, (32, 16, 8), 768, 192, classes=1000), 295_899_267),
    ],
)
def test_networks_of_edm_have_the_official_number_of_parameters(config, count):
    """Of the first two with 10 classes and 9 labels of augmentations, which are linear maps to the features of noise."""
    with torch.device("meta"):
        net = EDMUNet(config)
    maps = 0 if config.adm else (10 + 1 + 9) * config.noise
    assert sum(p.numel() for p in net.parameters()) == count - maps
    assert edm.shape_of(net.state_dict()) == config


def test_what_a_pickle_of_edm2_tells_is_taken_from_there():
    weights, _ = reference("edm2")
    encoder = SimpleNamespace(name="training.encoders.StabilityVAEEncoder", state={"scale": np.float32([0.125]), "_vae": None})
    own = {"channels_per_head": 16, "res_balance": 0.4, "clip_act": None}
    rest = {"ema": record("Precond", own), "encoder": encoder, "dataset_kwargs": {"xflip": True}}
    model = edm2.build(Checkpoint(weights, "ema", rest), {})
    config = model.net.net.config
    assert (config.head, config.res_balance, config.clip, config.label_balance) == (16, 0.4, float("inf"), 0.5)
    assert (model.net.scales.sigma_data, model.classes, model.has_null) == (0.5, 5, False)
    expected = {"dataset_kwargs": {"xflip": True}, "encoder": {"class": "StabilityVAEEncoder", "scale": [0.125]}}
    assert model.about == expected
    own["resample_filter"] = [1, 3, 3, 1]
    with pytest.raises(ss.InputError, match=r"resample_filter=.* not known here"):
        edm2.build(Checkpoint(weights, "ema", rest), {})


@pytest.mark.parametrize(
    ("width", "depths", "count"),
    [(128, (5, 4, 4, 4, 4), 33_137_672), (416, (9, 9, 10, 9, 9), 701_151_368)],
)
def test_sizes_of_dico_have_the_official_number_of_parameters(width, depths, count):
    with torch.device("meta"):
        net = DiCo(DiCoConfig(4, width, depths))
    assert sum(p.numel() for p in net.parameters()) == count
    assert dico.shape_of(net.state_dict()) == net.config


@pytest.mark.parametrize(("width", "classes", "count"), [(128, 1000, 124_713_125), (192, 0, 279_444_709)])
def test_sizes_of_edm2_have_the_official_number_of_parameters(width, classes, count):
    with torch.device("meta"):
        net = EDM2UNet(EDM2Config(4, 64, tuple(width * k for k in (1, 2, 3, 4)), embedding=4 * width, noise=width, classes=classes))
    assert sum(p.numel() for p in net.parameters()) == count
    assert edm2.shape_of(net.state_dict(), {}) == net.config


@pytest.mark.parametrize(
    ("config", "family"),
    [
        (ModernConfig(4, 8, 2, 48, 2, 3, 64, 5, True, shift=False, qk_norm="layer"), lightningdit),
        (ModernConfig(4, 8, 2, 48, 1, 3, 64, 5, rms=False, swiglu=False), lightningdit),
        (ModernConfig(1, 6, 1, 768, 1, 12, 64, 5, rope=False), lightningdit),
        (ModernConfig(3, 8, 4, 48, 3, 6, 64, 11, qk_norm="rms", bottleneck=8, context=3, context_start=2), jit),
        (ModernConfig(3, 8, 4, 48, 3, 6, 64, 11, qk_norm="rms", bottleneck=8), jit),
    ],
)
def test_the_switches_of_a_modern_sit_are_read_off_its_weights(config, family):
    with torch.device("meta"):
        weights = ModernSiT(config).state_dict()
    found = family.shape_of(weights, 2) if family is jit else family.shape_of(Checkpoint(weights), {})
    assert replace(found, context_start=config.context_start) == config
    assert family.belongs(Checkpoint(weights))


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (ModernConfig(3, 256, 16, 768, 12, 12, 2048, qk_norm="rms", bottleneck=128, context=32, context_start=4), 131_123_712),
        (ModernConfig(3, 512, 32, 1024, 24, 16, 2730, qk_norm="rms", bottleneck=128, context=32, context_start=8), 461_534_176),
        (ModernConfig(32, 16, 1, 1152, 28, 16, 3072), 674_961_824),
        (ModernConfig(4, 32, 2, 768, 12, 12, 3072, doubled=True, rms=False, rope=False, swiglu=False), 130_315_808),
    ],
)
def test_the_papers_sizes_have_the_official_number_of_parameters(config, count):
    with torch.device("meta"):
        net = ModernSiT(config)
    assert sum(p.numel() for p in net.parameters() if p.requires_grad) == count


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("jit", {}, r"does not tell its noise scale\. Try: noise_scale=1\.0, or 2\.0 for images of side 512"),
        ("jit", {"noise_scale": 1.0}, "width 24 and depth 3 does not tell where .*context_start=4"),
        ("jit", {"noise_scale": 1.0, "context_start": 3}, "context_start=3 is none of the 3 blocks"),
        ("jit", {"noise_scale": "big", "context_start": 1}, "noise_scale=big is not a positive number"),
        ("jit", {"noise_scale": 0.0, "context_start": 1}, "noise_scale=0.0 is not a positive number"),
        ("jit", {"family": "lightningdit"}, "a state dict of family lightningdit has"),
        ("edm2", {}, r"does not tell the standard deviation that it expects of the data\. Try: sigma_data=0\.5"),
        ("dico", {"classes": 9}, "classes=9 does not fit the 7 rows"),
        ("dico", {"size": 9}, "size=9 is not divisible by 4"),
        ("edm", {}, r'a network without its preconditioning\. Try: precond="edm" and sigma_data=0\.5, or'),
        ("edm", {"precond": "edm"}, r"does not tell the standard deviation .*sigma_data=0\.5"),
        ("edm", {"precond": "edm", "sigma_data": -1.0}, "sigma_data=-1.0 is not a positive number"),
        ("edm", {"precond": "vpp"}, "unknown precond of family edm 'vpp'.*'vp'"),
        ("lightningdit", {"heads": 5}, "heads=5 does not fit the width 24"),
        ("lightningdit", {"classes": 9}, "classes=9 does not fit the 7 rows"),
        ("lightningdit", {"haeds": 3}, "unknown option of family lightningdit 'haeds'.*'heads'"),
    ],
)
def test_what_a_modern_sit_does_not_tell_is_asked_for_by_name(tmp_path, name, options, said):
    path = checkpoint(name, tmp_path)
    with pytest.raises(ss.InputError, match=said):
        ss.load(path, **options)


@pytest.mark.parametrize(
    ("name", "gone", "said"),
    [
        ("jit", "pos_embed", "lacks what every JiT has"),
        ("jit", "blocks.2.attn.proj.bias", "do not fit.*blocks.2.attn.proj.bias"),
        ("dico", "latent.0.ca.1.bias", "do not fit.*latent.0.ca.1.bias"),
        ("dico", "x_embedder.proj.weight", "lacks what every DiCo has"),
        ("edm", "model.map_layer1.weight", "do not fit.*map_layer1.weight"),
        ("edm", "model.enc.8x8_conv.weight", "lacks what every network of EDM has"),
        ("edm2", "unet.dec.4x4_in1.conv_res1.weight", "do not fit.*dec.4x4_in1.conv_res1.weight"),
        ("edm2", "unet.out_conv.weight", "lacks what every network of EDM2 has"),
        ("edm_adm", "model.dec.8x8_block1.conv0.weight", "do not fit.*dec.8x8_block1.conv0.weight"),
        ("lightningdit", "y_embedder.embedding_table.weight", "lacks what every LightningDiT has"),
        ("lightningdit", "blocks.1.mlp.w3.weight", "do not fit.*blocks.1.mlp.w3.weight"),
    ],
)
def test_weights_that_are_missing_are_one_line(tmp_path, name, gone, said):
    weights = complete(name)
    del weights[gone]
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(ss.InputError, match=said):
        ss.load(tmp_path / "x.safetensors", **OPTIONS.get(name, {}))
