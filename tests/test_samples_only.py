"""Models whose target is not E[x | z_t]: their samples are judged, and nothing else has a verdict."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope import results
from scorescope.claims import every
from scorescope.cli import main
from scorescope.probes import all_probes
from scorescope.report import page

WHY = "distilled to one step"
ROWS = np.random.default_rng(0).choice([-1.0, 1.0], (60, 1, 5, 5)).astype(np.float32)
BANK, HELD = ss.Bank.from_arrays(ROWS[:40], name="signs"), ss.Bank.from_arrays(ROWS[40:], name="held")
SMALL = {"paths": 40, "times": 3, "origins": 3, "nulls": 10, "solver": "euler", "steps": 1, "quiet": True}
OF_SAMPLES = {"copies", "calibrated"}


class OneStep(ss.Denoiser):
    """What a distilled model says: a finished sample, and not the mean of what may be behind the noise."""

    shape = BANK.shape

    def __init__(self, copies, name):
        self.copies, self.name = copies, name

    def forward(self, z, t, label=None):
        if not self.copies:
            return z.sign()
        rows = torch.from_numpy(ROWS[:40]).flatten(1).to(z)
        return rows[torch.cdist(z.flatten(1), rows).argmin(1)].reshape(z.shape)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    copier = ss.load(OneStep(True, "copier"), samples_only=WHY)
    copier.about = {**copier.about, "read_as": "read as one of two"}
    return ss.examine(copier, BANK, held_out=HELD, out=tmp_path_factory.mktemp("runs") / "run", **SMALL)


def test_only_what_follows_from_samples_has_a_verdict(run):
    told = {one["name"]: one for one in run.claims}
    of_bank = {claim.name for claim in every() if claim.about == "bank"}
    assert {name for name, one in told.items() if one["verdict"] != "not judged"} <= OF_SAMPLES | of_bank
    assert told["copies"]["verdict"] == "alarm"
    assert told["copies"]["value"] == 1
    rest = [one for name, one in told.items() if name not in OF_SAMPLES | of_bank]
    assert {"leaves", "fits", "remembers", "departs", "returns", "copier"} <= {one["name"] for one in rest}
    assert all(WHY in one["reason"] and one["value"] is None for one in rest)
    assert told["calibrated"]["value"] is not None


def test_what_needs_the_posterior_mean_is_not_measured_and_says_why(run):
    missing = results.not_measured(run.results)
    for probe in all_probes().values():
        here = set(probe.variables) & {*map(str, run.results.data_vars)}
        if not (probe.of_states or getattr(probe, "of_bank", False)):
            assert not here
            assert all(WHY in missing[name] for name in probe.variables)
    assert "copier_row" not in run.results
    assert WHY in missing["copier_row"]
    assert np.isfinite(run.results["r_star"].sel(model="copier").values).all()  # of states: r* is a fact, whatever is made of it
    record = results.provenance(run.results)
    assert record["reading"]["copier"]["verdict"] == "not judged"
    assert any(line.startswith("copier: its target is not E[x | z_t]") and WHY in line for line in record["warnings"])
    assert record["models"][0]["samples_only"] == WHY


def test_the_page_and_the_terminal_begin_with_the_samples(run):
    drawn = page.render(run.results, [])
    first = drawn[: drawn.index('id="findings"')]
    assert "Copies all (40 of 40); the rest is not judged, since its target is not the posterior mean (distilled to one step)." in first
    assert "read as one of two" in drawn
    assert run.findings()[0].startswith("◆ Samples copy training rows")
    assert len(run.findings()) == 2


def test_a_run_is_not_continued_without_its_mark(run):
    with pytest.raises(ss.InputError, match="samples_only"):
        ss.examine(OneStep(True, "copier"), BANK, held_out=HELD, out=run.folder, as_is=True, **SMALL)


def test_beside_another_model_both_are_measured_alike():
    mine = [ss.load(OneStep(False, "new"), samples_only=WHY), ss.GaussianScore(BANK)]
    run = ss.examine(mine, BANK, ["memorization", "relative-distance", "score-error"], **SMALL)
    assert "score_error" not in run.results
    told = {(one["name"], one["model"]): one for one in run.claims}
    assert {told[name, model]["verdict"] for name in ("leaves", "fits") for model in ("new", mine[1].name)} == {"not judged"}
    assert WHY in told["fits", mine[1].name]["reason"]  # since what is measured is the same for all models of a run
    assert (WHY in told["leaves", "new"]["reason"], WHY in told["leaves", mine[1].name]["reason"]) == (True, False)
    assert "not judged" not in {told["copies", "new"]["verdict"], told["copies", mine[1].name]["verdict"]}


@pytest.mark.parametrize("probe", ["score-error", "return-to-origin", "leaving"])
def test_nothing_is_asked_that_can_not_be_measured(probe):
    with pytest.raises(ss.InputError, match=rf"nothing of {probe} can be measured: the target is not E\[x \| z_t\] \(new: {WHY}\)"):
        ss.examine(ss.load(OneStep(False, "new"), samples_only=WHY), BANK, [probe], **SMALL)


def test_check_says_that_it_can_not_tell(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ss.check(ss.load(OneStep(False, "new"), samples_only=WHY), BANK).verdict == "not judged"
    BANK.save(tmp_path / "signs.bank")
    (tmp_path / "m.py").write_text("from tests.test_samples_only import OneStep\ndef build(): return OneStep(True, 'mine')\n")
    words = ["check", "m.py:build", "--bank", "signs.bank", "--load", "samples_only=trained with OT coupling"]
    assert main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["mine"]
    assert told["verdict"] == "not judged"
    assert "(trained with OT coupling)" in told["reason"]
