"""Samples from wherever they are, as rows like the bank's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from scorescope.adapters import diffusers_folder
from scorescope.errors import InputError
from scorescope.evaluate.drawing import KIND, SAMPLES
from scorescope.rows import Bank
from scorescope.rows.content import refuse_non_finite
from scorescope.rows.options import Options
from scorescope.rows.sources import read_source
from scorescope.rows.storage import MANIFEST, quiet
from scorescope.runs import RECORD, is_run

MODEL_FILES = ("model.safetensors", RECORD)


def holds_samples(path: str | Path) -> bool:
    """Whether `path` is samples rather than a model: an array file, a bank, images, or the folder of `scorescope sample`."""
    place = Path(path)
    if place.is_dir():
        model = any((place / name).is_file() for name in MODEL_FILES) or diffusers_folder.accepts(place)
        return is_run(place, KIND) or not model
    return place.suffix.lower() in (".npy", ".npz")


def open_samples(path: str | Path, bank: Bank) -> Bank:
    """Samples on disk as rows in the bank's model space: 8-bit values are mapped to the bank's range, floats are taken as they are.

    Raises:
        InputError: Nothing there, not finished, NaN or Inf (the rows are named), rows of another shape than the bank's.
    """
    place = Path(path)
    if not place.exists():
        raise InputError(
            f"there are no samples at {place}", "a folder of scorescope sample, an .npy or .npz file, a bank, or a folder of images"
        )
    if (place / MANIFEST).is_file():
        found = Bank.open(place)
        return _same_shape(found, bank)
    if (place / SAMPLES).is_file():
        place = place / SAMPLES
    elif is_run(place, KIND):
        raise InputError(f"the samples in {place} are not finished", "running their command again; it continues")
    source = read_source(place, Options(labels="none"), quiet)
    return as_rows(np.concatenate(list(source.batches())), bank, str(path), source.names)


def as_rows(samples: Bank | np.ndarray | Tensor, bank: Bank, name: str = "samples", names: Sequence[str] | None = None) -> Bank:
    """Samples in memory as a bank of their own."""
    if isinstance(samples, Bank):
        return _same_shape(samples, bank)
    rows = samples.detach().cpu().numpy() if isinstance(samples, Tensor) else np.asarray(samples)
    if rows.dtype.kind == "f" and rows.ndim > 1 and rows.size:
        refuse_non_finite(rows, name)
    return _same_shape(Bank.from_arrays(rows, low=bank.low, high=bank.high, name=name, names=names), bank)


def _same_shape(samples: Bank, bank: Bank) -> Bank:
    if samples.shape != bank.shape:
        raise InputError(
            f"{samples.name}: samples of shape {samples.shape} can't be compared with rows of shape {bank.shape} ({bank.name})",
            "samples of the bank's shape",
        )
    return samples
