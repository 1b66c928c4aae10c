"""The main job: a perfect model is perfect, a killed run continues, and nothing depends on batch size or order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import xarray as xr

import scorescope as ss
from scorescope import results
from scorescope.probes import all_probes
from tests.problems import Gaussian

SMALL = {"paths": 6, "times": 6, "origins": 5, "nulls": 10, "quiet": True}
ROUGH = {**SMALL, "solver": "euler", "steps": 8}  # where it does not matter how samples are drawn


def small_bank(n=40, classes=2, shape=(1, 6, 6), seed=0):
    rng = np.random.default_rng(seed)
    return ss.Bank.from_arrays(rng.standard_normal((n, *shape)).astype(np.float32), np.arange(n) % classes if classes else None)


@pytest.fixture(scope="module")
def perfect():
    bank = small_bank()
    return ss.examine(ss.EmpiricalScore(bank), bank, **SMALL).results


def test_a_perfect_model_has_no_error_in_any_region(perfect):
    assert perfect.score_error.notnull().all()
    assert float(perfect.score_error.max()) < 1e-9


def test_a_perfect_model_memorizes_everything(perfect):
    assert (perfect.ratio_second < 1 / 3).all()
    assert (perfect.ratio_calibrated < 1e-4).all()
    assert (perfect.copier_row == perfect.nearest_index.isel(near=0)).all()
    assert (perfect.returned.sel(origin_time=slice(0, 0.5)) == 1).all()


def test_a_perfect_model_has_the_empirical_guidance_gap_and_the_optimal_loss(perfect):
    np.testing.assert_allclose(perfect.gap_learned, perfect.gap_empirical, rtol=1e-4, atol=1e-4)
    inside = perfect.sel(region="supervision")
    difference = (inside.dsm_loss - inside.dsm_optimum).mean(["path", "time"])
    spread = (inside.dsm_loss - inside.dsm_optimum).mean("time").std("path") / np.sqrt(inside.sizes["path"])
    assert float(abs(difference).max()) < float(4 * spread.max()) + 1e-9


def test_supervision_states_lie_on_shells_and_finished_paths_on_rows(perfect):
    inside = perfect.r_star.sel(region="supervision")
    assert 0.75 < float(inside.mean()) < 1.2
    assert float(perfect.nearest_distance.isel(near=0).max()) < 0.05


def test_results_are_traceable(perfect):
    record = results.provenance(perfect)
    assert record["bank"]["rows"] == 40
    assert record["settings"]["probes"] == sorted(all_probes())
    assert perfect.score_error.attrs["units"] == "squared data units"
    assert set(perfect.nearest_index.values.ravel()) <= set(perfect.row_index.values)


def test_every_path_depends_on_its_seed_alone():
    bank = small_bank()
    model = Gaussian(36, 1.0)
    model.shape = (1, 6, 6)
    model.forward = lambda z, t, label=None: Gaussian.forward(model, z.flatten(1), t).reshape(z.shape)
    many = ss.examine(model, bank, **SMALL, labels="none").results
    batched = ss.examine(model, bank, **SMALL, labels="none", batch=2).results
    fewer = ss.examine(model, bank, **(SMALL | {"paths": 3}), labels="none").results
    other = ss.examine(model, bank, **SMALL, labels="none", seed=1).results
    for name in ("r_star", "score_error", "sample"):
        np.testing.assert_allclose(many[name], batched[name], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(many[name].isel(path=slice(3)), fewer[name], rtol=1e-4, atol=1e-6)
        assert not np.allclose(many[name], other[name])


def test_an_unconditional_model_is_measured_without_classes():
    bank = small_bank(classes=0)
    run = ss.examine(ss.EmpiricalScore(bank), bank, **ROUGH)
    assert "gap_learned" not in run.results
    assert (run.results.label == -1).all()
    reasons = results.provenance(run.results)["not_measured"]
    assert reasons == dict.fromkeys(("gap_empirical", "score_norm", "gap_learned"), "the models are not asked for classes")


@pytest.mark.parametrize("shape", [(12,), (2, 5), (4, 4, 4)])
def test_any_shape(shape, tmp_path):
    bank = small_bank(shape=shape)
    run = ss.examine(ss.EmpiricalScore(bank), bank, **ROUGH)
    assert run.results.sample.shape[2:] == shape
    assert run.report(tmp_path / "report.html").stat().st_size > 10_000


def test_schedules_meet_on_one_axis():
    """The exact score of one bank through four schedules: the same numbers at the same linear times."""
    bank = small_bank(classes=0)
    truths = [ss.EmpiricalScore(bank, s) for s in (ss.LinearSchedule(), ss.VPSchedule(), ss.VESchedule(0.002, 1000.0))]
    run = ss.examine(truths, bank, ["relative-distance", "score-error"], **SMALL)
    found = run.results.sel(region="supervision")
    assert list(found.model.values) == ["empirical score", "empirical score (2)", "empirical score (3)"]
    assert float(found.score_error.max()) < 1e-6
    np.testing.assert_allclose(found.r_star[0], found.r_star[1], rtol=1e-6)


def test_shared_states_are_the_same_for_every_model():
    bank = small_bank(classes=0)
    truth, blurred = ss.EmpiricalScore(bank), Gaussian(36, 1.0)
    blurred.shape, blurred.name = (1, 6, 6), "blurred"
    blurred.forward = lambda z, t, label=None: Gaussian.forward(blurred, z.flatten(1), t).reshape(z.shape)
    probes = ["relative-distance", "memorization"]
    alone = ss.examine([truth, blurred], bank, probes, **SMALL).results
    together = ss.examine([truth, blurred], bank, probes, **SMALL, shared_states="blurred").results
    for name in ("sample", "ratio_second", "nearest_index"):  # finished samples stay their own model's
        np.testing.assert_array_equal(alone[name], together[name])
    own, shared = (found.r_star.sel(region="extrapolation") for found in (alone, together))
    assert not np.allclose(own[0], own[1])
    np.testing.assert_array_equal(shared[0], shared[1])
    np.testing.assert_allclose(shared[1], own[1], rtol=1e-6)


SCRIPT = """
import sys, time
import numpy as np, torch
import scorescope as ss
torch.set_num_threads(1)

