"""What a checkpoint's names leave open is decided by the rows where they can tell, and asked for where they can't."""

from __future__ import annotations

import re

import numpy as np
import pytest
from safetensors.torch import save_file

import scorescope as ss
from scorescope import demo, examination
from scorescope.adapters import families
from scorescope.cli import main

OTHER = """
from scorescope.adapters.families import checked
from scorescope.denoiser import NetworkDenoiser
from scorescope.adapters.families import {like} as like
MARK, OPTIONS = like.MARK, {{**like.OPTIONS, "process": "how"}}
{readings}
def belongs(checkpoint):
    return None if checkpoint.has(MARK) else False
def build(checkpoint, options):
    told = checked(options, OPTIONS, "{name}")
    model = like.build(checkpoint, {{name: value for name, value in told.items() if name != "process"}})
    if told.get("process") == "odd":
        model = NetworkDenoiser(model.net, prediction="eps", classes=model.classes, null_label=model.null_label, shape=model.shape)
    return model
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """The demo's small network under SiT's names, whose time is REPA's."""
    net = ss.load(demo.model_path("demo-s")).net
    path = tmp_path_factory.mktemp("weights") / "x.safetensors"
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, path)
    return path, {"heads": net.config.heads}


def test_a_family_that_was_named_wrongly_is_refused_with_the_right_one(weights):
    path, told = weights
    wrong, right = (ss.check(ss.load(path, family=name, **told), demo.digits()) for name in ("sit", "repa"))
    assert (wrong.verdict, wrong.hint) == ("refused", 'family="repa"')
    assert right.verdict == "right"
    assert {'family="sit"', 'family="dit"'} <= {line.name for line in right.lines}
    with pytest.raises(ss.InputError, match=r'read as family="repa" its error is .* smaller'):
        ss.examine(ss.load(path, family="sit", **told), demo.digits(), preset="quick")


def test_a_misspelt_option_is_told_before_the_family_is_asked_for(weights, capsys):
    path, _ = weights
    words = ["check", str(path), "--bank", "digits", "--load"]
    assert main([*words, "famly=repa"]) == 2
    assert "unknown option of a checkpoint: 'famly'" in capsys.readouterr().err
    assert main([*words, "family=repa"]) == 2  # its width is none of the presets'
    assert "Try: --load heads=6" in capsys.readouterr().err


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Another family, like one that is there."""

    def make(name, like, readings=""):
        (tmp_path / f"{name}.py").write_text(OTHER.format(name=name, like=like, readings=readings))
        monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])

    return make


def test_the_rows_choose_the_one_family_that_denoises_and_it_is_said(weights):
    path, told = weights
    with pytest.raises(ss.InputError, match=r'do not tell which code .*family="sit"'):
        ss.load(path, **told)
    model = ss.load(path, bank=demo.digits(), **told)
    assert model.about["family"] == "repa"
    found = re.fullmatch(r"read as repa by the rows of digits: its error is ([\d.e+]+) times smaller than as \w+", model.about["read_as"])
    assert float(found[1]) > 2
    z = demo.digits()[np.arange(4)]
    original = ss.load(demo.model_path("demo-s"))
    np.testing.assert_array_equal(model(z, 0.4, 3).detach(), original(z, 0.4, 3).detach())
    assert ss.load(path, bank=demo.digits(), family="sit", **told).about["family"] == "sit"  # what is told is not doubted here


def test_rows_that_fit_none_or_several_ask_with_the_numbers(weights, add):
    path, told = weights
    noise = ss.Bank.from_arrays(np.random.default_rng(0).integers(0, 256, (80, 1, 28, 28)).astype(np.uint8), name="noise")
    with pytest.raises(ss.InputError, match=r'none of them denoises .*repa [\d.e+]+.*sit [\d.e+]+.*family="') as caught:
        ss.load(path, bank=noise, **told)
    assert "\n" not in str(caught.value)
    add("twin", "repa")
    with pytest.raises(
        ss.InputError, match=r"by the rows of digits none fits them clearly better .*(repa|twin) [\d.]+, (repa|twin) [\d.]+"
    ):
        ss.load(path, bank=demo.digits(), **told)


def test_what_all_readings_lack_is_asked_for(weights, tmp_path):
    path, _ = weights
    narrow = ss.Bank.from_arrays(np.zeros((9, 1, 4, 4), np.float32) + np.arange(9, dtype=np.float32)[:, None, None, None], name="narrow")
    with pytest.raises(ss.InputError, match="takes states of shape"):
        ss.load(path, bank=narrow, **weights[1])
    with pytest.raises(ss.InputError, match=r"there is no model at"):
        ss.load(tmp_path / "none.pt", bank=narrow)


def test_a_family_s_own_readings_are_tried_too(weights, add):
    path, told = weights
    add("open", "repa", 'READINGS = ({"process": "even"}, {"process": "odd"})')
    with pytest.raises(ss.InputError, match=r"open, process=odd [\d.e+]+"):  # REPA's reading stands beside the right one
        ss.load(path, bank=demo.digits(), **told)


def test_the_command_line_says_what_was_chosen_and_so_does_a_run(weights, capsys):
    path, told = weights
    words = ["--bank", "digits", "--load", f"heads={told['heads']}", "--n", "1", "--solver", "euler", "--steps", "1"]
    assert main(["sample", str(path), *words, "--out", str(path.parent / "drawn")]) == 0
    assert re.search(r"x\.safetensors is read as repa by the rows of digits: its error", capsys.readouterr().err)
    model = ss.load(path, bank=demo.digits(), **told)
    assert examination._about("x", model, model.identity())["read_as"] == model.about["read_as"]
