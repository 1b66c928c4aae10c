"""The region that was learned: how far from the shells a network goes on answering with the empirical score, over sizes and training.

Two ways lead off a shell, at every t: thicker or thinner noise, z = α x + k σ ε, and the segment from a shell's state to that of a
sampling path that began with the same noise, z = (1 − λ)(α x′ + σ ε) + λ z_path, x′ the row nearest to where the path ends. All networks
are asked at the same states, those of sampling being the largest network's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scorescope import regions
from scorescope.charts.grammar import Drawing
from scorescope.claims import Claim, Judged
from scorescope.claims.claim import Verdict, above, below, interval_text, number_text
from scorescope.demo import MODELS
from scorescope.denoiser import Denoiser
from scorescope.empirical import EmpiricalScore
from scorescope.experiments import shipped
from scorescope.experiments.experiment import Cell, Experiment, Reading
from scorescope.experiments.reach import MULTIPLE, Reaches, estimate
from scorescope.experiments.reach_figure import figure
from scorescope.experiments.shared import FASHION
from scorescope.experiments.store import Store
from scorescope.nets.sit import SiTSize
from scorescope.rows import Bank
from scorescope.sampler import Solver, trajectory
from scorescope.statistics import Estimate, Values
from scorescope.theories.gaussian import GaussianScore
from scorescope.training.examples import unlabelled
from scorescope.training.interpolant import Interpolant
from scorescope.training.objectives.mismatch import Mismatch
from scorescope.training.objectives.region import Region
from scorescope.training.recipe import Recipe

Tell = Callable[[float], None]
Rule = Callable[[Estimate, float, str], tuple[Verdict, str]]
WIDER = 4.0  # of the error on the shells: told beside the rules' level
THICKNESSES = (1.0, 1.5, 2.5)  # noise factors up to which the controls were trained
NEAR = 0.01  # the t at which the row nearest to a finished sample is asked for
BATCH = 256  # states that go through a network together


@dataclass(frozen=True)
class Size:
    """What a scale is: names of the bank and of networks; how many states, times, factors and shares; rows of the controls."""

    bank: str
    nets: tuple[str, ...]
    steps: tuple[int, ...]
    states: int
    times: tuple[float, ...]
    factors: int
    shares: int
    few: int
    solver: Mapping[str, Any]


SIZES = {
    "smoke": Size("digits", MODELS[:2], (8_000,), 16, (0.3, 0.7), 5, 3, 40, {"method": "heun", "steps": 6}),
    "desk": Size(FASHION.bank, ("sit-xs", "sit-s", "sit-m", "sit-l"), FASHION.lengths, 100, (0.1, 0.3, 0.5, 0.7, 0.9), 17, 11, 100, {}),
}


# ---- networks -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """Whose error is measured.

    Attributes:
        name: "size@step", or of a control.
        make: From the store to the model.
        about: What it is made of.
        few: Whether it learned the score of the controls' few rows.
        minutes: How long its training takes, where no other experiment shares it.
    """

    name: str
    make: Callable[[Store, Tell], Denoiser]
    about: Mapping[str, Any]
    few: bool = False
    minutes: float = 0.0


def subjects(scale: str) -> list[Subject]:
    """Sizes by steps, the Gaussian, and the controls with the Gaussian of their rows."""
    sized = [_sized(scale, name, step) for name in SIZES[scale].nets for step in SIZES[scale].steps]
    controls = [_control(scale, f"thickness {most:g}", Mismatch(most)) for most in THICKNESSES]
    return [*sized, _gaussian(scale, few=False), *controls, _control(scale, "region", Region(SIZES[scale].few)), _gaussian(scale, few=True)]


def _sized(scale: str, name: str, step: int) -> Subject:
    if scale == "smoke":
        return Subject(f"{name}@{step}", lambda store, tell: shipped.make(store, name), {"weights": shipped.ABOUT["weights"][name]})
    recipe = FASHION.recipe(name)
    return Subject(f"{name}@{step}", lambda store, tell: FASHION.make(store, recipe, step), {"recipe": recipe.record(), "step": step})


def _gaussian(scale: str, few: bool) -> Subject:
    name = "gaussian of few" if few else "gaussian"
    return Subject(name, lambda store, tell: GaussianScore(rows(store, scale, few), device=store.device), {}, few)


def _control(scale: str, name: str, objective: Mismatch | Region) -> Subject:
    """A network that learned the score of few rows, which it has room for: on their shells, on thicker ones, or on those of all rows."""
    plain: Recipe[Any, Any] = FASHION.recipe("sit-s", objective)
    if scale == "smoke":
        plain = replace(plain, net=SiTSize(width=16, depth=1, heads=2, patch=7), steps=10, batch=16)
    recipe = replace(plain, interpolant=Interpolant(prediction="x"), condition="none")

    def make(store: Store, tell: Tell) -> Denoiser:
        return store.trained(recipe, rows(store, scale, few=isinstance(objective, Mismatch)), tell)

    return Subject(name, make, {"recipe": recipe.record()}, few=True, minutes=8.0 if scale == "desk" else 0.01)


@cache
def rows(store: Store, scale: str, few: bool) -> Bank:
    """All rows, or those whose score the controls learn, without labels."""
    bank = store.bank(SIZES[scale].bank)
    return Region(SIZES[scale].few).learned(unlabelled(bank), 0) if few else bank


# ---- states -------------------------------------------------------------------------------------------------------------------


def factors(scale: str) -> Values:
    """Noise factors k from a quarter to four, 1 among them."""
    return np.geomspace(1 / 4, 4, SIZES[scale].factors)


def shares(scale: str) -> Values:
    """Shares λ of the way to the sampling path."""
    return np.linspace(0, 1, SIZES[scale].shares)


class States:
    """The states at which all models of some rows are asked, with the exact answers: those off the shells, and those on the way.

    Attributes:
        asked: "thick" and "way", each by time (G, P, *shape).
        exact: Posterior means of these.
        label: (P,) classes of the training pairs, and of the sampling paths; None where the rows have none.
    """

    def __init__(self, bank: Bank, guide: Denoiser, scale: str, device: str) -> None:
        size = SIZES[scale]
        self.times, truth = size.times, EmpiricalScore(bank, device=device)
        pairs = regions.supervision(bank, size.states, 0, list(range(bank.classes))).to(device)
        label = regions.path_labels(list(range(guide.classes)), size.states)
        drawn = None if label is None else label.to(device)
        starts = regions.path_starts(bank, size.states, 0, label, 1.0).to(device)
        sampled = trajectory(guide, starts, [0.0, *self.times], drawn, solver=Solver(**size.solver))
        paths = drawn if bank.classes else None
        nearest = truth.posterior((1 - NEAR) * sampled[:, 0], NEAR, paths).top_index
        shells = regions.Noised(truth.rows(nearest).to(starts), starts, paths)
        self.label = {"thick": pairs.label, "way": paths}
        self.asked: dict[str, list[Tensor]] = {"thick": [], "way": []}
        for k, t in enumerate(self.times):
            self.asked["thick"].append(torch.stack([replace(pairs, eps=float(f) * pairs.eps).at(t) for f in factors(scale)]))
            on, off = shells.at(t), sampled[:, k + 1]
            self.asked["way"].append(torch.stack([on + float(share) * (off - on) for share in shares(scale)]))
        self.exact = {kind: self.means(truth, kind) for kind in self.asked}

    def means(self, model: Denoiser, kind: str) -> list[Tensor]:
        """A model's posterior means at the states of a kind, by time (G, P, *shape)."""
        found = []
        for t, states in zip(self.times, self.asked[kind], strict=True):
            flat, label = states.flatten(0, 1), self.label[kind]
            tags = None if label is None else label.repeat(len(states))
            with torch.inference_mode():
                parts = [model(flat[at], t, None if tags is None else tags[at]) for at in torch.arange(len(flat)).split(BATCH)]
            found.append(torch.cat(parts).reshape(states.shape))
        return found

    def errors(self, model: Denoiser, kind: str) -> np.ndarray:
        """‖x̂_θ(z) − x̂*(z)‖²/d, (T, G, P)."""
        both = zip(self.means(model, kind), self.exact[kind], strict=True)
        return np.stack([((mean.double() - right.double()) ** 2).flatten(2).mean(2).cpu().numpy() for mean, right in both])


