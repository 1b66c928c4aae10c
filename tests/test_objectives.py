"""Objectives: the identities between them, what they ask for, and what they refuse."""

from __future__ import annotations

import json
import math
import sys
import types
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

import scorescope as ss
from scorescope import nets
from scorescope.cli import main
from scorescope.cli.train import Train
from scorescope.nets.mlp import MLPSize
from scorescope.nets.sit import SiTSize
from scorescope.rows import pixels
from scorescope.training import encoders, objectives
from scorescope.training.draws import nested_order, subset
from scorescope.training.examples import batch
from scorescope.training.interpolant import Interpolant
from scorescope.training.loop import Hooks, train
from scorescope.training.objectives import Setting
from scorescope.training.objectives.contrastive import Contrastive, ContrastiveLoss
from scorescope.training.objectives.dispersive import Dispersive, dispersion
from scorescope.training.objectives.dsm import DSM
from scorescope.training.objectives.mismatch import Mismatch
from scorescope.training.objectives.region import Region
from scorescope.training.objectives.repa import REPA, aligned
from scorescope.training.recipe import Recipe

ENCODER = """
import torch
from torch import nn
class Patches(nn.Module):
    def forward(self, images):
        return nn.functional.avg_pool2d(images, 2).flatten(2).mT + torch.tensor([1.0, 0.0, 0.0])
def build():
    return Patches()
"""


@pytest.fixture(scope="module")
def bank():
    rng = np.random.default_rng(1)
    return ss.Bank.from_arrays(rng.integers(0, 256, (30, 3, 4, 4), dtype=np.uint8), np.arange(30) % 3, flips=True, name="tiny")


@pytest.fixture
def encoder(tmp_path):
    (tmp_path / "own.py").write_text(ENCODER)
    return f"{tmp_path}/own.py:build"


def setting(bank, objective, interpolant=None, seed=0):
    torch.manual_seed(0)
    net = nets.build(SiTSize(width=16, depth=3, heads=2, patch=2).on(bank.shape, bank.classes))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return Setting(bank, objective.rows(bank, seed), interpolant or Interpolant(), net, seed, "cpu")


def terms(bank, objective, examples, **options):
    made = setting(bank, objective, **options)
    return objective.loss(made)(made.net, examples), made


# ---- interpolants -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "vp", "cosine"])
@pytest.mark.parametrize("prediction", ["v", "x", "eps"])
def test_a_target_read_as_a_prediction_is_the_clean_point(bank, schedule, prediction):
    interpolant, examples = Interpolant(schedule, prediction), batch(bank, 0, 0, 20, 0.0)
    t = examples.t.clamp(0.05, 0.9)
    z = interpolant.state(examples.x, examples.eps, t)
    for target in (interpolant.target(examples.x, examples.eps, t), interpolant.target_from(z, examples.x, t)):
        mean = ss.NetworkDenoiser(lambda *rest, target=target: target, interpolant.path, prediction)(z, t)
        torch.testing.assert_close(mean, examples.x, rtol=1e-3, atol=1e-3)


def test_a_trained_model_comes_back_with_its_schedule_and_prediction(tmp_path, bank):
    recipe = Recipe(SiTSize(width=8, depth=1, heads=2, patch=2), interpolant=Interpolant("cosine", "eps"), steps=2, batch=4)
    model = ss.load(train(recipe, bank, tmp_path))
    assert (model.prediction, type(model.schedule)) == ("eps", ss.CosineSchedule)


# ---- region-controlled --------------------------------------------------------------------------------------------------------


def test_subsets_are_nested_random_and_even_over_the_classes(bank):
    order = nested_order(bank, 0)
    assert sorted(order) == list(range(30))
    for count in (3, 10, 29):
        assert np.ptp(np.bincount(bank.labels[order[:count]], minlength=3)) <= 1
    assert not np.array_equal(order, nested_order(bank, 1))
    part = subset(bank, order[:10], "part")
    assert (len(part.rows), len(part), part.classes) == (10, 20, 3)
    assert torch.equal(part[np.arange(10)], bank[np.sort(order[:10])])


def test_the_region_holds_the_score_rows(bank):
    aim = Region(score_rows=6, region_rows=12)
    rows, own = aim.rows(bank, 3), aim.learned(bank, 3)
    inside = (own[np.arange(6)].flatten(1)[:, None] == rows[np.arange(12)].flatten(1)).all(2).any(1)
    assert bool(inside.all())
    assert len(Region(score_rows=6).rows(bank, 3)) == len(bank)


