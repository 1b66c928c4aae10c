"""Fig. 5 (Experiment 4.3, C.7): freedom of extrapolation. One empirical score, that of D_score, is learned on the shells of ever more
rows, those of D_region ⊇ D_score. The wider the region of supervision, the less is left to the network; does it turn to copying?

    minimized         E ‖x̂_θ(z, t) − E[y | z]‖²,  z = α x + σ ε,  x ~ D_region,  y ~ r_z on D_score                        (Eq. 6)
    calibrated ratio  ‖s − y₁‖² / mean of ‖s − y_k‖² over the 50 nearest rows of D_score, for a sample s                    (C.7)
    memorized         the calibrated ratio is below that of 99 % of images that no training saw
    error left        mean of ‖x̂_θ − E[y | z]‖² over t and over shells, as a share of the same of the mean of D_score
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import altair as alt
import numpy as np
import torch
import xarray as xr

from scorescope.charts.grammar import BLACK, BLUE, GREY, LABELS, VERMILLION, Drawing, Key, Row, percent
from scorescope.charts.layers import panel
from scorescope.charts.page import GAP, join, width_of
from scorescope.charts.tables import number
from scorescope.claims import Claim, Judged
from scorescope.claims.claim import Verdict, above, interval_text
from scorescope.denoiser import Denoiser
from scorescope.empirical import EmpiricalScore
from scorescope.experiments.experiment import Cell, Experiment, Reading
from scorescope.experiments.store import Store, generator
from scorescope.nets.sit import SiTSize
from scorescope.nets.unet import UNetSize
from scorescope.probes import memorization
from scorescope.report.pictures import Painter, png
from scorescope.results import COPY
from scorescope.rows import Bank
from scorescope.sampler import sample
from scorescope.statistics import Estimate
from scorescope.theories.gaussian import GaussianScore
from scorescope.training.interpolant import Interpolant
from scorescope.training.objectives.region import Region
from scorescope.training.recipe import Recipe

FACTORS = (1, 2, 4, 8, 27)  # |D_region| / |D_score|
SIDE = 8  # of the images, pooled
SHOWN = 10  # samples of a network that are kept as pictures
RARE = 0.01  # share of unseen images that count as memorized
TIMES = np.arange(1, 20, 2) / 20  # the middles of tenths, so that a mean over them is one over t
SHELLS = ("score", "region", "widest")  # of D_score, of the network's own D_region, of the widest
FAMILIES: dict[str, str] = {"sit": "transformer", "unet": "U-Net"}


@dataclass(frozen=True)
class Size:
    """What a scale runs: |D_score|, multiples, seeds, networks and their steps, samples a network, how, states a time for the error."""

    rows: int
    factors: tuple[int, ...]
    seeds: int
    nets: Mapping[str, tuple[Any, int]]
    samples: int
    solver: Mapping[str, Any]
    states: int


NETS: dict[str, dict[str, tuple[Any, int]]] = {
    "smoke": {"sit": (SiTSize(16, 1, 1, 4), 10), "unet": (UNetSize(2, (1, 2), 1, (), 4), 6)},
    "desk": {"sit": (SiTSize(128, 3, 4, 4), 5_000), "unet": (UNetSize(16, (1, 2), 1, (2,), 16), 2_500)},
}
SIZES = {
    "smoke": Size(60, (1, 27), 1, NETS["smoke"], 12, {"method": "heun", "steps": 6}, 8),
    "desk": Size(166, FACTORS, 3, NETS["desk"], 256, {"method": "dopri5"}, 256),
}


# ---- data and networks --------------------------------------------------------------------------------------------------------


@cache
def pooled(bank: Bank) -> Bank:
    """A bank of 28×28 images as one of 8×8: a margin of two black pixels, then means of 4×4."""
    whole = np.pad(np.asarray(bank.rows), ((0, 0), (0, 0), (2, 2), (2, 2)))
    small = whole.reshape(len(whole), 1, SIDE, 32 // SIDE, SIDE, 32 // SIDE).mean((3, 5))
    return Bank.from_arrays(np.rint(small).astype(np.uint8), bank.labels, name=f"{bank.name}-{SIDE}")


def recipe(scale: str, family: str, factor: int, seed: int) -> Recipe[Any, Any]:
    """One network's training: x is predicted, as C.7 does, without classes, from the closed form of Eq. 6."""
    size = SIZES[scale]
    aim = Region(score_rows=size.rows, region_rows=factor * size.rows, closed_form=True)
    net, steps = size.nets[family]
    return Recipe(net, aim, Interpolant(prediction="x"), steps=steps, batch=64, rate=3e-3, condition="none", seed=seed)


