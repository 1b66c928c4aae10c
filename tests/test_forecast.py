"""A run says before it starts how long it will take, and what could be left out of it."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope import forecast, results


class Slow(ss.Denoiser):
    """A model that takes two milliseconds for every state."""

    name, shape = "slow", (4,)

    def forward(self, z, t, label=None):
        time.sleep(0.002 * len(z))
        return 0 * z


def test_the_line_names_what_takes_time_and_what_leaves_it_out():
    stages = {"sampling": 30.0, "measuring along paths": 20.0, "return-to-origin": 70.0, "shell-overlap": 0.1}
    said = forecast.words(stages, {"return-to-origin": ["score-error", "memorization"]})
    assert said.splitlines() == [
        "this will take about 2 min 00 s: sampling 30 s, measuring along paths 20 s, return-to-origin 1 min 10 s",
        "return-to-origin is 58 % of it: --probes score-error memorization leaves it out",
    ]
    assert forecast.words(stages | {"measuring along paths": 300.0}, {}).endswith("fewer --paths or --times make it shorter")
    assert forecast.words({"sampling": 1.0, "measuring along paths": 0.0}, {}) == "this will take about 1 s: sampling 1 s"


def test_a_model_is_timed_by_the_state_and_a_solver_counted_by_its_steps():
    assert forecast.seconds_each(Slow(), torch.zeros(5, 4), 0.5, None) == pytest.approx(0.002, rel=0.5)
    assert [forecast.evaluations(solver, 10) for solver in ("euler", "heun", "ancestral")] == [11, 21, 11]


def test_what_is_said_before_a_run_is_what_it_takes(tmp_path, capsys):
    bank = ss.Bank.from_arrays(np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32))
    options = {"paths": 8, "times": 20, "origins": 6, "nulls": 5, "solver": "heun", "steps": 10, "out": tmp_path / "run"}
    probes = ["score-error", "return-to-origin"]
    run = ss.examine(Slow(), bank, probes, **options)
    said = re.search(r"this will take about (\d+) s: sampling (\d+) s, measuring along paths (\d+) s, return", capsys.readouterr().err)
    taken = sum(results.provenance(run.results)["timings"].values())
    assert said is not None
    assert 0.5 < int(said[1]) / taken < 2
    quiet = ss.examine(Slow(), bank, probes, **{**options, "out": tmp_path / "quiet", "quiet": True})
    assert quiet.results["score_error"].equals(run.results["score_error"])
    (tmp_path / "run" / "results.nc").unlink()
    ss.examine(Slow(), bank, probes, **options)
    assert "this will take about 0 s" in capsys.readouterr().err
