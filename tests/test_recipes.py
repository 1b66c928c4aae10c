"""Recipes side by side: lines with known answers, what the data can't tell, and what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats

from scorescope import recipes
from scorescope.charts import Chart
from scorescope.charts.recipes import draw
from scorescope.claims import Verdict
from scorescope.cli import main
from scorescope.compare import grouping, tables
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.evaluate.frechet import Moments, frechet_distance, influence
from scorescope.recipes import Point, efficiency, line, names, shift, straightness, table
from scorescope.recipes.lines import fit
from scorescope.recipes.verdicts import judged, sentences
from scorescope.statistics import resampled_means

DICO = [("S", 0.15294, 49.97), ("B", 0.14949, 27.20), ("L", 0.14640, 13.66), ("XL", 0.14575, 11.67)]  # DiCo's public logs: loss, FID


def points(recipe, level, losses, scatter=0.0, seed=0, slope=60.0, costs=1.0):
    """Runs on a line of ln score, level × 30 at loss 0.15, with a power law of compute."""
    rng = np.random.default_rng(seed)
    return [
        Point(recipe, f"{recipe}{k}", loss, 30 * level * math.exp(slope * (loss - 0.15) + scatter * rng.standard_normal()),
              costs * (loss / 0.15) ** -20 * 1e13)
        for k, loss in enumerate(losses)
    ]  # fmt: skip


def measured(runs, common=0.0, loss=0.0, score=0.0, draws=400):
    """The table with draws: noise of the loss that all runs share, and noise of their own."""
    rng = np.random.default_rng(5)
    n = runs.sizes["run"]
    losses = runs["loss"].values[:, None] + common * rng.standard_normal(draws) + loss * rng.standard_normal((n, draws))
    scores = runs["score"].values[:, None] * (1 + score * rng.standard_normal((n, draws)))
    return runs.assign(loss_draw=(("run", "draw"), losses), score_draw=(("run", "draw"), scores))


LOSSES = np.array([0.14, 0.145, 0.15, 0.155, 0.16])

# ---- a line ---------------------------------------------------------------------------------------------------------------------


def test_dicos_logs_flatten_in_fid_and_are_straighter_in_its_logarithm():
    runs = table([Point("DiCo", *one) for one in DICO], "FID")
    found = straightness(runs, "DiCo")
    assert found.ratio.value == pytest.approx(2.27, abs=0.01)
    assert found.plain.low > 0  # a curve through FID bends so
    told = judged(runs, "straighter", "DiCo")
    assert told.verdict is Verdict.SUPPORTED
    assert told.says == "DiCo: FID flattens as the loss falls, ln FID is the straighter line of the loss"
    assert recipes.logarithmic(runs)
    slope = stats.linregress([one[1] for one in DICO], np.log([one[2] for one in DICO])).slope
    assert line(runs, "DiCo", True).slope == pytest.approx(slope)
    assert "lower by 26 % [22, 30]" in recipes.described(runs, "DiCo")


def test_the_other_way_round():
    runs = table([Point("a", str(k), loss, 1000 * (loss - 0.13) + 0.01 * (-1) ** k) for k, loss in enumerate(LOSSES)])
    assert judged(runs, "straighter", "a").verdict is Verdict.CONTRADICTED
    assert not recipes.logarithmic(runs)


def test_without_draws_intervals_are_students():
    rng = np.random.default_rng(1)
    x, y = np.arange(6.0), 2 + 0.5 * np.arange(6.0) + rng.standard_normal(6)
    found, known = fit(x, y).per(1.0), stats.linregress(x, y)
    half = stats.t.ppf(0.975, 4) * known.stderr
    assert found.value == pytest.approx(known.slope)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.06)


def test_what_measuring_explains_is_not_counted_twice():
    """Points off their line by no more than each was measured: the interval is that of the measuring."""
    rng = np.random.default_rng(2)
    x, noise, widths, plain = np.arange(8.0), 0.3, [], []
    for _ in range(30):
        y = x + noise * rng.standard_normal(8)
        drawn = y[:, None] + noise * rng.standard_normal((8, 1000))
        found = fit(x, y, np.tile(x[:, None], 1000), drawn, seed=3).per(1.0)
        widths.append(found.high - found.low)
        plain.append(2 * 1.96 * noise / math.sqrt(np.square(x - x.mean()).sum()))
    assert 1 < np.mean(widths) / np.mean(plain) < 1.35


def test_two_points_and_what_lies_beyond_are_refused():
    with pytest.raises(InputError, match="no recipe has three runs of different loss"):
        table(points("a", 1, LOSSES[:2]))
    with pytest.raises(InputError, match="through 2 points says nothing"):
        fit(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0]))
    own = line(table(points("a", 1, LOSSES)), "a", True)
    assert own.at(0.15).value == pytest.approx(math.log(30))
    with pytest.raises(InputError, match=r"0\.17 lies beyond the points of the line, 0\.14 to 0\.16"):
        own.at(0.17)


def test_three_runs_do_not_tell_what_is_straighter():
    told = judged(table(points("a", 1, LOSSES[:3], 0.02)), "straighter", "a")
    assert (told.verdict, told.reason) == (Verdict.UNDECIDED, "3 runs are too few to tell, 4 could")


# ---- two recipes ----------------------------------------------------------------------------------------------------------------


def test_a_shift_is_found_on_the_common_range():
    runs = table([*points("a", 1, LOSSES, 0.02), *points("b", 0.7, LOSSES + 0.007, 0.02, 1, costs=2)])
    found = shift(line(runs, "a", True), line(runs, "b", True))
    assert (found.low, found.high) == pytest.approx((0.147, 0.16))
    assert found.middle.low < math.log(0.7) < found.middle.high < 0
    told = judged(runs, "extrapolates", "b")
    assert told.says == "b extrapolates better than a"
    assert "over losses 0.1470 to 0.1600" in told.phrase
    fits = judged(runs, "fits", "b")
    assert (fits.says, fits.verdict) == ("a fits better than b", Verdict.CONTRADICTED)
    assert fits.estimate.value == pytest.approx(math.log(2) / 20, rel=0.01)
    assert efficiency(runs, "a").slope == pytest.approx(-1 / 20)


def test_what_all_runs_share_cancels_between_recipes():
    runs = measured(table([*points("a", 1, LOSSES), *points("b", 0.9, LOSSES)]), common=0.001, score=0.002)
    height = line(runs, "a", True).at(0.15)
    assert height.high - height.low > 0.2
    between = shift(line(runs, "a", True), line(runs, "b", True)).middle
    assert between.high - between.low < 0.01
    assert judged(runs, "extrapolates", "b").verdict is Verdict.SUPPORTED


def test_95_percent_intervals_of_a_shift_hold_the_truth():
    held = 0
    for seed in range(60):
        runs = table([*points("a", 1, LOSSES[:4], 0.05, 2 * seed), *points("b", 0.9, LOSSES[:4], 0.05, 2 * seed + 1)])
        found = shift(line(runs, "a", True), line(runs, "b", True)).middle
        held += found.low < math.log(0.9) < found.high
    assert held >= 54


def test_equal_recipes_and_crossing_lines_are_undecided():
    same = table([*points("a", 1, LOSSES, 0.05), *points("b", 1, LOSSES, 0.05, 1)])
    told = judged(same, "extrapolates", "b")
    assert (told.verdict, told.reason) == (Verdict.UNDECIDED, "the interval reaches across 0")
    crossing = table([*points("a", 1, LOSSES, 0.002), *points("b", 1.02, LOSSES, 0.002, 1, slope=20)])
    told = judged(crossing, "extrapolates", "b")
    assert (told.verdict, told.reason) == (Verdict.UNDECIDED, "the lines cross: which is lower depends on the loss")


def test_no_shift_without_a_common_range_or_compute():
    apart = [*points("a", 1, LOSSES), *points("b", 1, LOSSES + 0.1)]
    runs = table([Point(one.recipe, one.name, one.loss, one.score) for one in [*apart, *points("c", 1, LOSSES[:2])]])
    assert "do not overlap" in judged(runs, "extrapolates", "b").reason
    assert "through 2 points" in judged(runs, "extrapolates", "c").reason
    assert "the compute of some runs is not known; lowest losses: a 0.14, b 0.24" in judged(runs, "fits", "b").reason
    assert all(judged(runs, claim, "b").verdict is Verdict.NOT_JUDGED for claim in ("fits", "extrapolates"))
    assert sum(one.startswith("– ") for one in sentences(runs)) == 4
    json.dumps(recipes.record(runs), allow_nan=False)


# ---- pictures and files ---------------------------------------------------------------------------------------------------------


def test_the_chart_of_several_tables():
    one = measured(table([*points("a", 1, LOSSES, 0.02), *points("b", 0.7, LOSSES, 0.02, 1)], floor=3.0), 0.0005, 0.0001, 0.01)
    two = table([Point("c", *one) for one in DICO], "FID")
    drawing = draw({"first": one, "second": two})
    assert [key.label for key in drawing.legend][:3] == ["a", "b", "c"]
    assert {"floor", "common", "bars", "size"} <= {key.name for key in drawing.legend}
    assert len(drawing.table) == 14
    assert drawing.title.startswith("b extrapolates better than a")
    chart = Chart("recipes", "Recipes", ("", "", ""), drawing)
    assert ">second</text>" in chart.svg(alone=True)


def test_a_table_of_ones_own_and_back(tmp_path, capsys):
    (tmp_path / "mine.csv").write_text("recipe,name,loss,fid\n" + "".join(f"DiCo,{a},{b},{c}\n" for a, b, c in DICO))
    out = tmp_path / "out"
    assert main(["compare", str(tmp_path / "mine.csv"), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "● DiCo: fid flattens as the loss falls, ln fid is the straighter line of the loss" in said
    assert {path.name for path in out.iterdir()} == {"points.csv", "compare.json", "compare.nc", "compare.svg", "compare.png", "run.json"}
    again = tables.read(out / "points.csv")
    assert again["score"].values == pytest.approx([one[2] for one in DICO])
    assert again.attrs["score"] == "fid"


def test_draws_survive_the_file_and_the_other_loss_is_taken(tmp_path):
    runs = measured(table(points("a", 1, LOSSES)), score=0.01)
    runs = runs.assign(share=runs["loss"] / 2, share_draw=runs["loss_draw"] / 2)
    assert tables.by(runs, "share")["loss"].values == pytest.approx(LOSSES / 2)
    text = tables.points_csv(runs)
    assert text.startswith("recipe,name,loss,loss_low,loss_high,FD,FD_low,FD_high,compute,share\n")
    (tmp_path / "points.csv").write_text(text)
    assert tables.read(tmp_path / "points.csv", loss="share")["loss"].values == pytest.approx(LOSSES / 2)
    with pytest.raises(InputError, match="unknown loss 'compute'"):
        tables.by(runs, "compute")


# ---- groups ---------------------------------------------------------------------------------------------------------------------


class Recorded(Denoiser):
    def __init__(self, file="model.safetensors", **record):
        self.about = {"recipe": record, "file": file}

    def forward(self, z, t, label=None):
        return z


def test_runs_are_of_one_recipe_where_size_length_and_seed_alone_differ():
    unet = {"family": "unet", "objective": "dsm", "rate": 1e-3}
    runs = {
        "a": Recorded(**unet, channels=8, steps=100, seed=0, attention=[4]),
        "b": Recorded(**unet, channels=16, steps=200, seed=1, attention=[4]),
        "c": Recorded(**unet, channels=16, steps=200, seed=1, attention=[]),
        "d": Recorded(**{**unet, "objective": "repa"}, channels=16, repa_weight=0.5, repa_depth=3, attention=[4]),
    }
    assert list(grouping.grouped(runs).values()) == [
        "unet, dsm, attention 4", "unet, dsm, attention 4", "unet, dsm, attention none", "unet, repa, attention 4, repa weight 0.5",
    ]  # fmt: skip
    assert set(grouping.grouped({"a": runs["a"], "b": runs["b"]}).values()) == {"unet"}
    with pytest.raises(InputError, match="x does not say by what recipe"):
        grouping.grouped({"x": Recorded()})


def test_a_kept_steps_compute_is_that_of_its_steps(tmp_path):
    kept, whole = Recorded("runs/x/kept/step-00004000.safetensors", steps=8000), Recorded(steps=8000)
    assert (grouping.step_of(kept), grouping.step_of(whole), grouping.step_of(Recorded())) == (4000, 8000, None)


# ---- Fréchet distance of samples drawn again ------------------------------------------------------------------------------------


def normal(n, d, seed, scale=1.0, shift=0.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(shift, scale, (n, d)))


@pytest.mark.parametrize("n", [300, 5])
def test_influence_is_what_leaving_a_sample_out_changes(n):
    a, real = normal(n, 6, 0, 1.4, 0.3) @ normal(6, 6, 1), Moments.of(normal(500, 6, 2))
    value, found = influence(a, real)
    assert value == frechet_distance(a, real)
    assert float(found.mean()) == pytest.approx(0, abs=1e-9)
    if n < 6:  # fewer samples than features: no square factor, and too few for a first order
        return
    change = [n * (value - frechet_distance(torch.cat([a[:k], a[k + 1 :]]), real)) for k in range(40)]
    assert np.corrcoef(change, found[:40])[0, 1] > 0.99
    assert np.polyfit(found[:40], change, 1)[0] == pytest.approx(1, abs=0.1)


def test_draws_spread_as_other_samples_do():
    real = Moments.of(normal(2000, 4, 0))
    others = [influence(normal(200, 4, 10 + k, 1.3, 0.2), real) for k in range(150)]
    spread = np.std([value for value, _ in others])
    drawn = [resampled_means(moved.numpy(), 0, 300).std() for _, moved in others[:20]]
    assert np.mean(drawn) == pytest.approx(spread, rel=0.2)


# ---- measured -------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A tiny network on a tiny bank, with two steps kept."""
    import scorescope as ss

    folder = tmp_path_factory.mktemp("trained")
    rows = np.random.default_rng(0).uniform(-1, 1, (60, 1, 4, 4)).astype(np.float32)
    ss.Bank.from_arrays(rows, np.arange(60) % 3, name="x").save(folder / "x.bank")
    tiny = ["--width", "8", "--depth", "1", "--heads", "2", "--patch", "2", "--steps", "90", "--batch", "16", "--watch-every", "0"]
    words = ["train", "--preset", "sit-desk", *tiny, "--keep", "10", "40", "--bank", str(folder / "x.bank"), "--out", str(folder / "run")]
    assert main(words) == 0
    return folder


