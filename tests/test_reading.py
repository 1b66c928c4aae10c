"""A model that is read right passes, and each wrong reading is refused with the option that mends it."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope import convert, demo, examination, reading, report
from scorescope.cli import main
from scorescope.results import provenance

SMALL = {"paths": 4, "times": 4, "origins": 2, "nulls": 4, "solver": "euler", "steps": 6, "quiet": True}
ANSWERS = {"x": lambda z, x, t, s: x, "eps": convert.noise, "v": convert.v, "score": convert.score}
LINEAR, COSINE = ss.LinearSchedule(), ss.CosineSchedule()


def bumps(n=300, seed=0, **options):
    """Pictures of one soft bump each, 8-bit."""
    rng, axis = np.random.default_rng(seed), np.arange(8)
    at, width = rng.uniform(1, 6, (n, 2, 1)), rng.uniform(2, 6, (n, 1, 1))
    rows = np.exp(-((axis[:, None] - at[:, :1]) ** 2 + (axis - at[:, 1:]) ** 2) / width)
    return ss.Bank.from_arrays(np.round(255 * rows).astype(np.uint8)[:, None], name="bumps", **options)


BANK = bumps()
TRUTHS = {"copier": ss.EmpiricalScore, "gaussian": ss.GaussianScore}


def network(truth, predicts, *, schedule=LINEAR, unit=1.0, back=False, sign=1, **read):
    """A closed form that answers as a network would, whose time is `unit` times t or 1 − t; `read` is how it is read."""

    def net(z, time, label):
        t = (time.double() / unit).clamp(1e-4, 1 - 1e-4)
        t = 1 - t if back else t
        return sign * ANSWERS[predicts](z, truth(*convert.to_linear(z, t, schedule)), t, schedule)

    return ss.NetworkDenoiser(net, **{"schedule": schedule, "prediction": predicts, "shape": truth.shape, "name": "net"} | read)


@pytest.fixture(scope="module", params=TRUTHS)
def truth(request):
    return TRUTHS[request.param](BANK)


@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
@pytest.mark.parametrize(("read", "predicts"), [*itertools.product(ANSWERS, ANSWERS)])
def test_a_prediction_is_told_from_every_other(truth, read, predicts, schedule):
    found = ss.check(network(truth, predicts, schedule=schedule, prediction=read), BANK)
    assert (found.verdict == "refused") == (read != predicts)
    assert found.hint == ("" if read == predicts else f'prediction="{predicts}"')
    assert found.lines[0].present == (read == predicts)


TIMES = [
    ({"unit": 1000.0}, {"time": lambda t: 1000 * t}, "time=lambda t: 1000 * t"),
    ({"back": True}, {"time": lambda t: 1 - t}, "time=lambda t: 1 - t"),
    ({"unit": 1000.0, "back": True}, {"time": lambda t: 1000 * (1 - t)}, "time=lambda t: 1000 * (1 - t)"),
    ({"sign": -1}, None, "the network's answer negated"),
]


@pytest.mark.parametrize(("is_so", "right", "hint"), TIMES)
def test_a_wrong_time_or_sign_is_refused_and_the_right_one_passes(is_so, right, hint):
    truth = ss.GaussianScore(BANK)
    wrong = ss.check(network(truth, "v", **is_so), BANK)
    assert (wrong.verdict, wrong.hint) == ("refused", hint)
    if right is not None:
        assert ss.check(network(truth, "v", **is_so, **right), BANK).verdict != "refused"


def test_a_time_in_thousands_that_the_network_wants_in_ones():
    found = ss.check(network(ss.GaussianScore(BANK), "v", time=lambda t: 1000 * t), BANK)
    assert (found.verdict, found.hint) == ("refused", "its time / 1000")


def test_steps_that_count_the_other_way_round():
    schedule = ss.DiscreteSchedule(np.cumprod(1 - np.linspace(1e-3, 0.2, 100)))
    model = network(ss.GaussianScore(BANK), "eps", schedule=schedule, unit=100.0, time="steps")
    assert ss.check(model, BANK).verdict != "refused"
    assert (
        ss.check(network(ss.GaussianScore(BANK), "eps", schedule=schedule, unit=100.0, back=True, time="steps"), BANK).verdict == "refused"
    )


def test_several_things_that_are_wrong_at_once_are_all_named():
    found = ss.check(network(ss.GaussianScore(BANK), "eps", unit=1000.0, back=True, prediction="v"), BANK)
    assert (found.verdict, found.hint) == ("refused", 'prediction="eps", time=lambda t: 1000 * (1 - t)')


@pytest.mark.parametrize(("of", "on", "hint"), [((0, 1), (-1, 1), "--range 0 1"), ((-1, 1), (0, 1), "--range -1 1")])
def test_rows_in_another_range_are_refused(of, on, hint):
    trained, asked = (bumps(low=low, high=high) for low, high in (of, on))
    model = network(ss.GaussianScore(trained), "v")
    assert ss.check(model, trained).verdict != "refused"
    found = ss.check(model, asked)
    assert (found.verdict, found.hint) == ("refused", f"bank build {hint}")


def test_latents_that_were_not_scaled_are_refused():
    rows = BANK[np.arange(300)]
    latents, trained = (ss.Bank.from_arrays(scale * (rows + 0.5) / 0.4) for scale in (1 / reading.LATENT, 1.0))
    found = ss.check(network(ss.GaussianScore(trained), "eps", schedule=COSINE), latents)
    assert (found.verdict, found.hint) == ("refused", "rows × 0.18215")


class Other(ss.Denoiser):
    """A denoiser of the user's own."""

    shape, name = BANK.shape, "other"

    def __init__(self, answer, classes=0):
        self.answer, self.classes = answer, classes

    def forward(self, z, t, label=None):
        return self.answer(z, t, label)


