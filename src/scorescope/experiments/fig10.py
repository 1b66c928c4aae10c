"""Fig. 10 (C.6): a Gaussian whose score is known. Does the network learn the truth, or the score of its 100 rows, and where?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np
import torch
import xarray as xr
from scipy import stats
from torch import Tensor

from scorescope.charts.grammar import BLACK, BLUE, VERMILLION, Drawing, Key, Row, Vertical
from scorescope.charts.layers import panel
from scorescope.charts.page import grid, width_of
from scorescope.charts.tables import number
from scorescope.claims import Claim, Judged
from scorescope.claims.claim import Verdict, below, interval_text
from scorescope.denoiser import NetworkDenoiser
from scorescope.empirical import EmpiricalScore
from scorescope.experiments.experiment import Cell, Experiment, Reading
from scorescope.experiments.store import Store, generator, normal
from scorescope.files import write_json
from scorescope.rows import Bank
from scorescope.statistics import Estimate, integrated_error, paired_bootstrap
from scorescope.training.loop import Snapshot
from scorescope.training.presets import preset
from scorescope.training.recipe import Recipe

ROWS, PAIRS, LOOKS = 100, 200, 60
TIMES = np.arange(2, 21) / 20  # 0.1 … 1
PAPER = 20  # dimensions
CURVES = ("inside_empirical", "inside_truth", "space_truth")


def truth(z: Tensor, t: float) -> Tensor:
    """E[x | z] for x ~ N(0, I): α z / (α² + σ²). (C.6 prints the score as −z/σ; it is −z/(α² + σ²).)"""
    return (1 - t) / ((1 - t) ** 2 + t**2) * z


class States:
    """States of both kinds, with the exact answers: on the shells of the rows, and of fresh draws of the whole distribution."""

    def __init__(self, bank: Bank, d: int, seed: int) -> None:
        rng, exact = generator(seed, d), EmpiricalScore(bank)
        rows = torch.from_numpy(np.asarray(bank.rows))[torch.randint(ROWS, (PAIRS,), generator=rng)]
        fresh, eps = torch.randn(PAIRS, d, generator=rng), torch.randn(PAIRS, d, generator=rng)
        self.z = {"inside": [(1 - t) * rows + t * eps for t in TIMES], "space": [(1 - t) * fresh + t * eps for t in TIMES]}
        self.exact = {where: [exact(z, float(t)) for z, t in zip(states, TIMES, strict=True)] for where, states in self.z.items()}

    def errors(self, model: Callable[[Tensor, Tensor], Tensor], where: str, of: str) -> np.ndarray:
        """‖x̂ − x̂_of‖² / (t² d) of each pair, averaged over t from 0.1 to 1: (pair,)."""
        found = []
        for k, t in enumerate(TIMES):
            z = self.z[where][k]
            right = truth(z, t) if of == "truth" else self.exact[where][k]
            found.append(((model(z, torch.full((PAIRS,), float(t))) - right).double() ** 2).mean(1).numpy() / t**2)
        return integrated_error(np.stack(found, 1), TIMES)


class Looks:
    """A watcher that keeps the three curves of Fig. 10 beside the network, so that a training that is cut goes on with them."""

    def __init__(self, states: States, recipe: Recipe[Any, Any], store: Store, bank: Bank) -> None:
        self.states, self.every = states, max(10, recipe.steps // LOOKS)
        self.file, self.recipe, self.d = store.place(recipe, bank) / "looks.json", recipe, bank.d

    def __call__(self, snapshot: Snapshot) -> None:
        """One look at the EMA network."""
        known = json.loads(self.file.read_text()) if self.file.exists() else {}
        model = NetworkDenoiser(snapshot.network, prediction=self.recipe.interpolant.prediction, shape=(self.d,))
        with torch.inference_mode():
            write_json(self.file, known | {str(snapshot.step): [float(self.of(model, name).mean()) for name in CURVES]})

    def of(self, model: Callable[[Tensor, Tensor], Tensor], curve: str) -> np.ndarray:
        """One curve's errors, (pair,)."""
        where, of = curve.split("_")
        return self.states.errors(model, where, of)


