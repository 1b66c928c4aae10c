"""What the exact score and the sampler can't be asked."""

from __future__ import annotations

import numpy as np
import torch

import scorescope as ss
from tests.bad_inputs import Case


def bank():
    return ss.Bank.from_arrays(np.random.default_rng(0).standard_normal((6, 1, 2, 2)).astype(np.float32), np.arange(6) % 2)


def score(**options):
    return ss.EmpiricalScore(bank(), **options)


Z = torch.zeros(2, 1, 2, 2)

CASES = [
    Case("a schedule by name", lambda folder: score(schedule="linear"), r"schedule 'linear' is not a Schedule"),
    Case("the class of a schedule", lambda folder: score(schedule=ss.LinearSchedule), r"is not a Schedule"),
    Case("a tolerance that is no number", lambda folder: score(tolerance=float("nan")), r"tolerance nan must lie between 0 and 1"),
    Case("a tolerance of 0", lambda folder: score(tolerance=0), r"tolerance 0 must lie between 0 and 1"),
    Case("states of NumPy", lambda folder: score().posterior(Z.numpy(), 0.5), r"states are a ndarray, not a tensor"),
    Case("states of whole numbers", lambda folder: score().posterior(Z.long(), 0.5), r"states have type torch\.int64"),
    Case("states of another shape", lambda folder: score().posterior(Z[:, :, :1], 0.5), r"shape"),
    Case("states that are not finite", lambda folder: score().posterior(Z / 0, 0.5), r"NaN or Inf"),
    Case("a time below 0", lambda folder: score().posterior(Z, -0.1), r"t must lie in \[0, 1\]"),
    Case("a time that is no number", lambda folder: score().posterior(Z, float("nan")), r"t must lie in \[0, 1\]"),
    Case("a time that is a word", lambda folder: score().posterior(Z, "half"), r"t must be a number in \[0, 1\]"),
    Case("a class without rows", lambda folder: score().posterior(Z, 0.5, 5), r"no row of the bank has label 5"),
    Case("a negative class", lambda folder: score().posterior(Z, 0.5, -1), r"label -1"),
    Case("a class that is a fraction", lambda folder: score().posterior(Z, 0.5, 0.5), r"label 0\.5 can't be a class number"),
    Case("draws without their items", lambda folder: score().sample(Z, 0.5, items=[1]), r"1 items do not match 2 states"),
    Case("a solver that is not there", lambda folder: ss.sample(score(), 2, solver=ss.Solver("rk4")), r"unknown solver 'rk4'"),
    Case("times out of order", lambda folder: ss.trajectory(score(), Z, [0.5, 0.1]), r"times must ascend"),
]
