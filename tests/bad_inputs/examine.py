"""Examinations that can't be made."""

from __future__ import annotations

import numpy as np

import scorescope as ss
from tests.bad_inputs import Case

MODEL = """
import scorescope as ss
def build():
    return ss.NetworkDenoiser(lambda z, t, label: z, shape=(1, 2, 2), name="../../net")
def broken():
    return 1 / 0
def wide():
    return ss.NetworkDenoiser(lambda z, t: z[:, :1, 0], shape=(1, 2, 2), name="wide")
def odd():
    return ss.NetworkDenoiser(lambda z, t: z + z.new_ones(3), shape=(1, 2, 2), name="odd")
def nan():
    return ss.NetworkDenoiser(lambda z, t: z / 0, shape=(1, 2, 2), name="net")
"""


def files(folder):
    rows = np.random.default_rng(0).standard_normal((6, 1, 2, 2)).astype(np.float32)
    ss.Bank.from_arrays(rows, np.arange(6) % 2, name="x").save(folder / "x.bank")
    (folder / "m.py").write_text(MODEL)


def examine(name, says, *words, model="m.py"):
    return Case(name, ["examine", model, "--bank", "x.bank", *words], says, files)


def samples(name, says, array, *words):
    def make(folder):
        files(folder)
        np.save(folder / "s.npy", array)

    return Case(name, ["examine", "s.npy", *words, "--bank", "x.bank"], says, make)


def emptied(folder):
    files(folder)
    (folder / "s").mkdir()


MADE = np.zeros((5, 1, 2, 2), np.float32)


def asked(name, function, says):
    """A model that fails when it is asked: what it says of that is all."""

    def run(folder):
        ss.examine(ss.load(folder / f"m.py:{function}"), ss.Bank.open(folder / "x.bank"), quiet=True)

    return Case(name, run, says, files)


CASES = [
    samples(
        "samples of another shape", r"samples of shape \(1, 3, 3\) can't be compared with rows of shape \(1, 2, 2\)", np.zeros((5, 1, 3, 3))
    ),
    samples("samples with NaN", r"s\.npy: rows? 0, .* contain NaN or Inf", MADE * np.nan),
    samples("8-bit samples for a bank of floats", r"8-bit values, but x holds float32", MADE.astype(np.uint8)),
    samples("no samples", r"s\.npy is empty", MADE[:0]),
    samples("samples beside a model", r"s\.npy holds samples, which are examined alone", MADE, "m.py"),
    samples("paths of finished samples", r"paths means nothing for finished samples", MADE, "--paths", "5"),
    samples("a probe of finished samples", r"score-error of finished samples can't be measured", MADE, "--probes", "score-error"),
    Case("an empty folder of samples", ["examine", "s", "--bank", "x.bank"], r"s has no images, it is empty", emptied),
    examine("no steps", r"steps must be at least 1, got 0", "--steps", "0"),
    examine("steps below 0", r"steps must be at least 1, got -5", "--steps", "-5"),
    examine("no batch", r"batch 0 is not a positive number", "--batch", "0"),
    examine("a tolerance that is no number in examine", r"tolerance nan must lie between 0 and 1", "--tolerance", "nan"),
    examine("one path", r"paths must be at least 2, got 1", "--paths", "1"),
    examine("a seed below 0", r"seed must be at least 0, got -1", "--seed", "-1"),
    examine("a seed beyond 64 bits", r"seed must be at least 0", "--seed", str(2**70)),
    examine("an unknown preset", r"unknown preset 'papper'.*'paper'", "--preset", "papper"),
    examine("an unknown solver", r"unknown solver 'hune'.*'heun'", "--solver", "hune"),
    examine("an unknown probe", r"unknown probe 'score-eror'.*'score-error'", "--probes", "score-eror"),
    examine("labels that are none", r"labels 'three' is neither auto, none nor class numbers", "--labels", "three"),
    examine("a label that a model without classes lacks", r"label 3 is outside the model's classes \(it has none\)", "--labels", "3"),
    examine("no device of that name", r"device 'meta' can't be used", "--device", "meta"),
    examine("a memory that is no size", r"--memory 'much' is not a size", "--memory", "much"),
    examine("a theory that is not there", r"unknown theory 'gausian'.*'gaussian'", model="theory:gausian"),
    examine("an error in the user's file", r"m\.py, line 6: ZeroDivisionError: division by zero", model="m.py:broken"),
    *(
        Case(f"{name}, {verb}", [verb, f"m.py:{function}", "--bank", "x.bank"], said, files)
        for verb in ("examine", "check")
        for name, function, said in (
            ("a network that breaks off", "odd", r"m\.py, line 10: RuntimeError: .*\(asked about float32 states of shape"),
            ("a network of NaN", "nan", r"net returned NaN or Inf at t = 0\.\d+ for row 0 of 6 noised rows"),
        )
    ),
    Case("a model of nothing", ["check", "--bank", "x.bank"], r"no model is named", files),
    Case("classes that none are", ["check", "m.py", "--bank", "x.bank", "--labels", "bee"], r"labels 'bee' is neither", files),
    examine("another way to measure returns", r"unknown way to measure returns 'bisect'", "--returns", "bisect"),
    asked("a network that answers with another shape", "wide", r"wide answers states of shape \(1, 2, 2\) with shape \(1, 2\)"),
    asked("an error of the user's network", "odd", r"m\.py, line 10: RuntimeError: .*\(asked about float32 states of shape"),
    examine("no model", r"there is no model at nothing\.safetensors", model="nothing.safetensors"),
    Case("an option that examine lacks", lambda folder: ss.examine([], None, pahts=3), r"unknown option of examine 'pahts'.*'paths'"),
]