def recipe(scale: str, d: int, seed: int) -> Recipe[Any, Any]:
    """C.6's perceptron, or one with skips, a thirtieth of its size, for as many steps; hardly averaged: C.6 names no average."""
    if scale == "paper":
        return replace(preset("mlp-gaussian"), seed=seed, ema=0.999)
    desk = replace(preset("mlp-desk"), batch=100, seed=seed, ema=0.999)
    return replace(desk, net=replace(desk.net, width=32, depth=3), steps=60) if scale == "smoke" else desk


def cells(scale: str) -> list[Cell]:
    """Three seeds of the paper's dimension, one of each other."""
    wanted = [(PAPER, 0), (2, 0)] if scale == "smoke" else [*((PAPER, seed) for seed in range(3)), *((d, 0) for d in (2, 5, 50, 200))]
    return [_cell(scale, d, seed) for d, seed in wanted if scale != "paper" or d == PAPER]


def _cell(scale: str, d: int, seed: int) -> Cell:
    trained = recipe(scale, d, seed)

    def compute(store: Store, tell: Callable[[float], None]) -> xr.Dataset:
        bank = normal(d, ROWS, seed)
        looks = Looks(States(bank, d, seed), trained, store, bank)
        model = store.trained(trained, bank, tell, [looks])
        curves = {int(step): values for step, values in json.loads(looks.file.read_text()).items()}
        steps = sorted(curves)
        exact = EmpiricalScore(bank)
        with torch.inference_mode():
            found = {name: ("pair", looks.of(model, name)) for name in CURVES}
            copier = {f"copier_{where}": ("pair", looks.states.errors(exact, where, "truth")) for where in ("inside", "space")}
        shown = {f"curve_{name}": ("step", [curves[step][k] for step in steps]) for k, name in enumerate(CURVES)}
        return (
            xr.Dataset({**found, **copier, **shown}, coords={"step": steps})
            .expand_dims(run=[f"d = {d}, seed {seed}"])
            .assign(d=("run", [d]))
        )

    return Cell(f"d{d}-seed{seed}", {"recipe": trained.record(), "d": d}, compute, minutes=trained.steps / 5000)


