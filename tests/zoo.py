"""The zoo: subjects whose truth is known, and what they must be told. A rule that judges one of them wrongly is a bug of the rule.

    python -m tests.zoo        measures all of them and writes docs/verdicts.md

The rows are real handwritten digits of 8 × 8 pixels (a quarter held out), and draws from a Gaussian and from a mixture of two whose
scores are known; the demo's digits and network are the demo's. Networks are trained here, in seconds, by this package's own training.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import scorescope as ss
from scorescope import demo
from scorescope.nets.mlp import MLPSize
from scorescope.rows.hold_out import hold_out
from scorescope.training.interpolant import Interpolant
from scorescope.training.loop import train
from scorescope.training.recipe import Recipe

TABLE = Path(__file__).parents[1] / "docs" / "verdicts.md"
OPTIONS = {"paths": 48, "times": 12, "origins": 32, "nulls": 200, "solver": "heun", "steps": 12, "quiet": True}
D = 64
Banks = tuple[ss.Bank, ss.Bank]  # rows to train on, rows held out


# ---- rows ---------------------------------------------------------------------------------------------------------------------


@cache
def digits() -> Banks:
    """1,347 digits as vectors of 64 pixels, and 450 more; without labels, so that one network of vectors learns them."""
    from sklearn.datasets import load_digits

    rows = (load_digits().images.reshape(-1, D) / 8 - 1).astype(np.float32)
    return hold_out(ss.Bank.from_arrays(rows, name="digits 8×8"), 0.25)


def part(start: int, stop: int) -> ss.Bank:
    """Some of the digits as a bank of their own."""
    return ss.Bank.from_arrays(np.asarray(digits()[0].rows)[start:stop], name=f"digits {start} to {stop}")


@cache
def spread() -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvectors and eigenvalues of a smooth field: a few directions carry most of the variance, as in images."""
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((D, D)))[0]
    return torch.from_numpy(basis), torch.from_numpy(3.0 * 0.9 ** np.arange(D))


@cache
def drawn(modes: int) -> Banks:
    """400 rows and 130 held-out ones of a Gaussian, or of a mixture of two whose means are far apart."""
    rng, (basis, values) = np.random.default_rng(modes), spread()
    rows = rng.standard_normal((530, D)) * values.sqrt().numpy() @ basis.numpy().T
    rows += (rng.integers(modes, size=(530, 1)) * 2 - (modes - 1)) * MEAN.numpy()
    return hold_out(ss.Bank.from_arrays(rows.astype(np.float32), name=f"draws of {modes}"), 130 / 530)


MEAN = torch.full((D,), 0.8, dtype=torch.float64)


# ---- subjects -----------------------------------------------------------------------------------------------------------------


class Switched(ss.Denoiser):
    """One denoiser below t = 0.5, another above."""

    def __init__(self, low: ss.Denoiser, high: ss.Denoiser) -> None:
        self.low, self.high, self.shape, self.name = low, high, low.shape, "switched"

    def forward(self, z, t, label=None):
        below = (t < 0.5).reshape(-1, *[1] * (z.ndim - 1))
        return torch.where(below, self.low.forward(z, t, label), self.high.forward(z, t, label))


class White(ss.Denoiser):
    """E[x | z] of a standard normal. In many dimensions a new draw is √2 times as far from every row as its own norm, so that its path
    is outside the shells once √(1 + 2 ((1 − t)/t)²) is above the band: t = 0.76 in 400 dimensions.
    """

    shape, name = (400,), "true score of white noise"

    def forward(self, z, t, label=None):
        t = t.double()[:, None]
        return (z.double() * (1 - t) / ((1 - t) ** 2 + t**2)).to(z)


@cache
def white() -> Banks:
    """300 rows and 100 held-out ones of a standard normal in 400 dimensions."""
    rows = np.random.default_rng(3).standard_normal((400, 400)).astype(np.float32)
    return hold_out(ss.Bank.from_arrays(rows, name="white noise"), 0.25)


class Smoothed(ss.Denoiser):
    """σ-CFDM (Scarvelis et al. 2023, arXiv:2310.12395): the mean of the exact score over states displaced by fixed noise, ± e_m."""

    def __init__(self, bank: ss.Bank, by: float, draws: int = 2) -> None:
        self.exact, self.shape, self.name = ss.EmpiricalScore(bank), bank.shape, "σ-CFDM"
        noise = by * np.random.default_rng(0).standard_normal((draws, *bank.shape))
        self.noise = torch.from_numpy(np.concatenate([noise, -noise]))

    def forward(self, z, t, label=None):
        return torch.stack([self.exact.forward(z + one.to(z), t) for one in self.noise]).mean(0)


