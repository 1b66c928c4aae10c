"""Recipes that no run could follow, folders that are no run's, and models that claim what no network is."""

from __future__ import annotations

import json

import numpy as np
import torch
from safetensors.torch import save_file

import scorescope as ss
from tests.bad_inputs import Case

TRAIN = ("train", "--preset", "sit-desk", "--bank", "x.bank", "--out", "run", "--watch-every", "0")
SIT = {"channels": 1, "size": 4, "patch": 2, "width": 8, "depth": 1, "heads": 2, "classes": 0}


def bank(folder):
    rng = np.random.default_rng(0)
    ss.Bank.from_arrays(rng.uniform(-1, 1, (12, 3, 8, 8)).astype(np.float32), np.arange(12) % 4, name="x").save(folder / "x.bank")


def vectors(folder):
    ss.Bank.from_arrays(np.eye(5, dtype=np.float32), name="x").save(folder / "x.bank")


def beside(name, text):
    """A bank, and a file of the user's in the folder that is asked for."""

    def make(folder):
        bank(folder)
        (folder / "run" / name).parent.mkdir(parents=True)
        (folder / "run" / name).write_text(text)

    return make


def model(family="sit", **change):
    """A file of weights whose metadata says anything."""

    def make(folder):
        about = {"family": family, "prediction": "v", "schedule": "linear", "architecture": SIT | change if family == "sit" else change}
        save_file({"weight": torch.zeros(2)}, folder / "m.safetensors", metadata={"scorescope": json.dumps(about)})

    return make


def option(said, *words):
    return Case(" ".join(words), (*TRAIN, *words), said, bank)


def loaded(name, said, make):
    return Case(name, lambda folder: ss.load(folder / "m.safetensors"), rf"m\.safetensors.*{said}", make)


CASES = [
    option(r"--steps 0 is not a positive number\. Try: --steps 1 or more", "--steps", "0"),
    option(r"--steps -5 is not a positive number", "--steps", "-5"),
    option(r"--steps 1000000000000 is too large", "--steps", "1000000000000"),
    option(r"--steps", "--steps", "many"),
    option(r"--batch 0 is not a positive number", "--batch", "0"),
    option(r"--batch -5 is not a positive number", "--batch", "-5"),
    option(r"--accumulate 0 is not a positive number", "--accumulate", "0"),
    option(r"--batch 64 can't be shared evenly by 1 ranks × --accumulate 5", "--accumulate", "5"),
    *(option(r"--rate \S+ is not a learning rate", "--rate", value) for value in ("nan", "0", "-1", "inf")),
    option(r"--clip nan is not a norm", "--clip", "nan"),
    option(r"--ema nan is no decay", "--ema", "nan"),
    option(r"--class-dropout nan is not a share", "--class-dropout", "nan"),
    option(r"--seed -1 is not a seed", "--seed", "-1"),
    option(r"--watch-every -1 is not a number of steps", "--watch-every", "-1"),
    option(r"--width 0 is not a positive number", "--width", "0"),
    option(r"--depth -2 is not a positive number", "--depth", "-2"),
    option(r"can't have depth = 1000000000", "--depth", "1000000000"),
    option(r"--mlp-ratio nan is no ratio", "--mlp-ratio", "nan"),
    option(r"--mlp-ratio inf is no ratio", "--mlp-ratio", "inf"),
    option(r"unknown precision 'fp8'", "--precision", "fp8"),
    option(r"unknown objective 'regions'.*'region'", "--objective", "regions"),
    option(r"unknown preset 'sit-dsek'.*'sit-desk'", "--preset", "sit-dsek"),
    option(r"--score-rows 3 leaves 1 of 4 classes without a row", "--objective", "region", "--score-rows", "3"),
    option(r"--score-rows 99 is more than the bank has \(12\)", "--objective", "region", "--score-rows", "99"),
    option(r"--region-rows -4 is smaller than --score-rows 6", "--objective", "region", "--score-rows", "6", "--region-rows", "-4"),
    option(r"--noise-factor nan is not a factor", "--objective", "mismatch", "--noise-factor", "nan"),
    option(r"--temperature nan is not a temperature", "--objective", "dispersive", "--temperature", "nan"),
    option(r"--repa-weight nan is not a weight", "--objective", "repa", "--repa-weight", "nan"),
    option(r"there is no file none\.py", "--objective", "repa", "--encoder", "none.py:build"),
    option(r"nowhere holds no checkpoint", "--fork", "nowhere", "--width", "8", "--heads", "2", "--depth", "1"),
    option(r"an MLP takes vectors \(d,\)", "--preset", "mlp-desk"),
    Case("vectors for a transformer", TRAIN, r"a SiT takes square images.*mlp-desk", vectors),
    Case("a user's checkpoint", TRAIN, r"run is not empty and does not hold a training run", beside("checkpoints/best.pt", "mine")),
    Case("a user's curve, forced", (*TRAIN, "--force"), r"run is not empty and does not hold a training run", beside("loss.csv", "mine")),
    Case("a damaged record", TRAIN, r"run\.json is damaged.*--force to begin again", beside("run.json", "{")),
    loaded("a depth of 10⁹", r"depth = 1000000000", model(depth=10**9)),
    loaded("a negative width", r"width = -8", model(width=-8)),
    loaded("a width in quotes", r"width = '8'", model(width="8")),
    loaded("10¹² classes", r"classes = 1000000000000", model(classes=10**12)),
    loaded("heads that are true", r"heads = True", model(heads=True)),
    loaded("a patch of 0", r"patch = 0", model(patch=0)),
    loaded("an infinite ratio", r"mlp_ratio = inf", model(mlp_ratio=float("inf"))),
    loaded("a flag in words", r"doubled = 'yes'", model(doubled="yes")),
    loaded("no size", r"size = None", model(size=None)),
    loaded("wider than its weights", r"does not hold the weights", model(width=2**20, heads=1)),
    loaded("a shape that is a number", r"can't be read", model("mlp", shape=3)),
    loaded("a negative axis", r"shape = -3", model("mlp", shape=[-3])),
    loaded("a U-Net without levels", r"can't be read", model("unet", multipliers=[])),
    loaded("a U-Net of words", r"multipliers = 'a'", model("unet", multipliers="ab")),
]