@lru_cache(maxsize=1)
def states(store: Store, scale: str, few: bool) -> States:
    """Those of a scale: made once for all the networks that learned the same rows, which come one after the other."""
    guide = _sized(scale, SIZES[scale].nets[-1], SIZES[scale].steps[-1]).make(store, lambda share: None)
    return States(rows(store, scale, few), guide, scale, store.device)


# ---- cells --------------------------------------------------------------------------------------------------------------------


def cells(scale: str) -> list[Cell]:
    """One for each subject."""
    return [_cell(scale, one) for one in subjects(scale)]


def _cell(scale: str, subject: Subject) -> Cell:
    size = SIZES[scale]
    guide = _sized(scale, size.nets[-1], size.steps[-1])

    def compute(store: Store, tell: Tell) -> xr.Dataset:
        model = subject.make(store, lambda share: tell(0.8 * share))
        here = states(store, scale, subject.few)
        found = {}
        for kind, place in (("thick", "factor"), ("way", "share")):
            found[kind] = (("time", place, "state"), here.errors(model, kind).astype(np.float32))
            tell(0.9)
        places = {"time": list(size.times), "factor": factors(scale), "share": shares(scale)}
        return xr.Dataset(found, coords=places).expand_dims(network=[subject.name]).assign(
            parameters=("network", [model.parameters_count])
        )  # fmt: skip

    about = {**subject.about, "few": subject.few, "guide": dict(guide.about), "size": {**vars(size), "solver": dict(size.solver)}}
    minutes = subject.minutes + (0.7 if scale == "desk" else 0.01)
    return Cell(subject.name.replace(" ", "-").replace("@", "-"), about, compute, minutes)


