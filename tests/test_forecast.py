"""A run says before it starts how long it will take, and what could be left out of it."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope import forecast


class Slow(ss.Denoiser):
    """A model that takes a tenth of a second for every state, by a clock of its own."""

    name, shape = "slow", (4,)

    def __init__(self):
        self.clock = 0.0

    def forward(self, z, t, label=None):
        self.clock += 0.1 * len(z)
        return 0 * z

    def identity(self):
        return {"slow": True}


@pytest.fixture
def slow(monkeypatch):
    """The model, whose clock the forecast reads."""
    model = Slow()
    monkeypatch.setattr(forecast, "time", SimpleNamespace(monotonic=lambda: model.clock))
    return model


def test_the_line_names_what_takes_time_and_what_leaves_it_out():
    stages = {"sampling": 30.0, "measuring along paths": 20.0, "return-to-origin": 70.0, "shell-overlap": 0.1}
    said = forecast.words(stages, {"return-to-origin": ["score-error", "memorization"]})
    assert said.splitlines() == [
        "this will take about 2 min 00 s: sampling 30 s, measuring along paths 20 s, return-to-origin 1 min 10 s",
        "return-to-origin is 58 % of it: --probes score-error memorization leaves it out",
    ]
    assert forecast.words(stages | {"measuring along paths": 300.0}, {}).endswith("fewer --paths or --times make it shorter")
    assert forecast.words({"sampling": 1.0, "measuring along paths": 0.0}, {}) == "this will take about 1 s: sampling 1 s"


def test_a_model_is_timed_by_the_state_and_a_solver_counted_by_its_steps(slow):
    assert forecast.seconds_each(slow, torch.zeros(5, 4), 0.5, None) == pytest.approx(0.1)
    assert [forecast.evaluations(solver, 10) for solver in ("euler", "heun", "ancestral")] == [11, 21, 11]


def test_what_is_said_before_a_run_is_what_it_takes(slow, tmp_path, capsys):
    bank = ss.Bank.from_arrays(np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32))
    options = {"paths": 8, "times": 20, "origins": 6, "nulls": 5, "solver": "heun", "steps": 10, "out": tmp_path / "run"}
    probes = ["score-error", "return-to-origin"]
    run = ss.examine(slow, bank, probes, **options)
    said = re.search(r"this will take about (\d+) min(?: (\d+) s)?: .*return-to-origin", capsys.readouterr().err)
    assert said is not None
    assert 1 / 1.5 < (60 * int(said[1]) + int(said[2] or 0)) / slow.clock < 1.5
    quiet = ss.examine(slow, bank, probes, **{**options, "out": tmp_path / "quiet", "quiet": True})
    assert quiet.results["score_error"].equals(run.results["score_error"])
    (tmp_path / "run" / "results.nc").unlink()
    ss.examine(slow, bank, probes, **options)
    assert "this will take about 0 s" in capsys.readouterr().err