@pytest.mark.parametrize("aim", [Region(score_rows=9, region_rows=30), Mismatch(noise_factor=2.0)])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_draws_and_closed_form_have_the_same_gradient_in_expectation(bank, aim, dropout):
    """Eq. 7 against Eq. 6: z-scores of the mean over draws, for one fixed set of states; few of them lie beyond 4."""
    examples = batch(bank, 0, 0, 6, dropout)
    examples = examples._replace(t=torch.linspace(0.3, 0.98, 6, dtype=torch.float64))
    made = setting(bank, aim, Interpolant(prediction="x"))
    watched = [made.net.final_layer.linear.bias, made.net.blocks[1].mlp.fc2.bias]

    def gradient(loss, items):
        many = examples._replace(item=items)
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss(made.net, many)["loss"], watched)]).double()

    drawn = replace(aim, closed_form=False).loss(made)
    if isinstance(aim, Mismatch):
        drawn.factors = lambda item: torch.linspace(1, 2, len(item))
    exact = replace(aim, closed_form=True).loss(made)
    if isinstance(aim, Mismatch):
        exact.factors = drawn.factors
    expected = gradient(exact, examples.item)
    samples = torch.stack([gradient(drawn, 1000 * k + examples.item) for k in range(200)])
    assert float(samples.std(0).max()) > 0
    score = (samples.mean(0) - expected) / (samples.std(0) / math.sqrt(200) + 1e-9)
    assert float(score.abs().max()) < 4.5


@pytest.mark.parametrize("aim", [Region(score_rows=30), Mismatch(noise_factor=1.0)])
def test_with_one_subset_and_no_mismatch_the_closed_form_is_what_plain_training_learns(bank, aim):
    """The gradient of plain DSM, averaged over the posterior, is that of the closed form: at few rows and small t they agree exactly."""
    examples = batch(bank, 0, 0, 8, 0.0)
    examples = examples._replace(t=torch.full((8,), 0.05, dtype=torch.float64))
    plain, made = terms(bank, DSM(), examples)
    found = replace(aim, closed_form=True).loss(made)(made.net, examples)
    torch.testing.assert_close(found["loss"], plain["loss"], rtol=1e-4, atol=1e-5)
    drawn = aim.loss(made)(made.net, examples)
    torch.testing.assert_close(drawn["loss"], plain["loss"], rtol=1e-4, atol=1e-5)


def test_a_kept_label_confines_the_draw_to_its_class_and_a_dropped_one_does_not(bank):
    aim = Region(score_rows=30)
    targets = aim.loss(setting(bank, aim)).targets
    z, t = torch.zeros(60, 3, 4, 4), torch.full((60,), 0.999, dtype=torch.float64)
    rows = bank[np.arange(len(bank))].flatten(1)
    for label, classes in ((1, {1}), (3, {0, 1, 2})):
        y = targets(z, t, torch.full((60,), label), torch.arange(60))
        place = (y.flatten(1)[:, None] == rows).all(2).float().argmax(1)
        assert set(bank.labels[place.numpy() % 30].tolist()) == classes


def test_a_model_says_whose_score_it_learned(tmp_path, bank):
    aim = Region(score_rows=6, region_rows=12)
    recipe = Recipe(SiTSize(width=8, depth=1, heads=2, patch=2), aim, Interpolant(prediction="x"), steps=2, batch=4, seed=7)
    about = ss.load(train(recipe, bank, tmp_path / "region")).about
    own = aim.learned(bank, 7).save(tmp_path / "score.bank")
    assert about["learned"] == {"fingerprint": own.fingerprint, "name": "tiny-score", "rows": 6}
    assert about["bank"] == {"fingerprint": bank.fingerprint, "name": "tiny", "rows": 30}
    plain = ss.load(train(replace(recipe, objective=DSM()), bank, tmp_path / "plain")).about
    assert plain["learned"] == plain["bank"]


