"""`scorescope bench training`: both sides are the same work, and the record says what was measured."""

from __future__ import annotations

import json

import pytest
import torch

from scorescope.bench.training import SIDES, Case, Runner
from scorescope.cli import main
from scorescope.evaluate import flops


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--presets", "mlp-desk"], "unknown preset with a counterpart in diffusers 'mlp-desk'"),
        (["--presets", "sit-dek"], "unknown preset 'sit-dek'.*'sit-desk'"),
        (["--batch", "0"], "--batch 0 is not a positive number"),
        (["--precision", "fp8"], "unknown precision 'fp8'"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, words, said):
    import re

    assert main(["bench", "training", "--out", str(tmp_path / "x"), *words]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("preset", ["sit-desk", "unet-desk"])
def test_both_sides_do_the_same_work(preset):
    pytest.importorskip("diffusers")
    case = Case(preset, 2, "cpu", "float32", 1)
    runners = {side: Runner(case, side) for side in SIDES}
    own = flops(runners["scorescope"].net).total

    def asked(z, t, label):
        return runners["diffusers"].net(z, timestep=torch.full((len(z),), 500), class_labels=torch.zeros(len(z), dtype=torch.long)).sample

    class Asked(torch.nn.Module):
        forward = staticmethod(asked)

    other = flops(Asked(), shape=case.shape).total
    assert other == pytest.approx(own, rel=0.02)
    for runner in runners.values():
        before = [p.detach().clone() for p in runner.net.parameters()]
        runner.train()
        assert any(not torch.equal(p, old) for p, old in zip(runner.net.parameters(), before, strict=True))


def test_the_record_holds_every_turn(tmp_path, capsys):
    pytest.importorskip("diffusers")
    assert (
        main(["bench", "training", "--presets", "sit-desk", "--batch", "1", "--repeats", "2", "--threads", "1", "--out", str(tmp_path)])
        == 0
    )
    (case,) = json.loads((tmp_path / "training.json").read_text())["cases"]
    for side in SIDES:
        assert len(case[side]["train_all"]) == len(case[side]["sample_all"]) == 2
        assert 0 < case[side]["train_mfu"] < 2
        assert case[side]["memory"] > 1e8
    assert "sit-desk" in capsys.readouterr().out