def likeness(z, t, label):
    """A blind denoiser: the same whatever the time, a Gaussian's answer where noise and rows are as large."""
    return ss.GaussianScore(BANK)(z, torch.full_like(t, 0.3))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("a blind one", Other(likeness)),
        ("a blind network", ss.NetworkDenoiser(likeness, prediction="x", time="none", shape=BANK.shape)),
        ("a blurry one", Other(lambda z, t, label: 0.5 * ss.GaussianScore(BANK)(z, t) + 0.5 * BANK.mean)),
        ("the mean row", Other(lambda z, t, label: BANK.mean.expand_as(z).to(z))),
        ("a guided one", ss.Guided(Other(lambda z, t, label: ss.GaussianScore(BANK)(z, t), classes=3), 9.0)),
    ],
)
def test_rough_models_that_are_read_right_pass(name, model):
    assert ss.check(model, BANK).verdict in ("right", "caution"), name


def test_what_denoises_nothing_is_told():
    found = ss.check(Other(lambda z, t, label: BANK.mean.expand_as(z).to(z)), BANK)
    assert "nearer to the clean rows than both" in found.reason


def test_a_posterior_mean_that_is_none_is_refused():
    found = ss.check(Other(lambda z, t, label: ss.GaussianScore(BANK).noise(z, t)), BANK)
    assert found.verdict == "refused"
    assert 'prediction="eps"' in found.hint


def test_a_model_that_no_reading_mends_is_refused_for_its_samples():
    found = ss.check(ss.NetworkDenoiser(lambda z, t, label: 3 * z.flip(-1), prediction="x", shape=BANK.shape), BANK)
    assert (found.verdict, found.hint) == ("refused", "")
    assert "samples lie outside" in found.reason
    assert found.outside > reading.SPILL


@pytest.mark.parametrize("classes", [0, 3])
def test_with_classes_and_without(classes):
    labelled = bumps(labels=np.arange(300) % 3)
    asked = []

    def net(z, time, label):
        asked.append(label)
        return ss.GaussianScore(BANK)(z, time.double().clamp(1e-4, 1 - 1e-4))

    model = ss.NetworkDenoiser(net, prediction="x", classes=classes, null_label=classes or None, shape=BANK.shape)
    assert ss.check(model, labelled).verdict != "refused"
    ss.check(model, labelled, labels=[1])
    assert all(label is None for label in asked) if not classes else bool((asked[-1] == 1).all())


def test_the_demo_s_network_and_its_noise():
    bank, model = demo.digits(), ss.load(demo.model_path("demo-s"))
    assert ss.check(model, bank).verdict == "right"
    other = ss.NetworkDenoiser(model.net, prediction="eps", classes=10, null_label=10, shape=model.shape)
    found = ss.check(other, bank)
    assert (found.verdict, found.hint) == ("refused", 'prediction="v"')


def test_the_table_has_every_reading_once_and_the_present_one(truth):
    found = ss.check(network(truth, "v"), BANK)
    assert len({line.name for line in found.lines}) == len(found.lines)
    assert [line.quality for line in found.lines] == sorted(line.quality for line in found.lines)
    assert found.table.count("▸ ") == 1 + 1  # and in its title
    for one in found.levels:  # the Gaussian is the best linear denoiser, so that it beats both simple ones
        assert one.gaussian < 1.05 * min(one.mean, one.state)