# ---- measuring ----------------------------------------------------------------------------------------------------------------


class Shells:
    """What the error is measured against: the exact answer for D_score, its Gaussian's, and always the mean."""

    def __init__(self, own: Bank) -> None:
        self.exact, self.gaussian, self.mean = EmpiricalScore(own), GaussianScore(own), own.mean

    def errors(self, model: Denoiser, rows: Bank, states: int, rng: torch.Generator) -> np.ndarray:
        """Mean of ‖x̂ − E[y | z]‖²/d at `TIMES` on the shells of `rows`: (3, T), of the model, of the Gaussian, of the mean."""
        found = []
        with torch.inference_mode():
            for t in TIMES.tolist():
                x = rows[torch.randint(len(rows), (states,), generator=rng).numpy()]
                z = (1 - t) * x + t * torch.randn(x.shape, generator=rng)
                right, answers = self.exact(z, t), (model(z, t), self.gaussian(z, t), self.mean.to(z).expand_as(z))
                found.append([float((answer - right).square().mean()) for answer in answers])
        return np.array(found).T


def cells(scale: str) -> list[Cell]:
    """One for each network."""
    size = SIZES[scale]
    return [_cell(scale, family, factor, seed) for seed in range(size.seeds) for family in FAMILIES for factor in size.factors]


def _cell(scale: str, family: str, factor: int, seed: int) -> Cell:
    trained, size = recipe(scale, family, factor, seed), SIZES[scale]

    def compute(store: Store, tell: Callable[[float], None]) -> xr.Dataset:
        bank, unseen = pooled(store.bank("digits")), pooled(store.bank("digits-held-out"))
        model = store.trained(trained, bank, lambda share: tell(0.9 * share))
        own, shown = trained.learned(bank), trained.shown(bank)
        widest = replace(trained.objective, region_rows=max(size.factors) * size.rows)
        shells = (own, trained.objective.rows(shown, seed), widest.rows(shown, seed))
        samples = sample(model, size.samples, seed=seed, device=store.device, **size.solver).cpu()
        near, real = (memorization.nearest(own, x) for x in (samples, unseen[np.arange(len(unseen))]))
        measure, model = Shells(own), model.to("cpu")
        left = np.stack([measure.errors(model, rows, size.states, generator(seed, k)) for k, rows in enumerate(shells)])
        painter = Painter(own.shape, own.low, own.high, SIDE)
        pictures = (samples[:SHOWN], own[near["nearest_index"][:SHOWN, 0]])
        return (
            xr.Dataset(
                {
                    "ratio": ("sample", near["ratio_calibrated"].astype(np.float32)),
                    "ratio_second": ("sample", near["ratio_second"].astype(np.float32)),
                    "unseen_ratio": ("unseen", real["ratio_calibrated"].astype(np.float32)),
                    "error": (("shells", "denoiser", "time"), left.astype(np.float32)),
                    "picture": (("what", "shown", "y", "x"), np.array([[painter.tile(x.numpy()) for x in each] for each in pictures])),
                },
                coords={"shells": list(SHELLS), "denoiser": ["network", "gaussian", "mean"], "time": TIMES, "what": ["sample", "row"]},
            )
            .expand_dims(run=[f"{family} {factor} {seed}"])
            .assign(family=("run", [family]), factor=("run", [factor]), seed=("run", [seed]), parameters=("run", [model.parameters_count]))
        )

    about = {"recipe": trained.record(), "side": SIDE, "samples": size.samples, **size.solver, "states": size.states}
    return Cell(f"{family}-{factor}x-seed{seed}", about, compute, minutes=0.05 if scale == "smoke" else 3.0)


