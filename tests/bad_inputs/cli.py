"""Words of the command line, and files of weights, that can't be."""

from __future__ import annotations

import json
import struct

import numpy as np
import torch
from safetensors.torch import save_file

import scorescope as ss
from scorescope.nets.sit import SiT, SiTConfig
from tests.bad_inputs import Case

MODEL = """
import scorescope as ss

def build():
    return ss.NetworkDenoiser(lambda z, t, label: 0 * z, prediction="x", classes=3, null_label=3, shape=(1, 4, 4), name="zero")
"""
SAMPLE = ["sample", "zero.py", "--solver", "euler", "--steps", "2"]
BENCH = ["bench", "empirical", "--bank", "x.bank"]


def model(folder):
    (folder / "zero.py").write_text(MODEL)


def bank(folder):
    ss.Bank.from_arrays(np.linspace(-1, 1, 144, dtype=np.float32).reshape(9, 1, 4, 4), np.arange(9) % 3, name="x").save(folder / "x.bank")


def both(folder):
    model(folder)
    bank(folder)


def claiming(shape, size=4):
    """A safetensors file whose one tensor claims a shape that its bytes don't bear out."""

    def make(folder):
        header = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
        (folder / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))

    return make


def sit(**changes):
    """A SiT's state dict with some tensors changed."""

    def make(folder):
        with torch.random.fork_rng():
            weights = SiT(SiTConfig(3, 8, 2, 24, 1, 3, 5)).state_dict()
        save_file({**weights, **{name.replace("__", "."): value for name, value in changes.items()}}, folder / "x.safetensors")

    return make


def weights(name, make, says, *options):
    return Case(name, ["sample", "x.safetensors", *(("--load", *options) if options else ())], says, make)


def earlier(folder):
    both(folder)
    (folder / "old").mkdir()
    (folder / "old" / "sample.json").write_text("{}")


def mine(folder):
    both(folder)
    (folder / "old").mkdir()
    (folder / "old" / "evaluation.json").write_text("mine")
    (folder / "other").mkdir()
    (folder / "other" / "notes.txt").write_text("mine")


SIT_TELLS = ("family=sit", "heads=3")
EVALUATE = ["evaluate", "zero.py", "--bank", "x.bank", "--extractor", "pixels", "--solver", "euler", "--steps", "2", "--n", "8"]
CASES = [
    *(
        Case(f"device {name}", [*SAMPLE, "--device", name], rf"device '{name}' can't be used.*Try: --device cpu", model)
        for name in ("meta", "cuda:9", "nonsense", "")
    ),
    Case("a bench on meta", [*BENCH, "--device", "meta"], r"device 'meta' can't be used", bank),
    Case("a bench on noise of no kind", [*BENCH[:3], "synthetic:films"], r"unknown synthetic bank 'films'; there is huge, latents", bank),
    Case("a bench on no number of rows", [*BENCH[:3], "synthetic:latents:-3"], r"synthetic:latents:-3: '-3' is no number of rows", bank),
    Case("a trillion samples", [*SAMPLE, "--n", str(10**12)], r"1,000,000,000,000 samples are too many for one run", model),
    Case("a range of a trillion samples", [*SAMPLE, "--items", "100-1000000000000"], r"samples are too many for one run", model),
    Case("a sample's number of 30 digits", [*SAMPLE, "--items", "9" * 30], r"--items '9{30}' is neither a sample's number", model),
    Case("a first sample beyond int64", [*SAMPLE, "--first", "9" * 30], r"name no samples", model),
    Case("a sample's number that is a superscript", [*SAMPLE, "--items", "²"], r"--items '²' is neither a sample's number", model),
    Case("a class that is a superscript", [*SAMPLE, "--labels", "²"], r"label '²' is not a class number", model),
    Case("a class of 5,000 digits", [*SAMPLE, "--labels", "1" * 5000], r"is not a class number", model),
    Case("no steps", ["sample", "zero.py", "--steps", "0"], r"--steps 0 is not a number from 1", model),
    Case("steps below zero", ["sample", "zero.py", "--steps", "-5"], r"--steps -5 is not a number from 1", model),
    Case("a trillion steps", ["sample", "zero.py", "--steps", str(10**12)], r"--steps 1000000000000 is not a number from 1", model),
    Case("no batch", [*SAMPLE, "--batch", "0"], r"--batch 0 is not a number from 1", model),
    Case("guidance that is no number", [*SAMPLE, "--guidance", "nan"], r"--guidance nan is not a number", model),
    Case("a seed beyond 64 bits", [*SAMPLE, "--seed", "9" * 30], r"--seed 9{30} is beyond 64 bits", model),
    Case("more samples than memory holds", ["sample", "g.py", "--n", "9999999"], r"GB of memory are free", lambda folder: giant(folder)),
    *(
        Case(f"memory of {text[:12]}", [*BENCH, "--memory", text], r"--memory .* is not a size. Try: --memory 2GB", bank)
        for text in ("0GB", "-1GB", "0.1", "9" * 400 + "GB", "999999999999TB", "nan", "²GB")
    ),
    Case("a keyword without a value", [*SAMPLE, "--load", "heads="], r"--load 'heads=' is not of the form name=value", model),
    Case("samples of the version before", [*SAMPLE, "--out", "old"], r"holds samples of an earlier version.*--force", earlier),
    Case("samples into a folder of other things", [*SAMPLE, "--out", "other"], r"is not empty and does not hold samples", mine),
    Case("an evaluation onto a file of the user's", [*EVALUATE, "--out", "old"], r"holds an evaluation of an earlier version", mine),
    Case("an evaluation into a folder of other things", [*EVALUATE, "--out", "other"], r"does not hold an evaluation", mine),
    Case("an evaluation of a class that is none", [*EVALUATE, "--labels", "bee"], r"label 'bee' is not a class number", both),
    Case("an evaluation with fewer samples than neighbours", [*EVALUATE, "--k", "9"], r"8 rows are too few: 9 nearest", both),
    weights("weights that are an empty file", lambda folder: (folder / "x.safetensors").touch(), r"can't be read as safetensors"),
    weights("weights that are a folder", lambda folder: (folder / "x.safetensors").mkdir(), r"x\.safetensors is of no known family"),
    weights("a tensor that claims a trillion numbers", claiming([10**12]), r"can't be read as safetensors"),
    weights("a tensor that claims a negative shape", claiming([-1]), r"can't be read as safetensors"),
    weights("a tensor that lies beyond the file", claiming([10**9], 4 * 10**9), r"can't be read as safetensors"),
    weights("a block of number a trillion", sit(blocks__999999999999__x=torch.zeros(1)), r"can't have depth = 10{12}", *SIT_TELLS),
    weights("a block without a number", sit(blocks__one__x=torch.zeros(1)), r"make no network of family sit|lacks", *SIT_TELLS),
    weights("weights without width", sit(x_embedder__proj__weight=torch.zeros(0, 3, 2, 2)), r"make no network", *SIT_TELLS),
    weights("positions of one axis", sit(pos_embed=torch.zeros(16)), r"make no network of family sit", *SIT_TELLS),
    weights("heads in words", sit(), r"heads=three is not a positive whole number", "family=sit", "heads=three"),
]


def giant(folder):
    (folder / "g.py").write_text(MODEL.replace("(1, 4, 4)", "(3, 4096, 4096)"))