class True_(ss.Denoiser):
    """E[x | z] of what `drawn` draws from: of each mode in closed form, weighed by the modes' posterior probabilities."""

    def __init__(self, modes: int) -> None:
        self.means = [(2 * k - (modes - 1)) * MEAN for k in range(modes)]
        self.shape, self.name = (D,), f"true score of {modes}"

    def forward(self, z, t, label=None):
        basis, values = spread()
        alpha, sigma = (1 - t.double())[:, None], t.double()[:, None]
        logits, found = [], []
        for mean in self.means:
            away = (z.double() - alpha * mean) @ basis
            variance = alpha**2 * values + sigma**2
            logits.append(-(away**2 / variance).sum(1, keepdim=True) / 2)
            found.append(mean + (away * alpha * values / variance) @ basis.T)
        weights = torch.softmax(torch.stack(logits), 0)
        return (weights * torch.stack(found)).sum(0).to(z)


@cache
def network(rows: ss.Bank, steps: int) -> ss.Denoiser:
    """A perceptron that predicts the clean row, trained on rows for so many steps."""
    recipe = Recipe(MLPSize(width=256, depth=4), interpolant=Interpolant(prediction="x"), steps=steps, batch=64, rate=1e-3, ema=0.99)
    return ss.load(train(recipe, rows, Path(tempfile.mkdtemp()) / "run"))


@cache
def few() -> ss.Bank:
    return part(0, 25)


def doubled(bank: ss.Bank, by: float) -> ss.Bank:
    """Each row twice, the second time a little lighter."""
    rows = np.asarray(bank.rows)
    return ss.Bank.from_arrays(np.concatenate([rows, rows + np.float32(by)]), name="each row twice")


def read_as(**options: Any) -> Callable[[], tuple[ss.Denoiser, Banks]]:
    """The demo's network, read in another way than it was trained where options say so."""

    def make() -> tuple[ss.Denoiser, Banks]:
        own = ss.load(demo.model_path("demo-m"))
        known = {"prediction": "v", "shape": own.shape, "classes": own.classes, "null_label": own.classes, "name": "demo-m"}
        return ss.NetworkDenoiser(own.net, **known | options), (demo.digits(), demo.held_out_digits())

    return make


def lighter() -> tuple[ss.Denoiser, Banks]:
    """The demo's network, and its digits from 0 to 1 for −1 to 1."""
    low, high = (
        ss.Bank.from_arrays(np.asarray(b.rows), b.labels, name=b.name, low=0, high=1) for b in (demo.digits(), demo.held_out_digits())
    )
    return ss.load(demo.model_path("demo-m")), (low, high)


# ---- what they must be told ---------------------------------------------------------------------------------------------------

REFUSED = "refused"


@dataclass(frozen=True)
class Subject:
    """Something to examine, and what it must be told.

    Attributes:
        what: It is.
        make: It, with the bank and the held-out rows that it is examined with.
        told: Of each claim the verdicts that are right. A refusal is told of "reading".
        probes: What is measured.
    """

    what: str
    make: Callable[[], tuple[ss.Denoiser, Banks]]
    told: dict[str, str]
    probes: tuple[str, ...] = ("relative-distance", "leaving", "score-error", "supervision-loss", "memorization")


def copier() -> ss.Denoiser:
    return ss.EmpiricalScore(digits()[0])


def gaussian() -> ss.Denoiser:
    return ss.GaussianScore(digits()[0])