def test_a_draw_belongs_to_its_item(bank):
    aim = Region(score_rows=20)
    targets = aim.loss(setting(bank, aim)).targets
    z, t = torch.zeros(8, 3, 4, 4), torch.full((8,), 0.99, dtype=torch.float64)
    together = targets(z, t, None, torch.arange(8))
    assert torch.equal(targets(z[2:5], t[2:5], None, torch.arange(2, 5)), together[2:5])


def test_at_the_very_data_nothing_is_divided_by_zero(bank):
    examples = batch(bank, 0, 0, 4, 0.0)
    examples = examples._replace(t=torch.zeros(4, dtype=torch.float64))
    for aim in (Region(score_rows=5), Mismatch()):
        found, _ = terms(bank, aim, examples, interpolant=Interpolant(prediction="x"))
        assert bool(found["loss"].isfinite())


# ---- representations ----------------------------------------------------------------------------------------------------------


def test_without_weight_the_representation_losses_are_plain(bank, encoder):
    examples = batch(bank, 0, 0, 6, 0.2)
    plain, _ = terms(bank, DSM(), examples)
    for aim in (Dispersive(dispersive_weight=0.0), REPA(repa_weight=0.0, repa_depth=2, repa_width=8, encoder=encoder)):
        found, _ = terms(bank, aim, examples)
        assert torch.equal(found["loss"], plain["loss"])
        assert torch.equal(found["dsm"], plain["loss"])


def test_dispersion_is_the_mean_over_all_pairs():
    h = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0))
    flat = h.flatten(1).double()
    expected = math.log(sum(math.exp(-float((a - b).square().mean()) / 0.7) for a in flat for b in flat) / 25)
    assert float(dispersion(h, 0.7)) == pytest.approx(expected, rel=1e-5)
    assert float(dispersion(torch.ones(4, 3), 0.5)) == pytest.approx(0.0, abs=1e-6)


def test_dispersion_looks_at_the_asked_block_and_drives_states_apart(bank):
    examples = batch(bank, 0, 0, 6, 0.0)
    found, made = terms(bank, Dispersive(dispersive_depth=2), examples)
    seen = []
    made.net.stages[1].register_forward_hook(lambda module, given, answer: seen.append(answer))
    Dispersive(dispersive_depth=2).loss(made)(made.net, examples)
    torch.testing.assert_close(found["dispersive"], dispersion(seen[0], 0.5), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["loss"], found["dsm"] + 0.5 * found["dispersive"])


def test_alignment_is_the_negative_cosine_with_the_encoders_features(bank, encoder):
    examples = batch(bank, 0, 0, 6, 0.0)
    aim = REPA(repa_depth=2, repa_width=8, encoder=encoder)
    made = setting(bank, aim)
    loss = aim.loss(made)
    seen = []
    made.net.stages[1].register_forward_hook(lambda module, given, answer: seen.append(answer))
    found = loss(made.net, examples)
    clean = (examples.x + 1) / 2
    wanted = nn.functional.avg_pool2d(clean, 2).flatten(2).mT + torch.tensor([1.0, 0.0, 0.0])
    cosine = nn.functional.cosine_similarity(loss.projector(seen[0]), wanted, dim=2).mean()
    torch.testing.assert_close(found["repa"], -cosine, rtol=1e-4, atol=1e-6)
    found["repa"].backward()
    assert all(float(p.grad.abs().max()) > 0 for p in (*loss.projector.parameters(), made.net.blocks[0].mlp.fc1.weight))
    assert made.net.blocks[2].mlp.fc1.weight.grad is None


