"""Return to origin: a search finds what every time would tell, with a part of the work; unseen rows are asked the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope import regions, results
from scorescope.probes import return_to_origin
from scorescope.probes.base import Setting, Subject
from scorescope.sampler import ends
from tests.problems import Gaussian


def a_bank(seed=0, n=30):
    return ss.Bank.from_arrays(np.random.default_rng(seed).standard_normal((n, 8)).astype(np.float32))


class Counted(ss.Denoiser):
    """The exact score, counting the states that it is asked about."""

    name, shape = "counted", (8,)

    def __init__(self, truth):
        self.truth, self.asked = truth, 0

    def forward(self, z, t, label=None):
        self.asked += len(z)
        return self.truth(z, t)


def asked(bank, returns="search", held_out=None, model=None, origins=10):
    truth = ss.EmpiricalScore(bank)
    model = model or Counted(truth)
    setting = Setting(np.array([0.5, 1.0]), {"origins": origins}, 0, [], ss.Solver(batch=64), {}, returns)
    subject = Subject(model, truth, bank, torch.zeros(0, 8), None, setting, held_out=held_out)
    with torch.inference_mode():
        return return_to_origin.measure(subject), model


def test_a_search_finds_what_all_times_tell_with_a_part_of_the_work():
    bank = a_bank()
    (found, few), (every, many) = asked(bank), asked(bank, "grid")
    assert 0 < every["returned"].mean() < 1
    assert (found["returned"] != every["returned"]).mean() < 0.01  # a few steps of Heun may differ on the border between two rows
    assert np.isfinite(every["return_distance"]).all()
    assert np.isnan(found["return_distance"][3:]).mean() > 0.5
    assert few.asked < many.asked / 3
    lost = np.isfinite(every["return_lost"])
    np.testing.assert_allclose(found["return_last"][lost], every["return_last"][lost], atol=0.05)
    np.testing.assert_allclose((found["return_lost"] - found["return_last"])[lost], 0.0125)
    again, _ = asked(bank)
    np.testing.assert_array_equal(again["return_last"], found["return_last"])


def test_a_row_that_comes_back_again_is_found_out_near_the_change():
    """The known values, with what is inferred of them: a loss seen by the check is followed to where it begins and ends."""
    truth = np.array([1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], float)
    origins = return_to_origin.Origins.__new__(return_to_origin.Origins)
    origins.returned, origins.distance = np.full((1, 21), np.nan), np.full((1, 21), np.nan)
    origins.times, origins.pictures = return_to_origin.TIMES, torch.empty(0)

    def answer(search):
        asked = next(search, None)
        while asked is not None:
            back = truth[np.searchsorted(return_to_origin.TIMES, asked[1])]
            asked = return_to_origin._answered(search, (back, back, torch.empty(0)))

    answer(origins._fill(np.arange(21)[None] == 0))
    answer(origins._fill(np.arange(21)[None] == 9))
    answer(origins._halve())
    answer(origins._fill(return_to_origin._beside(origins.returned)))
    answer(origins._halve())
    np.testing.assert_array_equal(return_to_origin.inferred(origins.returned)[0], truth)
    assert np.isnan(origins.returned).any()


def test_a_copier_gives_back_its_rows_and_no_others_and_a_gaussian_both_alike():
    bank, unseen = a_bank(), a_bank(1)
    copier, _ = asked(bank, held_out=unseen)
    assert (copier["returned"][:, :5] == 1).all()
    assert (copier["returned_held_out"][:, 3:] == 0).all()
    assert copier["returned_held_out"].shape == copier["returned"].shape
    gaussian, _ = asked(bank, held_out=unseen, model=Gaussian(8, 1.0), origins=20)
    share, other = gaussian["returned"].mean(0), gaussian["returned_held_out"].mean(0)
    assert abs(share - other).max() < 0.4
    assert share[4] == other[4] == 1


def test_an_unseen_row_that_is_a_training_row_comes_back_as_one():
    bank = a_bank()
    found, _ = asked(bank, held_out=bank)
    for name in ("returned", "return_last"):
        np.testing.assert_array_equal(found[name], found[f"{name}_held_out"])


def test_what_the_schedule_does_not_reach_is_not_measured():
    model = Gaussian(8, 1.0, ss.VESchedule(0.002, 0.4))
    found, _ = asked(a_bank(), model=model)
    reached = return_to_origin.TIMES <= 0.4 / 1.4 + 0.005
    assert np.isfinite(found["returned"][:, reached]).all()
    assert np.isnan(found["returned"][:, ~reached]).all()
    assert np.isnan(found["return_image"][:, ~reached]).all()


def test_a_model_whose_noise_ends_early_is_sampled_from_noised_rows_and_not_judged_beyond():
    """The exact score, reached only up to σ = 0.4: from pure noise times 0.28 it would be asked where it never is."""
    rows = np.random.default_rng(0).standard_normal((30, 8)).astype(np.float32)
    bank = ss.Bank.from_arrays(rows, np.arange(30) % 3)
    truth = ss.EmpiricalScore(bank, ss.VESchedule(0.002, 0.4))
    options = {"paths": 6, "times": 20, "origins": 4, "nulls": 5, "quiet": True}
    run = ss.examine(truth, bank, ["relative-distance", "memorization", "return-to-origin"], **options)
    record = results.provenance(run.results)
    assert any("noise of empirical score ends at t = 0.29" in warning and "from training rows" in warning for warning in record["warnings"])
    assert record["models"][0]["start"] == pytest.approx(0.4 / 1.4, abs=1e-4)
    assert float(run.results["time"].max()) <= 0.29
    assert set(run.results["label"].sel(region="extrapolation").values.ravel()) == {0, 1, 2}
    near = run.results["nearest_index"].values[0, :, 0]
    np.testing.assert_array_equal(near, run.results["copier_row"].values[0])
    np.testing.assert_array_equal(near % 3, run.results["label"].sel(region="extrapolation").values[0])
    inside = run.results["r_star"].sel(region="extrapolation").values[..., -1]
    assert (abs(inside - 1) < 0.7).all()
    judged = {claim["name"]: claim for claim in run.claims}
    for name, why in (("leaves", "end at t = 0.25"), ("copies", "start from training rows"), ("returns", "short of t = 0.5")):
        assert judged[name]["verdict"] == "not judged"
        assert why in judged[name]["reason"]
    assert "Four samples</b>, from training rows noised to t = 0.29" in run.report().read_text(encoding="utf-8")
    starts = regions.path_starts(bank, 4, 0, None, 1.0)
    torch.testing.assert_close(starts, regions.noise(0, 4, (8,), "path"))
    assert not torch.equal(regions.path_starts(bank, 4, 0, None, 0.5), 0.5 * starts)
    torch.testing.assert_close(regions.path_starts(bank, 2, 0, None, 0.5), regions.path_starts(bank, 4, 0, None, 0.5)[:2])
    with pytest.raises(ss.InputError, match=r"noise of empirical score ends at t = 0\.29, where its states still show the data"):
        ss.sample(truth, 1)


@pytest.mark.parametrize("t", [0.2, 0.5, 0.9, 1.0])
def test_paths_that_begin_anywhere_end_where_the_exact_solution_does(t):
    model, noise = Gaussian(5, 0.5), torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    start = torch.full((6,), t, dtype=torch.float64)
    start[0] = 0
    z = model.state(noise, t)
    z[0] = noise[0]
    found = ends(model, z, start)
    torch.testing.assert_close(found[1:], model.state(noise, 0.0)[1:], rtol=0, atol=0.01)
    assert torch.equal(found[0], noise[0])
    torch.testing.assert_close(ends(model, z, start, batch=2), found, rtol=0, atol=1e-6)
    with pytest.raises(ss.InputError, match=r"one time in \[0, 1\] for each of 6 states"):
        ends(model, z, start[:3])