ZOO = {
    "copier": Subject(
        "the exact empirical score of the bank",
        lambda: (copier(), digits()),
        {"fits": "supported", "departs": "contradicted", "copies": "alarm", "remembers": "supported", "leaves": "contradicted"},
    ),
    "copier-of-twins": Subject(
        "the exact score of a bank that holds each row twice, the second a little lighter",
        lambda: (ss.EmpiricalScore(doubled(part(0, 400), 0.02)), (doubled(part(0, 400), 0.02), digits()[1])),
        {"fits": "supported", "copies": "alarm"},
    ),
    "gaussian": Subject(
        "the Gaussian denoiser of the bank",
        lambda: (gaussian(), digits()),
        {"fits": "contradicted", "departs": "supported", "copies": "supported", "returns": "contradicted"},
    ),
    "copies-late": Subject(
        "copier below t = 0.5, Gaussian denoiser above",
        lambda: (Switched(copier(), gaussian()), digits()),
        {"copies": "alarm", "remembers": "supported"},
    ),
    "copies-early": Subject(
        "Gaussian denoiser below t = 0.5, copier above",
        lambda: (Switched(gaussian(), copier()), digits()),
        {"fits": "contradicted", "copies": "supported"},
    ),
    "smoothed": Subject(
        "σ-CFDM: the exact score of 300 rows, averaged over states displaced by fixed noise of 0.3",
        lambda: (Smoothed(part(0, 300), 0.3), (part(0, 300), digits()[1])),
        {"departs": "supported"},
        probes=("score-error",),
    ),
    "true-gaussian": Subject(
        "the true score of the Gaussian that the rows were drawn from",
        lambda: (True_(1), drawn(1)),
        {"copies": "supported", "remembers": "undecided", "fits": "contradicted"},
    ),
    "true-mixture": Subject(
        "the true score of the mixture that the rows were drawn from",
        lambda: (True_(2), drawn(2)),
        {"copies": "supported", "remembers": "undecided", "fits": "contradicted"},
    ),
    "true-white": Subject(
        "the true score of white noise in 400 dimensions, of which the rows are 300 draws",
        lambda: (White(), white()),
        {"leaves": "supported", "copies": "supported", "remembers": "undecided", "fits": "contradicted", "departs": "supported"},
    ),
    "early": Subject(
        "a network after 200 steps",
        lambda: (network(digits()[0], 200), digits()),
        {"fits": "contradicted", "copies": "supported", "remembers": "undecided"},
    ),
    "overfitted": Subject(
        "a network after 2,000 steps on 25 rows",
        lambda: (network(few(), 2000), (few(), digits()[1])),
        {"fits": "supported", "copies": "alarm", "remembers": "supported"},
    ),
    "trained-on-others": Subject(
        "the same network, examined with 25 other rows, those of its training given as held-out ones",
        lambda: (network(few(), 2000), (part(25, 50), few())),
        {"remembers": "contradicted", "copies": "supported"},
    ),
    "demo": Subject(
        "the demo's network of middle size, trained on 4,500 digits",
        read_as(),
        {"fits": "contradicted", "departs": "supported", "copies": "supported", "renoised": "supported"},
    ),
    "eps-as-v": Subject("the same, its answer read as ε", read_as(prediction="eps"), {"reading": REFUSED}),
    "x-as-v": Subject("the same, its answer read as x", read_as(prediction="x"), {"reading": REFUSED}),
    "time-reversed": Subject("the same, time reversed", read_as(time=lambda t: 1 - t), {"reading": REFUSED}),
    "time-in-thousands": Subject("the same, time in thousandths", read_as(time=lambda t: 1000 * t), {"reading": REFUSED}),
    "range": Subject("the same, with digits from 0 to 1", lighter, {"reading": REFUSED}),
}


@cache
def told(name: str) -> dict[str, dict[str, Any]]:
    """What a subject is told: records by claim; a refusal is the record of "reading"."""
    subject = ZOO[name]
    model, (bank, held) = subject.make()
    probes = [*subject.probes, *["return-to-origin"] * ("returns" in subject.told)]
    try:
        run = ss.examine(model, bank, probes, held_out=held, **OPTIONS)
    except ss.InputError as problem:
        return {"reading": {"verdict": REFUSED, "text": str(problem).splitlines()[0]}}
    return {one["name"]: one for one in run.claims} | {"reading": {"verdict": "read", "text": "The model was read as it is"}}


def table() -> str:
    """docs/verdicts.md, as measured."""
    lines = [
        "# Verdicts on subjects whose truth is known",
        "",
        f"Written by `python -m tests.zoo`, scorescope {ss.__version__}. Each subject is examined with "
        f"{OPTIONS['paths']} paths at {OPTIONS['times']} times and held-out rows. `tests/test_zoo.py` fails where one is told otherwise.",
        "",
        "| subject | must be told | what it is told |",
        "|---|---|---|",
    ]
    for name, subject in ZOO.items():
        found = told(name)
        for k, (claim, verdict) in enumerate(subject.told.items()):
            text = found[claim]["text"].replace("|", "\\|")
            lines.append(f"| {subject.what if not k else ''} | {claim}: {verdict} | {found[claim]['verdict']}: {text} |")
        print(f"{name}: {'right' if all(found[c]['verdict'] == v for c, v in subject.told.items()) else 'WRONG'}", flush=True)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
    print(TABLE)
