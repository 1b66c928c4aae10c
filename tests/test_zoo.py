"""A zoo of subjects whose verdicts are known: a rule that one of them is judged wrongly by is a bug of the rule.

The bank is drawn from a mixture of Gaussians whose score is known, 64 dimensions, rows to train on and rows held out from the same draw.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scorescope as ss
from scorescope.denoiser import Denoiser
from scorescope.rows import Bank
from scorescope.rows.hold_out import hold_out

D, ROWS = (1, 8, 8), 400
OPTIONS = {"paths": 48, "times": 20, "origins": 16, "nulls": 100, "solver": "heun", "steps": 30, "quiet": True}


def drawn() -> Bank:
    """Rows of a smooth field: a few directions carry most of the variance, as in images."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.standard_normal((64, 64)))[0]
    spread = np.sqrt(3.0 * 0.9 ** np.arange(64))
    x = (rng.standard_normal((ROWS, 64)) * spread) @ basis.T
    return Bank.from_arrays(x.reshape(ROWS, *D).astype(np.float32), name="field")


class Switched(Denoiser):
    """One denoiser below t = 0.5, another above."""

    def __init__(self, low: Denoiser, high: Denoiser, name: str) -> None:
        self.low, self.high, self.name, self.shape = low, high, name, D

    def forward(self, z, t, label=None):
        below = (t < 0.5).reshape(-1, *[1] * (z.ndim - 1))
        return torch.where(below, self.low.forward(z, t, label), self.high.forward(z, t, label))


@pytest.fixture(scope="module")
def banks():
    return hold_out(drawn(), 0.25)


@pytest.fixture(scope="module")
def verdicts(banks):
    """Of a subject, by the names of the claims; measured once."""
    bank, held = banks
    copier, linear = ss.EmpiricalScore(bank), ss.GaussianScore(bank)
    subjects = {
        "copier": copier,
        "gaussian": linear,
        "copies late": Switched(copier, linear, "copies late"),
        "copies early": Switched(linear, copier, "copies early"),
        "copier of other rows": ss.EmpiricalScore(held),
    }
    known = {}

    def of(name):
        if name not in known:
            run = ss.examine(subjects[name], bank, held_out=held, as_is=True, **OPTIONS)
            known[name] = {one["name"]: one for one in run.claims}
        return known[name]

    return of


TABLE = [
    ("copier", "fits", "supported"),
    ("copier", "departs", "contradicted"),
    ("copier", "copies", "alarm"),
    ("copier", "remembers", "supported"),
    ("copier", "leaves", "contradicted"),
    ("gaussian", "fits", "contradicted"),
    ("gaussian", "departs", "supported"),
    ("copies late", "copies", "alarm"),
    ("copies late", "remembers", "supported"),
    ("copies early", "fits", "contradicted"),
    ("copier of other rows", "remembers", "contradicted"),
]


@pytest.mark.parametrize(("subject", "claim", "verdict"), TABLE)
def test_each_subject_is_told_what_it_is(verdicts, subject, claim, verdict):
    found = verdicts(subject)[claim]
    assert found["verdict"] == verdict, found["text"]


def test_the_gaussian_copies_nothing_and_returns_nothing_more_than_unseen_rows(verdicts):
    assert verdicts("gaussian")["copies"]["verdict"] != "alarm"
    assert verdicts("gaussian")["returns"]["verdict"] != "supported"


def test_a_copier_of_a_bank_that_holds_its_rows_twice_copies(banks):
    bank, _ = banks
    rows = np.asarray(bank.rows)
    twice = Bank.from_arrays(np.concatenate([rows, rows + np.float32(0.01)]))
    run = ss.examine(ss.EmpiricalScore(twice), twice, ["memorization"], as_is=True, **OPTIONS)
    copies = next(one for one in run.claims if one["name"] == "copies")
    assert (copies["verdict"], copies["value"]) == ("alarm", 1.0), copies["text"]
    assert run.results["group_size"].values.min() >= 2


@pytest.mark.parametrize("unit", [0.5, 4.0])
def test_fits_says_the_same_of_the_same_data_in_another_unit(unit, banks):
    """The filter that keeps half of what the Gaussian denoiser changes, for rows in one unit and in another."""
    shares = []
    for scale in (1.0, unit):
        bank = Bank.from_arrays(np.asarray(banks[0].rows) * np.float32(scale))
        schedule = ss.VESchedule(0.01 * scale, 50 * scale)
        run = ss.examine(ss.GaussianScore(bank, schedule), bank, ["score-error"], as_is=True, **OPTIONS)
        shares.append(next(one for one in run.claims if one["name"] == "fits")["verdict"])
    assert shares[0] == shares[1]