def test_features_on_disk_are_those_of_the_encoder_and_survive_a_kill(bank, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(encoders, "PART", 8)

    class Cut(Exception):
        pass

    def stop(done, total):
        if done >= 16:
            raise Cut

    with pytest.raises(Cut):
        encoders.encode(bank, encoder, tmp_path / "f", progress=stop)
    with pytest.raises(ss.InputError, match=r"are not finished \(16 of 60\)"):
        encoders.Stored(bank, tmp_path / "f")
    made = []
    encoders.encode(bank, encoder, tmp_path / "f", progress=lambda done, total: made.append(done))
    assert made[0] == 24
    examples = batch(bank, 0, 0, 40, 0.0)
    asked = encoders.Asked(bank, encoders.encoder_of(encoder), "cpu")
    torch.testing.assert_close(encoders.Stored(bank, tmp_path / "f")(examples), asked(examples), rtol=1e-3, atol=1e-3)
    with pytest.raises(ss.InputError, match="are of another bank"):
        encoders.Stored(subset(bank, np.arange(9), "other"), tmp_path / "f")
    with pytest.raises(ss.InputError, match="holds features of a bank with other settings"):
        encoders.encode(bank, nn.Identity(), tmp_path / "f")


def test_features_belong_to_the_code_of_their_encoder_and_force_makes_them_again(bank, encoder, tmp_path):
    encoders.encode(bank, encoder, tmp_path / "f")
    before = (tmp_path / "f" / "features.npy").read_bytes()
    (tmp_path / "own.py").write_text(ENCODER.replace("1.0, 0.0, 0.0", "20.0, 0.0, 0.0"))
    with pytest.raises(ss.InputError, match=r"features of a bank with other settings \(encoder.*--force"):
        encoders.encode(bank, encoder, tmp_path / "f")
    assert (tmp_path / "f" / "features.npy").read_bytes() == before
    encoders.encode(bank, encoder, tmp_path / "f", force=True)
    assert (tmp_path / "f" / "features.npy").read_bytes() != before


def test_features_that_are_damaged_are_made_again(bank, encoder, tmp_path):
    folder = encoders.encode(bank, encoder, tmp_path / "f")
    whole = (folder / "features.npy").read_bytes()
    for file, damage in (("features.npy", whole[:50]), ("features.npy", b""), ("done.json", b"{"), ("features.npy", None)):
        if damage is None:
            (folder / file).unlink()
        else:
            (folder / file).write_bytes(damage)
        with pytest.raises(ss.InputError, match="holds no features"):
            encoders.Stored(bank, folder)
        encoders.encode(bank, encoder, folder)
        assert (folder / "features.npy").read_bytes() == whole


def test_features_of_the_version_before_open(bank, encoder, tmp_path):
    folder = encoders.encode(bank, encoder, tmp_path / "f")
    expected = encoders.Stored(bank, folder)(batch(bank, 0, 0, 9, 0.0))
    for file in ("run.json", "done.json"):
        (folder / file).unlink()
    (folder / "features.json").write_text(json.dumps({"bank": bank.fingerprint, "encoder": encoder, "done": len(bank)}))
    assert torch.equal(encoders.Stored(bank, folder)(batch(bank, 0, 0, 9, 0.0)), expected)
    with pytest.raises(ss.InputError, match="features of a bank of an earlier version, which can't be continued"):
        encoders.encode(bank, encoder, folder)


def test_a_folder_of_somebody_else_is_left_alone(bank, encoder, tmp_path):
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "features.npy").write_bytes(b"mine")
    for force in (False, True):
        with pytest.raises(ss.InputError, match="is not empty and does not hold features of a bank"):
            encoders.encode(bank, encoder, tmp_path / "f", force=force)
    assert [path.read_bytes() for path in (tmp_path / "f").iterdir()] == [b"mine"]


@pytest.mark.parametrize(("low", "high", "black"), [(0.0, 1.0, 0.0), (-1.0, 1.0, -1.0), (-0.25, 0.75, -1.0)])
def test_floats_are_seen_in_the_range_that_holds_them(low, high, black, tmp_path):
    rows = np.linspace(low, high, 48, dtype=np.float32).reshape(1, 3, 4, 4).repeat(3, 0)
    for bank in (ss.Bank.from_arrays(rows), ss.Bank.from_arrays(rows).save(tmp_path / "x.bank")):
        seen = pixels.images(bank[np.arange(1)], *pixels.value_range(bank, "none"))
        wanted = (torch.from_numpy(rows[:1]) - black) / (1 - black)
        assert float((seen - wanted).abs().max()) <= 0.5 / 255 + 1e-6


def test_floats_of_no_known_range_are_no_images():
    bank = ss.Bank.from_arrays(np.linspace(-3, 2, 48, dtype=np.float32).reshape(1, 3, 4, 4))
    with pytest.raises(ss.InputError, match=r"go from -3 to 2; images of floats lie in \[0, 1\] or \[−1, 1\]\. Try: another way"):
        pixels.value_range(bank, "another way")


