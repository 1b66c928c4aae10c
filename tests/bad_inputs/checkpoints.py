"""Files of weights that can't be read, or leave a choice."""

from __future__ import annotations

import torch
from safetensors.torch import save_file

import scorescope as ss
from tests.bad_inputs import Case

WEIGHTS = {"a.weight": torch.ones(2, 3), "a.bias": torch.zeros(2)}
BANK = ("--bank", "x.bank")


def bank(folder):
    ss.Bank.from_arrays(torch.zeros(4, 2).numpy(), name="x").save(folder / "x.bank")


def saved(value, name="x.pt", size=None):
    def make(folder):
        bank(folder)
        if name.endswith(".safetensors"):
            save_file(value, folder / name)
        else:
            torch.save(value, folder / name)
        if size is not None:
            (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return make


def words(*more, name="x.pt"):
    return ("check", name, *BANK, *more)


CASES = [
    Case("a checkpoint that was cut", words(), r"x\.pt can't be read as a pickle .*it was cut", saved(WEIGHTS, size=600)),
    Case("a pickle that is none", words(), r"x\.pt can't be read as a pickle .*no pickle", saved(WEIGHTS, size=1)),
    Case(
        "a header longer than its file",
        words(name="x.safetensors"),
        r"x\.safetensors can't be read as safetensors .*undamaged",
        saved(WEIGHTS, "x.safetensors", 50),
    ),
    Case("a pickled object", words(), r"x\.pt is a pickled object, .*--trust", saved(ValueError("x"))),
    Case(
        "two models in one file",
        words(),
        r"several models \(g, d\)\. Try: --load weights=g or weights=d",
        saved({"g": WEIGHTS, "d": WEIGHTS}),
    ),
    Case("a part that is not there", words("--load", "weights=emma"), r"unknown part of it 'emma'; there is ema", saved({"ema": WEIGHTS})),
    Case(
        "weights with NaN",
        words(),
        r"NaN or Inf: 2 of the 2 numbers of a\.bias",
        saved(WEIGHTS | {"a.bias": torch.full((2,), float("nan"))}),
    ),
    Case(
        "an average without names",
        words(),
        r"list without names, and no model beside it",
        saved({"ema": {"shadow_params": [torch.ones(2)]}}),
    ),
    Case("a file without weights", words(), r"x\.pt holds no weights", saved({"step": 3})),
]