def gather(found: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """All runs along `run`."""
    return xr.concat(list(found.values()), "run", join="outer", combine_attrs="drop")


def _ratio(results: xr.Dataset, above: str, beneath: str) -> Estimate:
    """Mean of one error over that of another in the paper's dimension, over pairs of all seeds."""
    part = results.isel(run=np.flatnonzero(results["d"].values == PAPER))
    change = paired_bootstrap(part[beneath].values.ravel(), part[above].values.ravel(), relative=True)
    return Estimate(*(1 + float(value) for value in change))


def _runs(results: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    return [(str(name), results.sel(run=name)) for name in results["run"].values]


def _seeds(results: xr.Dataset, above: str, beneath: str) -> str:
    each = [f"{float(one[above].mean() / one[beneath].mean()):.2g} ({name})" for name, one in _runs(results)]
    return f"By run: {', '.join(each)}."


def _judge(results: xr.Dataset, above: str, beneath: str, says: dict[Verdict, str], phrase: str) -> Judged:
    estimate = _ratio(results, above, beneath)
    verdict, reason = below(estimate, 1, "1")
    n, note = results.sizes["pair"] * int((results["d"].values == PAPER).sum()), _seeds(results, above, beneath)
    return Judged(says[verdict], verdict, above, estimate, interval_text(estimate), phrase, n, "states", reason=reason, note=note)


def inside(results: xr.Dataset, model: str) -> Judged:
    """Error to the empirical score over error to the truth, on the shells."""
    says = {
        Verdict.SUPPORTED: "On the shells of its rows the network learned the rows' score, not the truth",
        Verdict.CONTRADICTED: "On the shells of its rows the network is nearer to the truth than to the rows' score",
        Verdict.UNDECIDED: "On the shells of its rows the network is as near to the truth as to the rows' score",
    }
    return _judge(results, "inside_empirical", "inside_truth", says, "its error to the rows' score is {} times that to the truth")


def outside(results: xr.Dataset, model: str) -> Judged:
    """Error to the truth over that of the empirical score, on states of fresh draws."""
    says = {
        Verdict.SUPPORTED: "Elsewhere it is nearer to the truth than the rows' score is",
        Verdict.CONTRADICTED: "Elsewhere it is farther from the truth than the rows' score is",
        Verdict.UNDECIDED: "Elsewhere it is as far from the truth as the rows' score is",
    }
    return _judge(results, "space_truth", "copier_space", says, "its error to the truth is {} times that of the rows' score")


def falls(results: xr.Dataset, model: str) -> Judged:
    """Error to the truth on fresh draws, at the end of training over at the first look: geometric mean over seeds, t interval."""
    curves = results["curve_space_truth"].values[results["d"].values == PAPER]
    logs = np.log([one[np.isfinite(one)][-1] / one[np.isfinite(one)][0] for one in curves])
    half = float(stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / len(logs) ** 0.5) if len(logs) > 1 else np.inf
    estimate = Estimate(*(float(np.exp(logs.mean() + side * half)) for side in (0, -1, 1)))
    verdict, reason = below(estimate, 1, "1")
    says = {
        Verdict.SUPPORTED: "Elsewhere it approaches the truth as training goes on",
        Verdict.CONTRADICTED: "Elsewhere it moves away from the truth as training goes on",
        Verdict.UNDECIDED: "Whether it approaches the truth elsewhere as training goes on is undecided",
    }
    phrase = "its error to the truth ends at {} times that of the first look"
    return Judged(says[verdict], verdict, "curve_space_truth", estimate, interval_text(estimate), phrase, len(logs), "seeds", reason=reason)


KEYS = (
    Key("inside_truth", "to the truth, on the shells of the rows", BLUE),
    Key("inside_empirical", "to the rows' score, on the shells", BLUE, (6, 4)),
    Key("space_truth", "to the truth, on noised fresh draws", VERMILLION, (6, 4)),
)
COPIER = Key("copier", "what the rows' score itself errs by, to the truth: on the shells (solid), on fresh draws (dotted)", BLACK, (2, 3))


def draw(results: xr.Dataset) -> Drawing:
    """The curves over training in the paper's dimension; what is left at the end in each dimension."""
    rows: list[Row] = []
    for name, one in _runs(results):
        for key in KEYS:
            values = one[f"curve_{key.name}"]
            rows += [
                {"run": name, "d": int(one["d"]), "curve": key.name, "step": int(step), "value": number(value)}
                for step, value in zip(one["step"].values, values.values, strict=True)
                if np.isfinite(value)
            ]
    paper = [row for row in rows if row["d"] == PAPER]
    levels = [float(results[name].values[results["d"].values == PAPER].mean()) for name in ("copier_inside", "copier_space")]
    ends = [{"value": value} for value in levels]
    y = Vertical.positive([*paper, *ends], "error of the score, per dimension (log)", fields=("value",))
    x = alt.X("step:Q", title="training steps (log)", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(grid=False, format="~s"))
    layers = []
    for key in KEYS:
        here = panel([row for row in paper if row["curve"] == key.name])
        layers.append(
            here.mark_line(color=key.colour, strokeDash=list(key.dash), strokeWidth=1.3).encode(x=x, y=y.of("value"), detail="run:N")
        )
    for level, dash in zip(ends, ([1, 0], [2, 3]), strict=True):
        layers.append(panel([level]).mark_rule(color=BLACK, strokeDash=dash).encode(y=y.of("value")))
    table = _by_dimension(results)
    shares = alt.Y("ratio:Q", title="error, as a share (1: alike)", scale=alt.Scale(zero=True))
    x2 = alt.X("d:O", title="dimensions", axis=alt.Axis(labelAngle=0))
    right = [
        panel([row for row in table if row["which"] == which])
        .mark_line(color=key.colour, strokeDash=list(key.dash), point=alt.OverlayMarkDef(color=key.colour))
        .encode(x=x2, y=shares)
        for key, which in ((KEYS[1], "inside"), (KEYS[2], "space"))
    ]
    left = alt.layer(*layers).properties(width=width_of(2), height=250, title=f"{PAPER} dimensions, over training")
    second = alt.layer(*right).properties(
        width=width_of(2) - 30, height=250,
        title=alt.TitleParams("At the end", subtitle=["blue: over that to the truth", "red: over that of the rows' score"]),
    )  # fmt: skip
    first, last = _ratio(results, "inside_empirical", "inside_truth"), _ratio(results, "space_truth", "copier_space")
    title = (
        f"On the shells the error to the rows' score ends at {interval_text(first)} times that to the truth; "
        f"elsewhere the error to the truth ends at {interval_text(last)} times that of the rows' score"
    )
    return Drawing(title, grid([[left, second]]), rows, (*KEYS, COPIER))


def _by_dimension(results: xr.Dataset) -> list[Row]:
    table: list[Row] = []
    for d in sorted({int(d) for d in results["d"].values}):
        part = results.isel(run=np.flatnonzero(results["d"].values == d))
        for which, above, beneath in (("inside", "inside_empirical", "inside_truth"), ("space", "space_truth", "copier_space")):
            table.append({"d": d, "which": which, "ratio": number(float(part[above].mean() / part[beneath].mean()))})
    return table


RULE = (
    f"Ratio of mean errors in {PAPER} dimensions, paired over states of all seeds. Supported if its 95 % bootstrap interval lies below 1."
)
FALLS = (
    f"Error to the truth on noised fresh draws in {PAPER} dimensions, at the end over at the first look (after a sixtieth), by seed. "
    "Supported if the 95 % t interval of the geometric mean lies below 1, contradicted if above."
)
EXPERIMENT = Experiment(
    "fig10",
    100,
    "A Gaussian whose score is known (Fig. 10, C.6)",
    "Does a network learn the true score or that of its rows, and where?",
    "The rows' score on their shells, the truth elsewhere: there nothing but the network's own bias says what to answer.",
    {
        "smoke": "100 draws of a standard normal in 2 and 20 dimensions, a perceptron of 3 layers of width 32, 60 steps.",
        "desk": "100 draws of a standard normal; a perceptron of 6 layers of width 256 with skips, 20,000 steps of 100 examples at a "
        "rate of 0.001; in 20 dimensions three seeds, in 2, 5, 50 and 200 one.",
        "paper": "100 draws of a standard normal in 20 dimensions; a perceptron of 10 layers of width 1000, 20,000 steps of 100 examples "
        "at a rate of 0.004 (C.6); three seeds.",
    },
    cells,
    gather,
    draw,
    "Errors ‖x̂ − x̂′‖²/(t² d) of the network, averaged over t from 0.1 to 1, to the score of its 100 rows and to the true score, on the "
    "shells of the rows and on noised fresh draws; one line a seed.",
    (
        Reading(
            Claim("inside", 1, inside, "On the shells of its rows the network learns the rows' score", RULE, ("inside_empirical",)),
            "the error to the empirical score goes on falling, that to the truth stays level (Fig. 10, blue)",
        ),
        Reading(
            Claim("outside", 2, outside, "Elsewhere the network is nearer to the truth than the rows' score is", RULE, ("space_truth",)),
            "not reported",
        ),
        Reading(
            Claim("falls", 3, falls, "Elsewhere the network approaches the truth as training goes on", FALLS, ("curve_space_truth",)),
            "over the whole distribution the learned score approaches the truth (Fig. 10, red)",
        ),
    ),
    {
        "desk": "The paper's own perceptron (10 layers of width 1000 without skips, a rate of 0.004) takes hours here; in 300 steps "
        "its loss jumped to 340 and then stayed at 2.05, what always answering the mean would cost. The third claim was added after the "
        "curves were seen: the network stays nearer to the truth than its rows' score is, but does not approach it.",
    },
)
