"""JiT, LightningDiT: the official code's answers, what names and shapes tell, and what is asked for."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import scorescope as ss
from scorescope.adapters.families import Checkpoint, jit, lightningdit
from scorescope.nets.modern import ModernConfig, ModernSiT, rotations
from scorescope.nets.sit import sincos_positions
from tests.official_modern import reference

TABLES = {"lightningdit": (4, 8), "lightningdit_layer": (4, 8)}  # side in tokens and width of a head where the code keeps tables
OPTIONS = {
    "jit": {"noise_scale": 1.0, "context_start": 1},
    "lightningdit": {},
    "lightningdit_noshift": {},
    "lightningdit_layer": {},
}


def complete(network: str) -> dict[str, torch.Tensor]:
    """The weights with the tables that the official code keeps beside them."""
    weights, _ = reference(network)
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
    torch.save({"model": weights, "args": argparse.Namespace(noise_scale=scale)}, tmp_path / "x.pth")
    model = ss.load(tmp_path / "x.pth", context_start=1)
    tau = io["t"].double()
    total = tau + (1 - tau) * scale
    z, t = (io["x"] / total[:, None, None, None]).float(), (1 - tau) * scale / total
    with torch.no_grad():
        torch.testing.assert_close(model(z, t, io["y"]), io["out"], rtol=1e-5, atol=1e-5)
    assert (model.classes, model.null_label, model.shape, model.about["family"]) == (6, 6, (3, 8, 8), "jit")


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
        ("jit", {"noise_scale": 0.0, "context_start": 1}, "noise_scale=0.0 is not a positive number"),
        ("jit", {"family": "lightningdit"}, "a state dict of family lightningdit has"),
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
        ("lightningdit", "y_embedder.embedding_table.weight", "lacks what every LightningDiT has"),
        ("lightningdit", "blocks.1.mlp.w3.weight", "do not fit.*blocks.1.mlp.w3.weight"),
    ],
)
def test_weights_that_are_missing_are_one_line(tmp_path, name, gone, said):
    weights = complete(name)
    del weights[gone]
    save_file(weights, tmp_path / "x.safetensors")
    with pytest.raises(ss.InputError, match=said):
        ss.load(tmp_path / "x.safetensors", **OPTIONS[name])