def test_the_same_seed_finds_the_same():
    first, again, other = (ss.check(network(ss.GaussianScore(BANK), "v"), BANK, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_a_bank_that_can_t_tell_says_so():
    rows = np.ones((5, 1, 8, 8), np.uint8)
    found = ss.check(Other(likeness), ss.Bank.from_arrays(rows))
    assert found.verdict == "caution"
    assert "all rows of the bank are the same" in found.table


# ---- in an examination ----------------------------------------------------------------------------------------------------------


def wrong():
    return network(ss.GaussianScore(BANK), "v", prediction="eps")


def test_nothing_is_measured_and_nothing_left_behind_where_a_model_is_not_read_right(tmp_path):
    with pytest.raises(ss.InputError, match=r'net is not read right: read as v .* Try: prediction="v", or --as-is') as caught:
        ss.examine(wrong(), BANK, **SMALL, out=tmp_path / "run")
    assert "this model" in caught.value.details
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def as_is(tmp_path_factory):
    """A run of two models, of which one is not read right."""
    right = network(ss.GaussianScore(BANK), "v", name="right")
    folder = tmp_path_factory.mktemp("runs") / "run"
    return ss.examine([right, wrong()], BANK, **SMALL, out=folder, as_is=True)


def test_as_is_measures_all_the_same_and_judges_nothing(as_is):
    record = provenance(as_is.results)
    assert {name: (one["verdict"], one["as_is"]) for name, one in record["reading"].items()} == {
        "right": (record["reading"]["right"]["verdict"], True),
        "net": ("refused", True),
    }
    assert record["reading"]["right"]["verdict"] != "refused"
    of = {name: [claim for claim in as_is.claims if claim["model"] == name] for name in ("right", "net", "")}
    assert {claim["verdict"] for claim in of["net"]} == {"not judged"}
    assert {claim["reason"] for claim in of["net"]} == {"net is not read right"}
    assert {claim["verdict"] for claim in of["right"]} > {"not judged"}
    assert as_is.findings() == ["This model cannot be judged as it is read."]
    assert record["warnings"][0].startswith("net is measured as it is, though it is not read right: read as v")
    assert record["outside"]["net"] > 0.01
    assert any(line.startswith("net: ") and "drawn, they are clipped" in line for line in record["warnings"])


def test_the_page_says_so_first(as_is):
    page = report.page.render(as_is.results)
    first = page[: page.index('id="findings"')]
    assert "<b>net cannot be judged as it is read</b>" in first
    assert "<h1>This model cannot be judged as it is read.</h1>" in first
    assert "though it is not read right" in first
    assert "right cannot be judged" not in page
    assert "Pictures are clipped" in page


def test_a_run_that_continues_does_not_check_again(as_is, monkeypatch):
    def never(*arguments):
        raise AssertionError("it is checked again")

    monkeypatch.setattr(examination, "readings", never)
    again = ss.examine([network(ss.GaussianScore(BANK), "v", name="right"), wrong()], BANK, **SMALL, out=as_is.folder)
    assert provenance(again.results)["reading"] == provenance(as_is.results)["reading"]


# ---- on the command line ----------------------------------------------------------------------------------------------------------

MODEL = """
import scorescope as ss
BANK = ss.Bank.open("bumps.bank")
def right():
    return ss.NetworkDenoiser(ss.GaussianScore(BANK).noise, prediction="eps", shape=BANK.shape, name="net")
def wrong():
    return ss.NetworkDenoiser(ss.GaussianScore(BANK).noise, prediction="v", shape=BANK.shape, name="net")
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    BANK.save(tmp_path / "bumps.bank")
    (tmp_path / "m.py").write_text(MODEL)


def test_check_prints_its_table_and_ends_with_0_or_2(files, capsys):
    assert main(["check", "m.py:right", "--bank", "bumps.bank"]) == 0
    out, said = capsys.readouterr()
    assert "▸ ε" in out
    assert said == ""
    assert main(["check", "m.py:wrong", "--bank", "bumps.bank", "--json"]) == 2
    out, said = capsys.readouterr()
    assert json.loads(out)["net"]["hint"] == 'prediction="eps"'
    assert said.count("\n") == 1
    assert "net is not read right: read as ε its error is" in said


def test_examine_prints_the_table_above_its_line(files, tmp_path, capsys):
    words = ["examine", "m.py:wrong", "--bank", "bumps.bank", "--paths", "2", "--times", "2", "--solver", "euler", "--steps", "2"]
    words += ["--probes", "score-error", "--out", "run"]
    assert main(words) == 2
    *table, line, end = capsys.readouterr().err.split("\n")
    assert line.startswith("error: net is not read right")
    assert end == ""
    assert any(row.startswith("▸ v") for row in table)
    assert not (tmp_path / "run").exists()
    assert main([*words, "--as-is"]) == 0
    assert "warning: net is measured as it is" in capsys.readouterr().out
