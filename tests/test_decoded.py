"""Features of latents are those of the images that an autoencoder makes of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

import scorescope as ss
from scorescope.cli import main
from scorescope.evaluate.decoded import decoded
from scorescope.evaluate.extractors import Extractor, extractor
from scorescope.evaluate.features import Features


class Corners(nn.Module):
    """Some pixels as features."""

    def forward(self, images):
        return images[:, :, ::3, ::3].flatten(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    places = {"block_out_channels": (8, 8), "norm_num_groups": 4, "layers_per_block": 1, "sample_size": 8}
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    made = diffusers.AutoencoderKL(latent_channels=2, scaling_factor=0.5, shift_factor=0.25, **places, **blocks)
    out = tmp_path_factory.mktemp("autoencoder")
    made.save_pretrained(out / "vae")
    return out, made.eval()


@pytest.fixture
def bank():
    return ss.Bank.from_arrays(np.random.default_rng(0).normal(size=(40, 2, 4, 4)).astype(np.float32))


def test_features_are_those_of_the_decoded_images(folder, bank):
    place, net = folder
    found = Features(bank, decoded(Extractor.of(Corners()), place), None)
    with torch.no_grad():
        pictures = net.decode(bank[found.order] / 0.5 + 0.25).sample
    expected = Corners()((255 * (pictures / 2 + 0.5).clamp(0, 1)).round() / 255)
    torch.testing.assert_close(found.first(40), expected, rtol=0, atol=1.5 / 255)  # batches round otherwise, and a step of 8 bits is 1/255
    assert found.first(40).std() > 0.01


def test_latents_are_compared_as_images_from_the_command_line(folder, bank, tmp_path, capsys):
    bank.save(tmp_path / "latents.bank")
    np.save(tmp_path / "made.npy", bank[np.arange(20)].numpy() + 0.1)
    out = tmp_path / "out"
    words = ["evaluate", str(tmp_path / "made.npy"), "--bank", str(tmp_path / "latents.bank"), "--out", str(out), "--json"]
    assert main([*words, "--decode", str(folder[0]), "--cache", str(tmp_path / "cache"), "--size", "32"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "FD-lite0 (32 px)"


def test_what_cannot_be_decoded_is_said(folder, bank, tmp_path):
    with pytest.raises(ss.InputError, match="no autoencoder in"):
        decoded(extractor("lite0"), tmp_path)
    with pytest.raises(ss.InputError, match="pixels takes rows as they are"):
        decoded(extractor("pixels"), folder[0])
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(ss.InputError, match="holds UNet2DModel, not an autoencoder"):
        decoded(extractor("lite0"), tmp_path)
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(ss.InputError, match="can't be opened"):
        decoded(extractor("lite0"), tmp_path)
    with pytest.raises(ss.InputError, match="latents of 2 channels"):
        Features(ss.Bank.from_arrays(np.zeros((5, 3, 4, 4), np.float32)), decoded(extractor("lite0"), folder[0]), None).first(5)