class Slow(ss.Denoiser):
    shape, name = (1, 6, 6), "slow"
    def __init__(self, truth): self.truth, self.classes = truth, truth.classes
    def forward(self, z, t, label=None):
        time.sleep(float(sys.argv[2]))
        return 0.9 * self.truth(z, t, label)

rng = np.random.default_rng(0)
bank = ss.Bank.from_arrays(rng.standard_normal((40, 1, 6, 6)).astype(np.float32), np.arange(40) % 2)
model = Slow(ss.EmpiricalScore(bank))
ss.examine(model, bank, paths=6, times=6, origins=5, nulls=10, quiet=True, solver="heun", steps=12, out=sys.argv[1])
"""


def test_killed_at_any_instant_the_run_continues_to_the_same_numbers(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(SCRIPT)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    subprocess.run([sys.executable, script, whole, "0"], check=True, env=environment)
    for cells in (1, 12):
        job = subprocess.Popen([sys.executable, script, cut, "0.005"], env=environment)
        deadline = time.monotonic() + 120
        while (
            len(list(cut.glob("**/*.np*")) + list(cut.glob("**/*.safetensors"))) < cells
            and job.poll() is None
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        assert job.poll() is None, "the run must still be going on when it is killed"
        job.send_signal(signal.SIGKILL)
        job.wait()
        assert not (cut / "results.nc").exists()
    subprocess.run([sys.executable, script, cut, "0"], check=True, env=environment)
    first, second = results.load(whole / "results.nc"), results.load(cut / "results.nc")
    xr.testing.assert_allclose(first, second, rtol=1e-6, atol=1e-6)  # a sweep over the times that are left has other last bits


def test_a_finished_run_is_not_done_again_and_another_is_not_overwritten(tmp_path):
    bank = small_bank()
    truth = ss.EmpiricalScore(bank)
    ss.examine(truth, bank, ["shell-overlap"], **SMALL, out=tmp_path / "run")
    before = (tmp_path / "run" / "results.nc").stat().st_mtime_ns
    ss.examine(truth, bank, ["shell-overlap"], **SMALL, out=tmp_path / "run")
    assert (tmp_path / "run" / "results.nc").stat().st_mtime_ns == before
    with pytest.raises(ss.InputError, match=r"other settings \(seed 0 → 5\)"):
        ss.examine(truth, bank, ["shell-overlap"], seed=5, **SMALL, out=tmp_path / "run")
    assert (tmp_path / "run" / "results.nc").stat().st_mtime_ns == before
    forced = ss.examine(truth, bank, ["shell-overlap"], seed=5, **SMALL, out=tmp_path / "run", force=True)
    assert results.provenance(forced.results)["seed"] == 5
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(ss.InputError, match="not empty"):
        ss.examine(truth, bank, **SMALL, out=tmp_path / "other", force=True)


def test_damaged_files_of_a_run_are_made_again(tmp_path):
    bank = small_bank(classes=0)
    probes, options = ["score-error", "shell-overlap"], {**SMALL, "out": tmp_path, "solver": "euler", "steps": 4}
    whole = ss.examine(ss.EmpiricalScore(bank), bank, probes, **options).results
    files = [path for path in tmp_path.rglob("*") if path.suffix in (".npz", ".nc", ".safetensors")]
    assert len(files) > 15
    for k, path in enumerate(files):
        content = path.read_bytes()
        path.write_bytes((b"", content[: len(content) // 2], b"\0" * 100)[k % 3])
    xr.testing.assert_equal(ss.examine(ss.EmpiricalScore(bank), bank, probes, **options).results, whole)


def test_what_wraps_a_model_forwards_all_that_it_does_not_change():
    inner = ss.EmpiricalScore(small_bank(), memory=10**7)
    inner.about = {"file": "x"}
    guided = ss.Guided(inner, 2.0)
    assert (guided.about, guided.classes, guided.shape) == (inner.about, inner.classes, inner.shape)
    assert inner.to("cpu").memory == 10**7


class Broken(ss.Denoiser):
    shape, name = (1, 6, 6), "broken"

    def forward(self, z, t, label=None):
        return torch.where((t < 0.4).reshape(-1, 1, 1, 1), torch.nan, 0.0 * z)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Broken(), {}, r"broken returned NaN or Inf at t = 0\.\d+ .*row 0"),
        (Broken(), {"probes": ["score-eror"]}, "'score-error'"),
        (Broken(), {"solver": "dopri"}, "'dopri5'"),
        (Broken(), {"labels": [0]}, "it has none"),
        (Broken(), {"labels": "some"}, "neither auto"),
        (Broken(), {"paths": 1}, "paths must be at least 2"),
        (Broken(), {"tolerance": 0.0}, "tolerance"),
        (Broken(), {"shared_states": "nobody"}, "shared states"),
        (Gaussian(5, 1.0), {}, "takes states of shape"),
        ([], {}, "no model"),
        (torch.nn.Identity(), {}, "not a Denoiser"),
    ],
)
def test_bad_input_is_one_clear_error(model, options, message, tmp_path):
    models = [model] if isinstance(model, torch.nn.Module) else model
    with pytest.raises(ss.InputError, match=message):
        ss.examine(models, small_bank(), out=tmp_path / "run", **(SMALL | options))
    assert not (tmp_path / "run" / "results.nc").exists()


def test_labels_outside_the_model_s_classes():
    bank = small_bank(classes=3)
    model = ss.EmpiricalScore(small_bank(classes=2))
    with pytest.raises(ss.InputError, match="label 2, outside the model's classes 0 to 1"):
        ss.examine(model, bank, **SMALL)


@pytest.mark.parametrize("n", [1, 2])
def test_the_smallest_banks(n, tmp_path):
    bank = small_bank(n=n, classes=0)
    run = ss.examine(ss.EmpiricalScore(bank), bank, **ROUGH)
    assert float(run.results.score_error.max()) < 1e-9
    assert ("single row" in " ".join(results.provenance(run.results)["warnings"])) == (n == 1)
    assert run.report(tmp_path / "r.html").exists()


def test_duplicates_and_constant_data_are_reported_not_fatal(tmp_path):
    constant = ss.Bank.from_arrays(np.ones((30, 1, 6, 6), np.float32), np.arange(30) % 2)
    run = ss.examine(ss.EmpiricalScore(constant), constant, **ROUGH)
    assert int(run.results.duplicates) == 29
    assert float(run.results.overlap.min()) == 1.0
    assert float(run.results.overlap_distinct.max()) == 0.0
    assert run.report(tmp_path / "r.html").exists()
