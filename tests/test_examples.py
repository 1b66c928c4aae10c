"""The files that CONTRIBUTING shows, added as a user would add them, without touching another file."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import scorescope as ss
from scorescope import results
from scorescope.cli import main

TEXT = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"```python\n# src/scorescope/(\S+)\n(.*?)```", TEXT, re.DOTALL))
SMALL = ["--paths", "4", "--times", "4", "--origins", "2", "--nulls", "4", "--solver", "euler", "--steps", "4"]


@pytest.fixture(autouse=True)
def added(tmp_path, monkeypatch):
    """Every example is a file of its package, beside the package's own."""
    assert {place.partition("/")[0] for place in EXAMPLES} == {"probes", "claims", "theories", "adapters", "experiments"}
    for place, source in EXAMPLES.items():
        room, _, file = place.partition("/")
        (tmp_path / room).mkdir()
        (tmp_path / room / file).write_text(source)
        package = importlib.import_module(f"scorescope.{room}")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / room)])
    yield
    for place in EXAMPLES:
        sys.modules.pop("scorescope." + place.removesuffix(".py").replace("/", "."), None)


@pytest.fixture
def bank(tmp_path):
    rows = np.random.default_rng(0).uniform(-1, 1, (20, 1, 6, 6)).astype(np.float32)
    return ss.Bank.from_arrays(rows, name="small").save(tmp_path / "small.bank")


def test_a_probe_is_measured_and_drawn_and_a_claim_is_judged(tmp_path, bank):
    run = ss.examine(ss.EmpiricalScore(bank), bank, ["state-norm", "relative-distance"], preset="quick", paths=4, times=4, quiet=True)
    assert run.results.state_norm.notnull().all()
    assert "norm of the state" in run.report(tmp_path / "r.html").read_text(encoding="utf-8").lower()
    (claim,) = (claim for claim in run.claims if claim["name"] == "noise")
    assert claim["model"] == "empirical score"
    assert claim["n"] == 4
    assert claim["verdict"] == ("supported" if claim["high"] < 0.1 else "contradicted" if claim["low"] > 0.1 else "undecided")
    assert "At pure noise training states lie on the shells" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_an_experiment_is_run_by_name(tmp_path):
    assert main(["reproduce", "rows", "--scale", "smoke", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    assert "| Rows are far apart | not in the paper | Rows are far apart: median " in (tmp_path / "out" / "README.md").read_text(
        encoding="utf-8"
    )
    assert (tmp_path / "out" / "rows.png").stat().st_size > 1000


def test_a_theory_and_an_adapter_are_examined_by_one_line(tmp_path, bank, capsys):
    (tmp_path / "half.constant").write_text("0.5")
    words = ["examine", "theory:mean_row", str(tmp_path / "half.constant"), "--bank", str(tmp_path / "small.bank"), *SMALL]
    assert main([*words, "--probes", "state-norm", "score-error", "--out", str(tmp_path / "run")]) == 0
    assert list(results.load(tmp_path / "run" / "results.nc").model.values) == ["mean row", "model"]
    assert "report" in capsys.readouterr().out