def test_runs_are_measured_once_and_more_runs_continue(trained, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--bank", str(trained / "x.bank"), "--extractor", "pixels", "--n", "40", "--steps", "4", "--paths", "30", "--times", "6"]
    three = [str(trained / "run@10"), str(trained / "run@40"), str(trained / "run")]
    asked = ["compare", *three, *words, "--out", str(out), "--cache", str(tmp_path / "cache")]
    assert main(asked) == 0
    first = capsys.readouterr().out
    assert "real rows: FD-pixels" in first
    runs = xr.load_dataset(out / "compare.nc", engine="h5netcdf")
    assert names(runs) == ["sit"]
    assert (np.diff(runs["compute"].values) > 0).all()
    assert runs["step"].values.tolist() == [10, 40, 90]
    assert runs["loss"].values == pytest.approx(runs["dsm_minus_optimum"].values, rel=0.3)
    assert (runs["share"] > 0).all()
    assert runs["compute"].values[2] == pytest.approx(9 * runs["compute"].values[0])

    def written():
        return {path: path.stat().st_mtime_ns for path in out.glob("cells/*/*.npz")}

    before, broken = written(), next(out.glob("cells/run-*/frechet.npz"))
    broken.write_bytes(b"half")
    assert main(asked) == 0
    assert capsys.readouterr().out == first
    assert {path for path, time in written().items() if before[path] != time} == {broken}
    assert main([*asked[:4], "--recipe", "a=b", *words, "--out", str(out)]) == 2
    assert main(["compare", "--recipe", f"mine={','.join(three)}", *words, "--out", str(out), "--cache", str(tmp_path / "cache")]) == 0
    assert "mine: a loss lower by 1 %" in capsys.readouterr().out
    assert main(["compare", *three, *words[:-4], "--paths", "31", "--times", "6", "--out", str(out)]) == 2
    assert "paths 30 → 31" in capsys.readouterr().err