def test_features_are_laid_on_another_grid():
    ramp = torch.arange(4.0)[None, :, None].expand(1, 4, 2).reshape(1, 4, 2)
    wide = aligned(ramp, 16)
    assert wide.shape == (1, 16, 2)
    assert torch.equal(aligned(ramp, 4), ramp)
    assert float(wide.mean()) == pytest.approx(1.5)
    with pytest.raises(ss.InputError, match="both must be square grids"):
        aligned(ramp, 5)


def test_a_projector_is_trained_saved_and_taken_up_again(bank, encoder, tmp_path):
    aim = REPA(repa_depth=1, repa_width=8, encoder=encoder)
    recipe = Recipe(SiTSize(width=8, depth=1, heads=2, patch=2), aim, steps=20, batch=4, rate=1e-2)

    class Cut(Exception):
        pass

    def stop(snapshot):
        if snapshot.step >= 10:
            raise Cut

    stop.every = 5
    whole = train(recipe, bank, tmp_path / "whole")
    with pytest.raises(Cut):
        train(recipe, bank, tmp_path / "cut", hooks=Hooks(save_every=0.0, watchers=[stop]))
    assert train(recipe, bank, tmp_path / "cut").read_bytes() == whole.read_bytes()
    assert (whole.parent / "loss.csv").read_text().startswith("step,loss,dsm,repa\n")
    assert ss.load(whole)(torch.zeros(1, 3, 4, 4), 0.5).shape == (1, 3, 4, 4)


@pytest.mark.parametrize("name", objectives.names())
def test_options_of_objectives_networks_and_recipes_never_share_a_name(name):
    own = {field.name for field in fields(objectives.named(name))}
    common = {field.name for part in (Recipe, Interpolant, Train) for field in fields(part)}
    for family in nets.families():
        theirs = {field.name for field in fields(nets.module(family).SIZE)}
        assert not own & theirs
        assert not (own | theirs) & common


