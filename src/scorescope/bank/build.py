"""Build a bank from a source, in one pass that keeps memory flat; killed at any moment, it is simply run again."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from scorescope.bank.atomic import refuse_existing
from scorescope.bank.bank import Bank
from scorescope.bank.options import Options
from scorescope.bank.sources import read_source
from scorescope.bank.storage import Progress, quiet, write_bank


def build(
    source: str | Path | np.ndarray | Tensor, out: str | Path, *, force: bool = False, progress: Progress = quiet, **options: Any
) -> Bank:
    """Build a bank folder and return the bank, opened.

    Args:
        source: A folder of images (class subfolders are labels), an .npy or .npz file, a datasets folder or parquet (with the
            extra `hf`), or an array (N, *shape).
        out: The folder to make, by custom NAME.bank.
        force: Replace a bank that is already there, once the new one is whole.
        progress: Told (what is done, rows done, rows in all) now and then.
        **options: The fields of `scorescope.bank.options.Options`.

    Raises:
        InputError: Bad input of any kind; nothing is left behind then.
    """
    chosen, target = Options(**options), Path(out)
    chosen.validate()
    refuse_existing(target, force)
    array = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
    low, high = chosen.low_high
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # Remarks about odd files; what can't be read is an error by name.
        rows = read_source(array, chosen, progress)
        return write_bank(rows, target, flips=chosen.flips, low=low, high=high, name=chosen.name, force=force, progress=progress)