def gather(found: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """All networks along `run`."""
    return xr.concat(list(found.values()), "run", combine_attrs="drop")


# ---- reading ------------------------------------------------------------------------------------------------------------------


def of(results: xr.Dataset, family: str, factor: int) -> xr.Dataset:
    """The networks of a family and a factor, one a seed, in the seeds' order."""
    return results.isel(run=np.flatnonzero((results["family"].values == family) & (results["factor"].values == factor))).sortby("seed")


def factors(results: xr.Dataset) -> list[int]:
    """The multiples that were run."""
    return sorted({int(factor) for factor in results["factor"].values})


def limits(part: xr.Dataset) -> np.ndarray:
    """The calibrated ratio that only 1 % of unseen images go below: (seed,)."""
    return np.quantile(part["unseen_ratio"].values, RARE, axis=1)


def memorized(part: xr.Dataset) -> np.ndarray:
    """Which samples go below it: (seed, sample)."""
    return np.asarray(part["ratio"].values < limits(part)[:, None])


def left(part: xr.Dataset, shells: str, denoiser: str = "network") -> np.ndarray:
    """Share of the error of always answering the mean that a denoiser leaves on some shells: (seed,)."""
    mean = part["error"].sel(shells=shells).mean("time")
    return np.asarray((mean.sel(denoiser=denoiser) / mean.sel(denoiser="mean")).values)


def over_seeds(values: np.ndarray, draws: int = 2000) -> Estimate:
    """Mean of values (seed, sample), with its 95 % bootstrap interval over seeds and over samples within them."""
    rng, (seeds, n) = np.random.default_rng(0), values.shape
    again = [float(values[s[:, None], rng.integers(n, size=(seeds, n))].mean()) for s in rng.integers(seeds, size=(draws, seeds))]
    return Estimate(float(values.mean()), *(float(q) for q in np.quantile(again, (0.025, 0.975))))


def judge(results: xr.Dataset, family: str) -> Judged:
    """Share of memorized samples at the widest region minus that at D_score's own; the same seeds and noise on both sides."""
    known = factors(results)
    parts = {factor: of(results, family, factor) for factor in known}
    first, last = (memorized(parts[factor]).astype(float) for factor in (known[0], known[-1]))
    estimate = over_seeds(last - first)
    verdict, reason = above(estimate, 0, "0")
    name = FAMILIES[family]
    says = {
        Verdict.SUPPORTED: f"The wider its region of supervision, the more samples of the {name} are copies",
        Verdict.CONTRADICTED: f"With a wider region of supervision fewer samples of the {name} are copies",
        Verdict.UNDECIDED: f"Whether samples of the {name} are copies more often with a wider region is undecided",
    }
    shares = [float(memorized(parts[factor]).mean()) for factor in known]
    steady = "It rises at every step" if bool((np.diff(shares) > 0).all()) else "It does not rise at every step"
    medians, thirds, fits = (
        ", ".join(one(parts[factor]) for factor in known)
        for one in (
            lambda part: f"{float(np.median(part['ratio'])):.2f}",
            lambda part: percent(float((part["ratio_second"] < COPY).mean())),
            lambda part: percent(float(left(part, "region").mean())),
        )
    )
    note = (
        f"Memorized at {', '.join(map(str, known))} ×: {', '.join(map(percent, shares))}. {steady}. Median calibrated ratio {medians} "
        f"(unseen images {float(np.median(parts[known[0]]['unseen_ratio'])):.2f}); nearest below a third of the second-nearest: {thirds}. "
        f"Error left on the shells of the own region, as a share of always answering the mean: {fits}."
    )
    figure = interval_text(estimate, scale=100, suffix=" points")
    phrase = f"{{}} of 100 more at {known[-1]} × than at {known[0]} ×"
    return Judged(says[verdict], verdict, "ratio", estimate, figure, phrase, last.size, "samples an arm", reason=reason, note=note)


RULE = (
    f"Share of memorized samples (calibrated ratio of C.7 below that of {100 * (1 - RARE):.0f} % of unseen images) at the largest region "
    "minus that at D_score's own. Supported if its 95 % interval, bootstrap over seeds and samples, lies above 0, contradicted if below."
)
PAPER = {
    "sit": "memorization ratio 0.08, 0.41, 0.76, 0.82, 0.85 at 1, 2, 4, 8 and about 27 × (SiT-L, ImageNet; Fig. 5c)",
    "unet": "memorization ratio 0.00, 0.01, 0.05, 0.59, 0.80 at 1, 2, 4, 8 and about 27 × (U-Net-B, ImageNet; Fig. 5c)",
}


def _reading(family: str, order: int) -> Reading:
    sentence = f"A {FAMILIES[family]} copies the more, the wider the region on which it learns one and the same score"
    return Reading(Claim(family, order, lambda results, model: judge(results, family), sentence, RULE, ("ratio",)), PAPER[family])


# ---- the figure ---------------------------------------------------------------------------------------------------------------


def draw(results: xr.Dataset) -> Drawing:
    """A column for each family: memorized samples, the error left, and pictures at both ends."""
    rows, known, columns = [], factors(results), []
    for family in FAMILIES:
        here = _rows(results, family)
        strips = [_strip(of(results, family, factor), factor) for factor in (known[0], known[-1])]
        columns.append(join("vconcat", [_memorized(here, family), _left(here), *strips], 20))
        rows += here
    shares = [
        f"{percent(float(memorized(of(results, family, known[0])).mean()))} → "
        f"{percent(float(memorized(of(results, family, known[-1])).mean()))} ({name})"
        for family, name in FAMILIES.items()
    ]
    title = f"Memorized samples, as the region grows from {known[0]} to {known[-1]} times D_score: {', '.join(shares)}"
    return Drawing(title, join("hconcat", columns, GAP), rows, KEYS)


KEYS = (
    Key("memorized", "memorized samples, one dot a seed; band: 95 % bootstrap over seeds and samples", VERMILLION, shape="circle"),
    Key("region", "error left on the shells of the own region", BLUE, shape="circle"),
    Key("widest", "on those of the widest region", BLUE, (2, 3)),
    Key("gaussian", "Gaussian denoiser of D_score, own region", BLACK, (4, 3)),
    Key("unseen", f"unseen images ({percent(RARE)} by definition)", GREY, (7, 4)),
)


def _rows(results: xr.Dataset, family: str) -> list[Row]:
    """The numbers drawn, and those beside them: one row for each network."""
    rows: list[Row] = []
    for factor in factors(results):
        part = of(results, family, factor)
        share, low, high = over_seeds(memorized(part).astype(float))
        own = {
            "share": memorized(part).mean(1),
            "median_ratio": np.median(part["ratio"], axis=1),
            "unseen_median_ratio": np.median(part["unseen_ratio"], axis=1),
            "limit_of_ratio": limits(part),
            "share_below_third": (part["ratio_second"] < COPY).mean("sample").values,
            **{f"left_{name}": left(part, name) for name in SHELLS},
            "left_gaussian": left(part, "region", "gaussian"),
            "parameters": part["parameters"].values,
        }
        about = {"family": family, "factor": factor, "mean_share": number(share), "low": number(low), "high": number(high)}
        rows += [
            {**about, "seed": int(seed), **{name: number(values[k]) for name, values in own.items()}}
            for k, seed in enumerate(part["seed"].values)
        ]
    return rows


def _across(rows: list[Row], title: str | None) -> alt.X:
    """The axis of |D_region| / |D_score|."""
    ticks = sorted({row["factor"] for row in rows})
    axis = alt.Axis(values=ticks, format="d", title=title, grid=False, labelOverlap=False)
    return alt.X("factor:Q", scale=alt.Scale(type="log", base=2, domain=[0.9, 30], nice=False), axis=axis)


def _share(field: str, title: str, most: float | None) -> alt.Y:
    """An axis of shares from 0, to `most` where it is given."""
    scale = alt.Scale(zero=True) if most is None else alt.Scale(domain=[0, most])
    return alt.Y(f"{field}:Q", title=title, scale=scale, axis=alt.Axis(format="%", tickCount=5, minExtent=LABELS))


def _memorized(rows: list[Row], family: str) -> Any:
    x, title = _across(rows, None), "memorized samples"
    layers = [
        panel(rows).mark_area(color=VERMILLION, fillOpacity=0.18, opacity=1).encode(x=x, y=_share("low", title, 1), y2="high:Q"),
        panel(rows).mark_line(color=VERMILLION, strokeWidth=2).encode(x=x, y=_share("mean_share", title, 1)),
        panel(rows).mark_point(color=VERMILLION, filled=True, size=38, opacity=1).encode(x=x, y=_share("share", title, 1)),
        panel([{"share": RARE}]).mark_rule(color=GREY, strokeDash=[7, 4]).encode(y=_share("share", title, 1)),
    ]
    return alt.layer(*layers).properties(width=width_of(2), height=170, title=FAMILIES[family])


def _left(rows: list[Row]) -> Any:
    x, title = _across(rows, "|D_region| / |D_score| (log)"), "error left"
    layers = [
        panel(rows)
        .mark_line(color=key.colour, strokeDash=list(key.dash), strokeWidth=1.6)
        .encode(x=x, y=_share(f"mean(left_{key.name})", title, None))
        for key in KEYS[1:4]
    ]
    layers.append(panel(rows).mark_point(color=BLUE, filled=True, size=26, opacity=1).encode(x=x, y=_share("left_region", title, None)))
    return alt.layer(*layers).properties(width=width_of(2), height=110)


def _strip(part: xr.Dataset, factor: int) -> Any:
    """Samples of the first seed above their nearest rows, in one picture."""
    tiles = part["picture"].values[0]  # (2, shown, y, x)
    framed = np.pad(tiles, ((0, 0), (0, 0), (0, 1), (0, 1)), constant_values=255)
    sheet = np.concatenate([np.concatenate(list(line), axis=1) for line in framed], axis=0)
    picture = png(np.kron(sheet, np.ones((4, 4), np.uint8)))  # enlarged here, so that no viewer blurs the pixels
    width = width_of(2)
    height = round(width * sheet.shape[0] / sheet.shape[1])
    mark = panel([{"x": width / 2, "y": height / 2}]).mark_image(width=width, height=height, url=picture, aria=False)
    image = mark.encode(x=alt.X("x:Q", scale=None, axis=None), y=alt.Y("y:Q", scale=None, axis=None))
    title = alt.TitleParams(f"{factor} ×: samples, and below each its nearest row of D_score", fontSize=11.5, fontWeight="normal", offset=3)
    return image.properties(width=width, height=height, title=title, view=alt.ViewBackground(stroke=None))


EXPERIMENT = Experiment(
    "fig5",
    50,
    "Freedom of extrapolation (Fig. 5, Experiment 4.3, C.7)",
    "The score to be learned stays the same. Does a network turn from new images to copies when it is supervised on a wider region?",
    "On few shells nothing says what to answer between them, and the network's own bias draws something new; on shells of many other "
    "rows it is told to lead to the nearest of the few.",
    {
        "smoke": "60 digits of 8×8 as D_score, regions of 1 and 27 times as many, ten steps, one seed.",
        "desk": "D_score: 166 of the 4,500 digits, pooled to 8×8, other ones for each of three seeds; D_region: 1, 2, 4, 8 and 27 times as "
        "many, up to 4,482. A transformer (978 thousand parameters, 5,000 steps) and a U-Net (208 thousand, 2,500 steps), without classes, "
        "64 examples a step at a rate of 0.003, from the closed form of Eq. 6. 256 samples each by dopri5; unseen images are 500 digits "
        "held out.",
    },
    cells,
    gather,
    draw,
    "Above, the share of samples that are nearer to one row of D_score than 99 % of unseen images are (calibrated ratio, C.7). Middle, "
    "what is left of the error to the exact score of D_score, as a share of the error of always answering the mean: on the shells of "
    "the network's own region, and on those of the widest. Below, samples beside their nearest rows.",
    (_reading("sit", 1), _reading("unet", 2)),
    {},
)