@pytest.mark.parametrize(
    ("aim", "said"),
    [
        (Region(score_rows=0), "--score-rows 0 is not a positive number"),
        (Region(score_rows=9, region_rows=5), "--region-rows 5 is smaller than --score-rows 9"),
        (Region(score_rows=2), r"--score-rows 2 leaves 1 of 3 classes without a row\. Try: --score-rows 3 or more"),
        (Region(score_rows=99), r"--score-rows 99 is more than the bank has \(30\)"),
        (Mismatch(noise_factor=0.5), "--noise-factor 0.5 is not a factor"),
        (Dispersive(temperature=0.0), "--temperature 0 is not"),
        (REPA(repa_depth=1, encoder="timm:vit"), r"^this encoder needs timm, which is not installed\. Try: pip install timm$"),
        (REPA(repa_depth=1, encoder="transformers:vit"), r"^this encoder needs transformers, which is not installed\. Try: pip install"),
        (Dispersive(dispersive_depth=9), "--dispersive-depth 9 is not one of the network's 1 blocks"),
        (REPA(), "--repa-depth 8 is not one of the network's 1 blocks"),
        (REPA(repa_depth=1, encoder="dinov2"), "unknown encoder 'dinov2'"),
        (REPA(repa_depth=1, encoder="none.py:build"), "there is no file none.py"),
        (REPA(repa_depth=1, features="nowhere"), "nowhere holds no features"),
    ],
)
def test_bad_values_are_one_line_and_write_nothing(tmp_path, bank, aim, said, monkeypatch):
    recipe = Recipe(SiTSize(width=8, depth=1, heads=2, patch=2), aim, steps=2, batch=4)
    hide_the_hubs(monkeypatch)
    with pytest.raises(ss.InputError, match=said) as caught:
        train(recipe, bank, tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def hide_the_hubs(monkeypatch):
    """As on a machine without the packages."""
    for package in encoders.HUBS:
        monkeypatch.setitem(sys.modules, package, None)


class Hub(types.ModuleType):
    """What we use of timm and of transformers; a token is the mean colour of an 8 × 8 patch, and `extra` tokens stand before them."""

    def __init__(self, extra):
        super().__init__("hub")
        self.extra, self.data = extra, self
        self.AutoModel = self.AutoImageProcessor = self

    def net(self):
        def tokens(pixels):
            patches = nn.functional.avg_pool2d(pixels, 8).flatten(2).mT
            return torch.cat([torch.full((len(pixels), self.extra, 3), 9.0), patches], 1)

        net = nn.Identity()
        net.forward_features, net.num_prefix_tokens, net.config = tokens, self.extra, types.SimpleNamespace(patch_size=8)
        net.forward = lambda pixel_values: types.SimpleNamespace(last_hidden_state=tokens(pixel_values))
        return net

    def create_model(self, name, pretrained, num_classes):
        return self.net()

    def resolve_model_data_config(self, net):
        return {"input_size": (3, 16, 16), "mean": (0.5, 0.25, 0.0), "std": (0.5, 0.5, 2.0)}

    def from_pretrained(self, name):
        if name == "processor":
            raise OSError("no such name.")
        net = self.net()
        net.size, net.image_mean, net.image_std = {"shortest_edge": 16}, (0.5, 0.25, 0.0), (0.5, 0.5, 2.0)
        return net


@pytest.mark.parametrize("hub", ["timm", "transformers"])
@pytest.mark.parametrize("extra", [0, 1, 5])
def test_models_of_the_hubs_see_what_their_weights_want_and_give_their_patches(monkeypatch, hub, extra):
    monkeypatch.setitem(sys.modules, hub, Hub(extra))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = (images - torch.tensor([0.5, 0.25, 0.0])[:, None, None]) / torch.tensor([0.5, 0.5, 2.0])[:, None, None]
    found = encoders.encoder_of(f"{hub}:name")(images)
    torch.testing.assert_close(found, nn.functional.avg_pool2d(wanted, 8).flatten(2).mT, rtol=1e-5, atol=1e-5)


def test_what_a_hub_refuses_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", Hub(1))
    with pytest.raises(ss.InputError, match=r"transformers can't give the encoder 'processor' \(no such name\)"):
        encoders.encoder_of("transformers:processor")


FIVE = """
import torch
class Five(torch.nn.Module):
    def forward(self, images):
        return torch.ones(len(images), 5, 3)
def flat():
    return torch.nn.Flatten()
build = Five
"""


@pytest.mark.parametrize(
    ("function", "said"), [("flat", r"answers 1 images with shape \(1, 48\)"), ("build", "5 tokens can't be laid on the network's 4")]
)
def test_an_encoder_whose_features_do_not_match_is_refused_before_anything_is_written(tmp_path, bank, function, said):
    (tmp_path / "own.py").write_text(FIVE)
    aim = REPA(repa_depth=1, repa_width=8, encoder=f"{tmp_path}/own.py:{function}")
    with pytest.raises(ss.InputError, match=said):
        train(Recipe(SiTSize(width=8, depth=1, heads=2, patch=2), aim, steps=2, batch=4), bank, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_features_are_made_from_the_command_line_and_trained_with(tmp_path, bank, encoder, capsys):
    bank.save(tmp_path / "x.bank")
    made = ["bank", "features", str(tmp_path / "x.bank"), "--out", str(tmp_path / "f"), "--encoder", encoder]
    assert main(made) == 0
    assert main(made) == 0  # nothing is left to do
    assert f"--objective repa --features {tmp_path / 'f'}" in capsys.readouterr().out
    words = [
        "train",
        "--preset",
        "sit-desk",
        "--width",
        "8",
        "--depth",
        "1",
        "--heads",
        "2",
        "--patch",
        "2",
        "--steps",
        "3",
        "--batch",
        "4",
    ]
    words += ["--objective", "repa", "--repa-depth", "1", "--repa-width", "8", "--features", str(tmp_path / "f"), "--watch-every", "0"]
    assert main([*words, "--bank", str(tmp_path / "x.bank"), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "loss.csv").read_text().startswith("step,loss,dsm,repa\n3,")


def test_latents_are_trained_with_features_of_their_images(tmp_path, bank, encoder):
    rows = np.random.default_rng(0).standard_normal((30, 4, 2, 2)).astype(np.float32)
    latents = ss.Bank.from_arrays(rows, bank.labels, flips=True, name="latents")
    with pytest.raises(ss.InputError, match=r"takes images of 1 or 3 channels; the rows of latents have shape \(4, 2, 2\).*--latents"):
        encoders.Asked(latents, encoders.encoder_of(encoder), "cpu")
    encoders.encode(bank, encoder, tmp_path / "f", latents=latents)
    examples = batch(latents, 0, 0, 40, 0.0)
    expected = encoders.Asked(bank, encoders.encoder_of(encoder), "cpu").rows(bank[examples.row.numpy()])
    torch.testing.assert_close(encoders.Stored(latents, tmp_path / "f")(examples), expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(ss.InputError, match="bank part has 20 rows, tiny 60"):
        encoders.encode(bank, encoder, tmp_path / "g", latents=subset(latents, np.arange(10), "part"))


def test_a_network_without_hidden_blocks_has_no_states_to_look_at(tmp_path):
    recipe = Recipe(MLPSize(width=8, depth=2), Dispersive(), steps=2, batch=4)
    with pytest.raises(ss.InputError, match="has no hidden blocks"):
        train(recipe, ss.Bank.from_arrays(np.ones((4, 2), np.float32)), tmp_path / "run")


def test_an_mlp_learns_vectors(tmp_path):
    rows = np.repeat(np.array([[2, 2], [-2, -2]], np.float32), 5, 0) + np.arange(10, dtype=np.float32)[:, None] / 100
    recipe = Recipe(MLPSize(width=32, depth=3), steps=150, batch=64, rate=1e-2, ema=0.9)
    path = train(recipe, ss.Bank.from_arrays(rows), tmp_path)
    curve = np.loadtxt(tmp_path / "loss.csv", delimiter=",", skiprows=1)
    assert curve[-1, 1] < 0.85 * curve[0, 1]
    assert ss.load(path)(torch.zeros(3, 2), 0.5).shape == (3, 2)


# ---- contrastive flow matching ------------------------------------------------------------------------------------------------


def test_the_contrastive_optimum_is_the_exact_velocity_moved_away_from_the_mean_one_by_a_known_amount():
    rows = np.random.default_rng(0).standard_normal((12, 6)).astype(np.float32) + 1
    points, weight = ss.Bank.from_arrays(rows, name="points"), 0.2
    exact, examples = ss.EmpiricalScore(points), batch(points, 3, 0, 4096, 0.0)
    examples = examples._replace(t=examples.t.clamp(0.02, 0.98))
    other = -torch.from_numpy(rows).mean(0)  # E[ε̃ − x̃]

    def moved(by):
        def net(z, t, label=None):
            velocity = (z - exact(z.double(), t.double()).to(z)) / t[:, None]
            return velocity + by * (velocity - other)

        return net

    loss = ContrastiveLoss(Interpolant(), points, weight, 0)
    at = [float(loss(moved(by), examples)["loss"]) for by in (0.0, 0.25, 0.5)]
    curve = np.polyfit([0.0, 0.25, 0.5], at, 2)
    assert -curve[1] / (2 * curve[0]) == pytest.approx(weight / (1 - weight), abs=0.03)


def test_contrastive_examples_are_the_items_own(bank):
    whole, made = batch(bank, 0, 0, 10, 0.0), setting(bank, Contrastive())
    loss = Contrastive().loss(made)
    for k, every in enumerate(loss.others(whole)):
        part = loss.others(batch(bank, 0, 6, 4, 0.0))[k]
        torch.testing.assert_close(every[6:], part)


@pytest.mark.parametrize("weight", [-0.1, 1.0, math.nan])
def test_a_contrastive_weight_without_a_minimum_is_refused(weight):
    with pytest.raises(ss.InputError, match="without a minimum"):
        Contrastive(weight).validate()


# ---- encoders without weights -------------------------------------------------------------------------------------------------


def test_oriented_gradients_follow_an_image_that_is_turned_and_know_an_edge():
    hog, image = encoders.encoder_of("hog"), torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    edge = torch.zeros(1, 3, 8, 8)
    edge[..., 4:] = 1
    assert (hog(edge)[0, :, :9].argmax(1) == 0).all()
    half = hog(image).reshape(4, 4, 4, 9), hog(image.rot90(2, (2, 3))).reshape(4, 4, 4, 9)
    # turned by half a circle every gradient keeps its orientation; cells and blocks change places
    torch.testing.assert_close(half[1].flip(0, 1, 2), half[0], rtol=1e-4, atol=1e-4)


def test_the_random_encoder_is_always_the_same():
    image = torch.rand(2, 3, 28, 28)
    one, other = (encoders.encoder_of("random")(image) for _ in range(2))
    torch.testing.assert_close(one, other)
    assert one.shape == (2, 49, 36) == encoders.encoder_of("hog")(image).shape
