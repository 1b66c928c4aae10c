"""Experiments: each runs at the scale of seconds, goes on where it was cut, and ends in files that a reader can open."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from scorescope import claims
from scorescope.charts.grammar import BLUE, Drawing, Key, Vertical
from scorescope.charts.layers import panel
from scorescope.charts.page import grid
from scorescope.claims import Claim, Judged, Verdict
from scorescope.cli import main
from scorescope.errors import InputError
from scorescope.experiments import chosen, experiments, fig5, fig10, run
from scorescope.experiments.experiment import SCALES, Cell, Experiment, Reading
from scorescope.experiments.publish import publish, records, summary, table
from scorescope.experiments.store import Store, normal
from scorescope.progress import Board
from scorescope.rows import Bank


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Where all experiments of this file keep what they have."""
    return tmp_path_factory.mktemp("reproduce")


@pytest.mark.parametrize("name", experiments())
def test_every_experiment_runs_in_seconds_and_is_judged_and_drawn(name, root, capsys):
    assert main(["reproduce", name, "--scale", "smoke", "--runs", str(root)]) == 0
    out = root / "smoke" / "results"
    record = json.loads((out / f"{name}.json").read_text())
    assert record["claims"]
    verdicts = {one["verdict"] for one in record["claims"]}
    assert verdicts & {"supported", "contradicted", "undecided"} == verdicts - {"not judged"} != set()
    assert all((out / f"{name}.{suffix}").stat().st_size > 500 for suffix in ("svg", "png", "csv", "nc"))
    assert (out / f"{name}.nc").stat().st_size < 300_000
    page = (out / "README.md").read_text()
    assert f"![{record['shown']}]({name}.png)" in page
    assert all(one["found"] in page and one["rule"] in page for one in record["claims"])
    html = (out / "results.html").read_text(encoding="utf-8")
    assert f'<section id="{name}">' in html
    assert "http" not in html.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert capsys.readouterr().out == f"results  {out / 'README.md'}\n"


def test_what_an_experiment_says_of_itself():
    for one in experiments().values():
        assert {"smoke", "desk"} <= set(one.setting) <= set(SCALES)
        assert set(one.settled) <= set(one.setting)
        assert one.question.endswith("?")
        names = [cell.name for cell in one.cells("desk")]
        assert len(set(names)) == len(names)


# ---- cells --------------------------------------------------------------------------------------------------------------------


def counted(made: list[str], about: int = 1, fails: str = "") -> Experiment:
    """An experiment of two cells that notes which it computed."""

    def cell(name: str) -> Cell:
        def compute(store, tell):
            if name == fails:
                raise KeyboardInterrupt
            made.append(name)
            return xr.Dataset({"x": ("k", [float(about)])})

        return Cell(name, {"about": about}, compute)

    def draw(found: xr.Dataset) -> Drawing:
        rows = [{"k": 0, "x": float(found["x"].mean())}]
        points = panel(rows).mark_point().encode(x="k:Q", y=Vertical(0, 2, "x").of("x"))
        return Drawing("x is what it is", grid([[points]]), rows, (Key("x", "x", BLUE),))

    claim = Claim("x", 1, lambda found, model: Judged("It is", Verdict.SUPPORTED, "x"), "It is so", "Always.", ("x",))
    return Experiment(
        "counted", 1, "Counted", "Which cells?", "Both.", {"smoke": "Two cells."}, lambda scale: [cell("a"), cell("b")],
        lambda found: xr.concat(list(found.values()), "cell"), draw, "x.", (Reading(claim, "it is so"),),
    )  # fmt: skip


def test_what_was_computed_is_kept_and_what_changed_is_computed_again(tmp_path):
    made: list[str] = []
    store = Store(tmp_path / "networks")

    def once(**options):
        return run.run(counted(made, **options), "smoke", tmp_path, store, Board(quiet=True))

    with pytest.raises(KeyboardInterrupt):
        once(fails="b")
    assert made == ["a"]
    assert [done for _, _, done, _ in run.plan([counted(made)], "smoke", tmp_path)] == [True, False]
    once()
    assert made == ["a", "b"]
    once(about=2)
    assert made == ["a", "b", "a", "b"]
    (run.folder_of(counted(made), "smoke", tmp_path) / "b.nc").write_bytes(b"half a file")
    assert float(once(about=2)["x"].mean()) == 2.0
    assert made[4:] == ["b"]


