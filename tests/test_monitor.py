"""The microscope while training: it sees what an examination would see, changes nothing, and its record has no gaps or repeats."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope import monitor, results
from scorescope.cli import main
from scorescope.monitor import Microscope, summary
from scorescope.nets.sit import SiTSize
from scorescope.theories.gaussian import GaussianScore
from scorescope.training.interpolant import Interpolant
from scorescope.training.loop import Hooks, train
from scorescope.training.objectives.region import Region
from scorescope.training.recipe import Recipe

RECIPE = Recipe(SiTSize(width=8, depth=1, heads=2, patch=2), steps=40, batch=4, rate=3e-3, ema=0.9, seed=3)


@pytest.fixture(scope="module")
def bank():
    rng = np.random.default_rng(5)
    return ss.Bank.from_arrays(rng.uniform(-1, 1, (60, 1, 4, 4)).astype(np.float32), np.arange(60) % 3, name="tiny")


@pytest.fixture(scope="module")
def watched(tmp_path_factory, bank):
    """A run that was watched."""
    folder = tmp_path_factory.mktemp("runs") / "watched"
    train(RECIPE, bank, folder, hooks=Hooks(watchers=[Microscope(bank, RECIPE, 10)]))
    return folder


def test_being_watched_changes_no_weight(tmp_path, bank, watched):
    assert train(RECIPE, bank, tmp_path).read_bytes() == (watched / "model.safetensors").read_bytes()


def test_it_sees_what_an_examination_of_the_same_paths_sees(tmp_path, bank, watched, monkeypatch):
    """At the end of training the EMA network is the finished model."""
    seen = results.load(watched / "watch.nc").sel(step=40)
    options = {"paths": monitor.PATHS, "solver": "heun", "steps": monitor.STEPS, "origins": 2, "nulls": 5, "out": tmp_path / "run"}
    examined = ss.examine(ss.load(watched), bank, seed=RECIPE.seed, times=monitor.TIMES, labels=[0, 1, 2], **options).results.isel(model=0)
    examined = examined.sel(time=seen["time"], method="nearest", tolerance=1e-9)
    for name in ("score_error", "r_star", "dsm_loss", "ratio_second", "ratio_calibrated"):
        expected = examined[name].sel(region=seen["region"]) if "region" in examined[name].dims else examined[name]
        np.testing.assert_allclose(seen[name].values, expected.transpose(*seen[name].dims).values, rtol=1e-4, atol=1e-6)


def test_a_run_that_was_cut_writes_on_without_gaps_or_repeats(tmp_path, bank, watched):
    class Cut(Exception):
        pass

    def stop(snapshot):
        if snapshot.step >= 25:
            raise Cut

    stop.every = 5
    with pytest.raises(Cut):
        train(RECIPE, bank, tmp_path, hooks=Hooks(watchers=[Microscope(bank, RECIPE, 10), stop], save_every=0.0))
    for file in sorted((tmp_path / "checkpoints").glob("step-0000002[4-9].*")):
        file.unlink()
    (tmp_path / "checkpoints").joinpath("step-00000015.json").unlink(missing_ok=True)
    train(RECIPE, bank, tmp_path, hooks=Hooks(watchers=[Microscope(bank, RECIPE, 10)]))
    ours, theirs = (results.load(folder / "watch.nc") for folder in (tmp_path, watched))
    assert ours["step"].values.tolist() == [10, 20, 30, 40]
    for name in theirs.data_vars:
        if name != "loss":
            np.testing.assert_array_equal(ours[name].values, theirs[name].values)


def test_a_look_finds_the_exact_score_perfect_and_a_blind_network_not(bank):
    scope = Microscope(bank, RECIPE, 10)

    class Exact(torch.nn.Module):
        config = RECIPE.net.on(bank.shape, bank.classes)

        def forward(self, z, t, label):
            mean = scope.truth.score(z, t.double(), None if bool((label == 3).all()) else label).float()
            return (z - mean) / t[:, None, None, None]

    class Blind(Exact):
        def forward(self, z, t, label):
            return torch.zeros_like(z)

    perfect, blind = (summary(scope.look(kind())) for kind in (Exact, Blind))
    assert perfect["supervision_loss"] < 1e-6 < 0.1 < blind["supervision_loss"]
    assert abs(perfect["dsm_loss_minus_optimum"]) < 1.0
    assert (perfect["memorized_share"], blind["memorized_share"]) == (1.0, 0.0)
    assert perfect["r_star_10"] <= perfect["r_star_50"] <= perfect["r_star_90"]


def test_the_baseline_is_asked_about_noised_rows_once(bank, monkeypatch):
    baseline, plain = monitor.RememberedBaseline(bank), GaussianScore(bank)
    t, label = torch.tensor([0.3, 0.3, 0.4, 0.5]), torch.arange(4) % bank.classes
    pairs, path = torch.randn(2, 4, *bank.shape, generator=torch.Generator().manual_seed(0))
    first = [baseline(z, t, label) for z in (path, pairs)][1]
    for z, when, own in (
        (path + 1, t, label),
        (pairs, t.flip(0), label),
        (pairs, t, label.flip(0)),
        (pairs, t, None),
        (pairs[:0], 0.3, None),
    ):
        torch.testing.assert_close(baseline(z, when, own), plain(z, when, own), rtol=0, atol=0)
    monkeypatch.setattr(GaussianScore, "forward", None)
    same = baseline(pairs, t, label)
    torch.testing.assert_close(same, first, rtol=0, atol=0)
    kept = pairs.clone()
    same.zero_(), pairs.zero_()  # what the caller does with its tensors is its own
    torch.testing.assert_close(baseline(kept, t, label), first, rtol=0, atol=0)


def test_other_predictions_and_unconditional_networks_are_watched_too(tmp_path):
    rows = np.random.default_rng(0).uniform(-1, 1, (20, 1, 4, 4)).astype(np.float32)
    bank = ss.Bank.from_arrays(rows)
    recipe = Recipe(RECIPE.net, interpolant=Interpolant("cosine", "eps"), steps=2, batch=4)
    train(recipe, bank, tmp_path, hooks=Hooks(watchers=[Microscope(bank, recipe, 1)]))
    assert np.isfinite(results.load(tmp_path / "watch.nc")["score_error"].values).all()


def test_a_region_controlled_network_is_held_against_the_rows_that_it_learns(bank):
    aim = Region(score_rows=20, region_rows=40)
    scope = Microscope(bank, Recipe(RECIPE.net, aim, steps=2, batch=4, seed=3), 1)
    assert scope.bank.fingerprint == aim.learned(bank, 3).fingerprint
    rows = scope.bank[np.arange(20)].flatten(1)
    assert all(bool((row == rows).all(1).any()) for row in scope.source.x.flatten(1))
    assert len(scope.truth.score.bank.rows) == 20


def test_the_command_line_watches_and_says_so(tmp_path, capsys):
    words = ["train", "--preset", "demo-s", "--width", "12", "--depth", "1", "--steps", "2", "--batch", "4", "--watch-every", "1"]
    assert main([*words, "--out", str(tmp_path / "run")]) == 0
    assert results.load(tmp_path / "run" / "watch.nc").sizes["step"] == 2
    assert main(["report", str(tmp_path / "run")]) == 2
    assert "of an examination" in capsys.readouterr().err


def test_tensorboard_gets_the_same_numbers(tmp_path, bank):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(RECIPE, bank, tmp_path, hooks=Hooks(watchers=[Microscope(bank, RECIPE, 20, tensorboard=tmp_path / "tb")]))
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    written = {event.step: event.value for event in events.Scalars("supervision_loss")}
    for step, value in written.items():
        assert value == pytest.approx(summary(results.load(tmp_path / "watch.nc").sel(step=step))["supervision_loss"], rel=1e-5)
    assert sorted(written) == [20, 40]