def gather(found: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """All along `network`."""
    return xr.concat(list(found.values()), "network", combine_attrs="drop")


# ---- reading ------------------------------------------------------------------------------------------------------------------


def _judge(
    judged: Estimate, threshold: float, variable: str, phrase: str, words: Sequence[str], states: int, note: str, rule: Rule = above
) -> Judged:
    verdict, reason = rule(judged, threshold, f"{threshold:g}")
    says = dict(zip((Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED), words, strict=True))
    return Judged(says[verdict], verdict, variable, judged, interval_text(judged), phrase, states, "states", reason=reason, note=note)


def _ratio(values: Values) -> Estimate:
    """Of the geometric mean over times of a difference of logarithms (T, 1 + draws)."""
    return Estimate(*(float(value) for value in np.exp(estimate(values.mean(0)))))


def _listed(values: Mapping[str, float]) -> str:
    return ", ".join(f"{number_text(value, 2)} ({name})" for name, value in values.items())


def _by_size(found: Reaches, level: str = "", multiple: float = MULTIPLE) -> str:
    return _listed({size: found.mean_noise(f"{size}@{found.steps[-1]}", level, multiple).value for size in found.sizes})


def grows_own(results: xr.Dataset, model: str) -> Judged:
    """Largest over smallest network, each by its own error on the shells."""
    found = Reaches(results)
    change = _ratio(found.noise(found.largest) - found.noise(found.smallest))
    inward = min(float(np.exp(found.noise(f"{size}@{found.steps[-1]}", inward=True)[:, 0].max())) for size in found.sizes)
    note = (
        f"Noise factor at {MULTIPLE:g} times the own error, smallest to largest: {_by_size(found)}; at {WIDER:g} times "
        f"{_by_size(found, multiple=WIDER)}; of the Gaussian denoiser {found.mean_noise('gaussian').value:.2f} and "
        f"{found.mean_noise('gaussian', multiple=WIDER).value:.2f}. With less noise than the shells' the error stays below down to "
        f"{inward:.2g} times it{', the end of the grid' if inward <= found.factors[0] * 1.001 else ''}. Error on the shells over the "
        f"Gaussian's: smallest {found.fit(found.smallest)}, largest {found.fit(found.largest)}."
    )
    words = (
        "Relative to its error on the shells, a larger network's error stays low farther off them",
        "Relative to its error on the shells, a larger network's error stays low less far off them",
        "Whether, relative to its error on the shells, a larger network's error stays low farther off them is undecided",
    )
    return _judge(change, 1, "thick", "noise factor {} times the smallest's", words, results.sizes["state"], note)


def grows_common(results: xr.Dataset, model: str) -> Judged:
    """Largest over smallest network, at a level of error that is the same for both."""
    found = Reaches(results)
    level = found.smallest
    change = _ratio(found.noise(found.largest, level) - found.noise(level))
    note = (
        f"Noise factor up to which the error is below {MULTIPLE:g} times that of the smallest network on the shells, smallest to largest: "
        f"{_by_size(found, level)}; below {WIDER:g} times {_by_size(found, level, WIDER)}."
    )
    words = (
        "At the same level of error, a larger network's error stays below it farther off the shells",
        "At the same level of error, a larger network's error stays below it less far off the shells",
        "Whether a larger network's error stays below the same level farther off the shells is undecided",
    )
    return _judge(change, 1, "thick", "noise factor {} times the smallest's", words, results.sizes["state"], note)


def in_training(results: xr.Dataset, model: str) -> Judged:
    """The largest network at its last kept step over its first."""
    found = Reaches(results)
    size = found.sizes[-1]
    first = f"{size}@{found.steps[0]}"
    change = _ratio(found.noise(found.largest) - found.noise(first))
    note = "Noise factor by step: " + "; ".join(
        f"{one} {_listed({f'{step:,}': found.mean_noise(f'{one}@{step}').value for step in found.steps})}" for one in found.sizes
    )
    words = (
        "In training, relative to the error on the shells, the error comes to stay low farther off them",
        "In training, relative to the error on the shells, the error comes to stay low less far off them",
        "Whether in training the error comes to stay low farther off the shells is undecided",
    )
    return _judge(change, 1, "thick", "noise factor {} times that of the first look", words, results.sizes["state"], f"{note}.")


def thicker(results: xr.Dataset, model: str) -> Judged:
    """Slope of log k* against the logarithm of the thickness that was trained."""
    found = Reaches(results)
    names = [f"thickness {most:g}" for most in THICKNESSES]
    x = np.log(THICKNESSES) - np.log(THICKNESSES).mean()
    slope = estimate(sum(w * found.noise(name).mean(0) for w, name in zip(x / (x @ x), names, strict=True)))
    told = {f"trained to {most:g}": found.mean_noise(name).value for most, name in zip(THICKNESSES, names, strict=True)}
    wide = {f"trained to {most:g}": found.mean_noise(name, names[0]).value for most, name in zip(THICKNESSES, names, strict=True)}
    note = (
        f"Noise factor at {MULTIPLE:g} times the own error {_listed(told)}; at that of the first {_listed(wide)}. Error on the shells over "
        f"the Gaussian's: {'; '.join(f'{name} {found.fit(name)}' for name in names)}."
    )
    words = (
        "A network that was trained on thicker shells has a wider learned region, as it must",
        "A network that was trained on thicker shells has a narrower learned region: the measure does not see what was trained",
        "Whether the measure sees thicker shells is undecided",
    )
    phrase = "log noise factor rises by {} for each unit of log thickness"
    return _judge(slope, 0, "thick", phrase, words, results.sizes["state"], note)


def wider(results: xr.Dataset, model: str) -> Judged:
    """Share of the way to sampling: trained on the shells of all rows, less on those of the few alone."""
    found = Reaches(results)
    plain = f"thickness {THICKNESSES[0]:g}"
    change = estimate((found.way("region") - found.way(plain)).mean(0))
    ends = {name: np.exp(np.log(found.medians(name, "way")[:, [0, -1], 0]).mean(0)) for name in ("region", plain)}
    level = found.way("region", plain).mean(0)[0]
    note = (
        f"Share of the way: {found.way('region').mean(0)[0]:.2f} trained on all, {found.way(plain).mean(0)[0]:.2f} on the few; at the "
        f"level of the second {level:.2f}. Error per dimension on the shells {ends['region'][0]:.3g} and {ends[plain][0]:.3g}, at the "
        f"sampling path {ends['region'][1]:.3g} and {ends[plain][1]:.3g}. Error on the shells over the Gaussian's: "
        f"region {found.fit('region')}."
    )
    words = (
        "Trained on the shells of all rows, a network follows the score of few farther toward where sampling goes, as it must",
        "Trained on the shells of all rows, a network follows the score of few less far: the measure does not see what was trained",
        "Whether the measure sees shells of more rows is undecided",
    )
    judged = _judge(change, 0, "way", "{} of the way more", words, results.sizes["state"], note)
    lower = _ratio(np.log(found.medians("region", "way")[:, -1]) - np.log(found.medians(plain, "way")[:, -1]))
    if judged.verdict is Verdict.SUPPORTED and not lower.high < 1:
        said = f"its error at the sampling path is {interval_text(lower)} times the other's"
        return replace(judged, says=words[2], verdict=Verdict.UNDECIDED, reason=said)
    return judged


def sampling(results: xr.Dataset, model: str) -> Judged:
    """Share of the way to the sampling path at which the largest network's error is still low."""
    found = Reaches(results)
    share = estimate(found.way(found.largest).mean(0))
    by_time = ", ".join(f"{value:.2f} (t = {t:g})" for value, t in zip(found.way(found.largest)[:, 0], found.times, strict=True))
    sizes = _listed({size: float(found.way(f"{size}@{found.steps[-1]}").mean(0)[0]) for size in found.sizes})
    note = (
        f"By time {by_time}. Smallest to largest: {sizes}; Gaussian denoiser {found.way('gaussian').mean(0)[0]:.2f}. "
        f"At {WIDER:g} times the error the largest {found.way(found.largest, multiple=WIDER).mean(0)[0]:.2f}."
    )
    words = (
        "The learned region ends short of where sampling goes",
        "The learned region reaches to where sampling goes",
        "Whether the learned region reaches to where sampling goes is undecided",
    )
    return _judge(share, 0.9, "way", "the error stays low for {} of the way", words, results.sizes["state"], note, below)


# ---- the figure ---------------------------------------------------------------------------------------------------------------


def draw(results: xr.Dataset) -> Drawing:
    """Titled by how the reach changes from the smallest to the largest network."""
    own, common = grows_own(results, ""), grows_common(results, "")
    title = (
        f"From the smallest to the largest network the noise up to which the error stays low is multiplied by {own.figure} relative to "
        f"each one's own error on the shells, by {common.figure} at the same level of error"
    )
    return figure(Reaches(results), THICKNESSES, title)


# ---- claims -------------------------------------------------------------------------------------------------------------------

CROSSING = (
    f"Median error over states against the noise factor k; k* is where it first exceeds {MULTIPLE:g} times that at k = 1, log-linear "
    "between factors."
)
INTERVAL = "95 % bootstrap interval over states"
OPEN = "not in the paper"
READINGS = (
    (
        Claim(
            "own",
            1,
            grows_own,
            "Relative to its error on the shells, a larger network's learned region is wider",
            f"{CROSSING} Ratio of the largest network's k* to the smallest's, geometric mean over t. Supported if its {INTERVAL}, the same "
            "for both, lies above 1, contradicted if below.",
            ("thick",),
        ),
        OPEN,
    ),
    (
        Claim(
            "common",
            2,
            grows_common,
            "At the same level of error, a larger network's learned region is wider",
            f"As the first, at {MULTIPLE:g} times the smallest network's error at k = 1; k* is 1 where the error is above that already.",
            ("thick",),
        ),
        OPEN,
    ),
    (
        Claim(
            "training",
            3,
            in_training,
            "In training, relative to the error on the shells, the learned region widens",
            "As the first, for the largest network at its last kept step over its first.",
            ("thick",),
        ),
        OPEN,
    ),
    (
        Claim(
            "sampling",
            4,
            sampling,
            "The learned region ends short of where sampling goes",
            f"Share λ of the segment from a shell's state to the sampling path's at which the median error first exceeds {MULTIPLE:g} "
            f"times that at λ = 0, largest network, mean over t. Supported if its {INTERVAL} lies below 0.9, contradicted if above.",
            ("way",),
        ),
        "sampling leaves the region that training supervises (section 3)",
    ),
    (
        Claim(
            "thicker",
            5,
            thicker,
            "Control: training on thicker shells widens the learned region",
            "Slope of log k* (mean over t) against the logarithm of the thickness that was trained, over three networks. Supported if its "
            f"{INTERVAL}, the same for all, lies above 0, contradicted if below.",
            ("thick",),
        ),
        OPEN,
    ),
    (
        Claim(
            "region",
            6,
            wider,
            "Control: training on the shells of more rows widens it toward where sampling goes",
            "λ as above, of a network that learned the score of few rows on the shells of all, less that of one that learned it on the "
            f"shells of the few; mean over t. Supported if its {INTERVAL}, the same for both, lies above 0, and that of the ratio of their "
            "errors at the sampling path below 1; contradicted if λ's lies below 0.",
            ("way",),
        ),
        OPEN,
    ),
)
EXPERIMENT = Experiment(
    "dynamics",
    130,
    "The region that was learned, over sizes and training",
    "How far from the shells does a network go on answering with the empirical score, and does that region grow with capacity?",
    "Training shows the shells alone. A smooth network answers as well a little off them; farther off nothing asks it to. A better fit "
    "lowers the error on the shells first, so that the region is asked for twice: relative to that error, and at a level that is the same "
    "for all. Networks that were shown thicker shells, or more of them, must be seen to have a wider region.",
    {
        "smoke": "The demo's two smaller networks on their digits; controls of 10 steps on 40 digits; 16 states at 2 times.",
        "desk": "Four transformers of 52 to 898 thousand parameters on the 60,000 images of Fashion-MNIST, at 1,500, 2,500 and 4,000 "
        "steps; one seed each. 100 states at t = 0.1, 0.3, 0.5, 0.7 and 0.9, the same for all; 17 noise factors from a quarter to four; 11 "
        "places on the way to the sampling paths of the largest. Controls: the second of these sizes, without classes, predicts the clean "
        "point and learns the exact score of 100 images: on their shells, on shells of up to 1.5 and 2.5 times the noise, and on the "
        "shells of all 60,000.",
    },
    cells,
    gather,
    draw,
    "The error to the exact score off the shells, with k times their noise; and along the segment to the state of a sampling path that "
    "began with the same noise. A network's learned region ends where the median error first exceeds twice that on the shells (dots); in "
    "“by size” thin lines are earlier steps. Bands and bars hold 95 % of resamples of the states.",
    tuple(Reading(*one) for one in READINGS),
    {
        "desk": "Levels and rules were fixed after a look at the demo's networks, at the smallest and the largest of these after 1,500 "
        "steps, and at three of the controls after 1,200. The controls learn few rows since a network of their size has no room for the "
        "thousands of C.7. One seed of each was trained, so that intervals say nothing of other seeds.",
    },
)