def test_a_claim_that_cannot_be_judged_is_said_so_in_the_table(tmp_path):
    def judge(found, model):
        raise claims.NotJudged("there is too little")

    one = counted([])
    unknown = Reading(Claim("y", 2, judge, "It is otherwise", "Never.", ("y",)), "–")
    two = Experiment(**{**vars(one), "readings": (*one.readings, unknown)})
    found = run.run(two, "smoke", tmp_path, Store(tmp_path / "networks"), Board(quiet=True))
    lines = publish(two, "smoke", found, tmp_path / "out")
    assert lines == ["● It is", "– It is otherwise (there is too little)"]
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| It is so | it is so | It is | ● supported |" in page
    assert "| It is otherwise | – | It is otherwise (there is too little) | – not judged |" in page


# ---- the command --------------------------------------------------------------------------------------------------------------


def test_a_dry_run_does_nothing_and_says_how_long(tmp_path, capsys):
    assert main(["reproduce", "fig10", "--dry-run", "--runs", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert "fig10     d20-seed0" in said
    assert said.splitlines()[-1].startswith("left: ")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fig11"], "unknown experiment 'fig11'"),
        (["fig10", "--scale", "planet"], "unknown scale 'planet'"),
        ([], "no experiment is named"),
    ],
)
def test_a_wrong_word_is_one_line(words, said, tmp_path, capsys):
    assert main(["reproduce", *words, "--runs", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_bank_that_was_not_given_is_one_line(tmp_path):
    with pytest.raises(InputError, match=r"needs the bank fashion.*--banks fashion\.bank"):
        Store(tmp_path).bank("fashion")


def test_chosen_in_the_order_of_the_figures():
    assert [one.name for one in chosen(["fig10", "fig1b"])] == ["fig1b", "fig10"]


# ---- laws ---------------------------------------------------------------------------------------------------------------------


def test_the_gaussians_truth_is_the_posterior_mean():
    """Against a Monte-Carlo mean of x given z in one dimension."""
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal(400_000), 0.4
    z = (1 - t) * x + t * rng.standard_normal(len(x))
    near = abs(z - 0.5) < 0.02
    assert float(fig10.truth(torch.tensor(0.5), t)) == pytest.approx(x[near].mean(), abs=0.02)


def test_the_truth_has_no_error_and_the_rows_score_none_to_itself():
    bank = normal(4, fig10.ROWS, 0)
    states = fig10.States(bank, 4, 0)
    exact = fig10.EmpiricalScore(bank)
    assert states.errors(lambda z, t: fig10.truth(z, float(t[0])), "space", "truth").max() == pytest.approx(0, abs=1e-12)
    assert states.errors(exact, "inside", "empirical").max() < 1e-9
    assert states.errors(exact, "inside", "truth").mean() > 0.01


ROOT = Path(__file__).parents[1]


def test_the_readme_shows_the_verdicts_that_were_published():
    told = records(ROOT / "docs" / "results")
    assert told
    shown = (ROOT / "README.md").read_text(encoding="utf-8").split("<!-- results -->\n")[1].split("<!-- /results -->")[0]
    assert shown == summary(told, "docs/results"), "scorescope reproduce … --out docs/results, then python benchmarks/readme_results.py"
    assert (ROOT / "docs" / "results" / "README.md").read_text(encoding="utf-8") == table(told)


# ---- cost ---------------------------------------------------------------------------------------------------------------------


def trainings(scale):
    return {str(one.recipe.record()): one for experiment in experiments().values() for one in experiment.trainings(scale)}.values()


def test_operations_are_those_that_papers_give():
    """SiT-B/2: 23.0 G multiply-accumulates a forward pass, 130 M parameters; 400,000 steps of 256."""
    one = next(one for one in trainings("paper") if one.name == "sit-b")
    parameters, operations = one.counted()
    assert parameters == pytest.approx(130.5e6, rel=0.002)
    assert operations == pytest.approx(3 * 2 * 23.0e9 * 256 * 400_000, rel=0.005)


@pytest.mark.parametrize("scale", ["desk", "paper"])
def test_the_command_of_a_training_trains_that_recipe_where_experiments_look_for_it(scale, monkeypatch, tmp_path):
    told = []

    def noted(recipe, bank, out, hooks, **options):
        told.append((recipe, out, [step for one in hooks.watchers for step in sorted(one.steps)]))
        raise InputError("noted")

    monkeypatch.setattr("scorescope.training.loop.train", noted)
    every = list(trainings(scale))
    assert len(every) > 5
    shape = every[0].shape
    rows = np.random.default_rng(0).integers(0, 256, (20, *shape), dtype=np.uint8)
    Bank.from_arrays(rows, np.arange(20) % 10).save(tmp_path / "few.bank")
    for one in every:
        words = shlex.split(one.command("there").replace(f"{one.bank}.bank", str(tmp_path / "few.bank")).replace("cuda", "cpu"))
        assert words[:4] == ["torchrun", "--nproc-per-node", "4", "-m"]
        assert main(words[5:]) == 2
        assert told.pop() == (one.recipe, "there", list(one.keep))


def test_a_dry_run_says_what_networks_cost_and_does_nothing(capsys, tmp_path):
    assert main(["reproduce", "fig3", "--scale", "paper", "--dry-run", "--runs", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "4 networks: 140 EFLOP" in said
    assert said.count("torchrun") == 4
    assert not list(tmp_path.iterdir())
    assert main(["reproduce", "fig9", "--scale", "paper"]) == 2
    assert "fig9 has no scale paper" in capsys.readouterr().err


# ---- fig5 ---------------------------------------------------------------------------------------------------------------------


def memorizing(shares: dict[int, float]) -> xr.Dataset:
    """What fig5 reads, of two seeds of one family whose samples are copies, or as unseen images, in given shares."""
    runs = []
    for factor, share in shares.items():
        for seed in range(2):
            ratio = np.where(np.arange(100) < 100 * share, 0.0, 0.5)
            values = {"ratio": ("sample", ratio), "ratio_second": ("sample", ratio), "unseen_ratio": ("unseen", np.linspace(0.2, 0.8, 101))}
            error = ("shells", "denoiser", "time"), np.ones((3, 3, 2))
            one = xr.Dataset(values | {"error": error}, coords={"shells": list(fig5.SHELLS), "denoiser": ["network", "gaussian", "mean"]})
            one = one.expand_dims(run=[f"sit {factor} {seed}"])
            runs.append(one.assign(family=("run", ["sit"]), factor=("run", [factor]), seed=("run", [seed])))
    return xr.concat(runs, "run")


@pytest.mark.parametrize(
    ("last", "verdict"), [(0.8, Verdict.SUPPORTED), (0.1, Verdict.UNDECIDED), (0.0, Verdict.CONTRADICTED)], ids=["more", "as many", "fewer"]
)
def test_more_copies_at_the_widest_region_are_what_is_claimed(last, verdict):
    results = memorizing({1: 0.1, 8: 0.05, 27: last})
    copies, ratio = (fig5.judge(results, "sit", name) for name in ("copies", "ratio"))
    assert copies.verdict == verdict
    assert copies.estimate.value == pytest.approx(last - 0.1)
    assert "Memorized at 1, 8, 27 ×: 10 %, 5.0 %" in copies.note
    assert "It does not rise at every step" in copies.note
    assert ratio.verdict == (Verdict.SUPPORTED if last > 0.5 else Verdict.UNDECIDED)  # a median: a few copies do not move it


def test_a_copier_of_few_rows_has_no_error_on_any_shell():
    rng = np.random.default_rng(0)
    many = Bank.from_arrays(rng.standard_normal((60, 4)).astype(np.float32))
    few = Bank.from_arrays(np.asarray(many.rows[:6]))
    shells, exact = fig5.Shells(few), fig5.EmpiricalScore(few)
    for rows in (few, many):
        copier, gaussian, mean = shells.errors(exact, rows, 40, fig5.generator(0)).mean(1)
        assert copier < 1e-9 < gaussian
        assert mean > 0.1
