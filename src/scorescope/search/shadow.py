"""A shadow: the quantized rows of a bank of floats on the disk, with the norms of their residuals (the law is that of `quantize`).

`shadow.safetensors` lies beside the rows: q as `rows`, the centre as `mean`, ‖x − centre‖² as `square`, ‖residual‖ as `rounded`. It is
half as large as float16, can be made again at any time and adds nothing to what the bank means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from scorescope.errors import InputError
from scorescope.files import locked, replacing, space_for
from scorescope.rows.bank import Bank
from scorescope.rows.storage import Progress, batch_rows, quiet
from scorescope.rows.tensors import Layout, StoredFile, StoredRows, plan, read_layout
from scorescope.search.quantize import Quantized, Quantizer

SHADOW, SCHEMA = "shadow.safetensors", 1


@dataclass(frozen=True)
class Shadow:
    """An opened shadow.

    Attributes:
        quantizer: Its centre and step, on the CPU.
        square: ‖x − centre‖² of every stored row (N,) float64.
        residual: ‖x − centre − step·q‖ of every stored row (N,) float64.
        rows: q (N, *shape) int8 on the disk.
    """

    quantizer: Quantizer
    square: np.ndarray
    residual: np.ndarray
    rows: StoredRows


def folder_of(bank: Bank) -> Path | None:
    """Where a bank lies on the disk; None for one in memory."""
    return bank.rows.file.path.parent if isinstance(bank.rows, StoredRows) else None


def _layout(bank: Bank, step: float) -> Layout:
    n = len(bank.rows)
    wide, narrow = np.dtype("<f8"), np.dtype("<f4")
    return plan(
        {"square": (wide, (n,)), "rounded": (wide, (n,)), "mean": (narrow, (bank.d,)), "rows": (np.dtype(np.int8), (n, *bank.shape))},
        {"schema": str(SCHEMA), "fingerprint": bank.fingerprint, "step": repr(step)},
    )


_opened: WeakKeyDictionary[Bank, Shadow] = WeakKeyDictionary()


def shadow_of(bank: Bank) -> Shadow | None:
    """The shadow of a bank, opened once; None where there is none. Raises as `open_shadow`."""
    if bank not in _opened:
        found = open_shadow(bank)
        if found is None:
            return None
        _opened[bank] = found
    return _opened[bank]


def open_shadow(bank: Bank) -> Shadow | None:
    """Read the shadow of a bank; None where there is none.

    Raises:
        InputError: It is cut or altered, or was made of other rows; the message says how to make it again.
    """
    folder = folder_of(bank)
    if folder is None or not (folder / SHADOW).is_file():
        return None
    path, again = folder / SHADOW, f"scorescope bank shadow {folder}"
    file = StoredFile.at(path)
    found = read_layout(path, len(bank.rows) * (bank.d + 16), again)
    try:
        step, schema = float(found.metadata["step"]), int(found.metadata["schema"])
        expected = _layout(bank, step)
    except (KeyError, ValueError) as problem:
        raise InputError(f"{path} is not a shadow that this version reads", again) from problem
    if schema != SCHEMA:
        raise InputError(f"{path} was written by another version (schema {schema})", again)
    if found.metadata != expected.metadata:
        raise InputError(f"{path} was made of other rows than those of {folder}", again)
    if found.tensors != expected.tensors or not 0 < step < float("inf"):
        raise InputError(f"{path} was altered: its header is not that of this bank's shadow", again)
    square, residual, mean = (file.read(found.tensors[name]) for name in ("square", "rounded", "mean"))
    if not all(np.isfinite(values).all() for values in (square, residual, mean)) or square.min() < 0 or residual.min() < 0:
        raise InputError(f"{path} was altered: it holds norms that are none", again)
    return Shadow(Quantizer(torch.from_numpy(mean).double(), step), square, residual, StoredRows(file, found.tensors["rows"]))


def build_shadow(path: str | Path, progress: Progress = quiet) -> Shadow | None:
    """Make the shadow of the bank at `path`, in place of the one it may have; None for 8-bit banks, which need none.

    One pass: the step is chosen from a sample of the rows, and what is clipped elsewhere counts as residual.
    Killed at any moment it leaves the bank as it was, and is simply run again.

    Args:
        path: The bank's folder.
        progress: Told (what is done, rows done, rows in all) now and then.

    Raises:
        InputError: No bank there, one that changes meanwhile, a full disk, another process that makes the same shadow.
    """
    bank = Bank.open(path)
    folder, n = folder_of(bank), len(bank.rows)
    if folder is None or bank.rows.dtype == np.uint8:
        return None
    quantizer = Quantizer.of(bank, torch.device("cpu"))
    layout = _layout(bank, quantizer.step)
    out, places = folder / SHADOW, layout.tensors
    with locked(folder, SHADOW), space_for(out, layout.size, "freeing some space"):
        for left in folder.glob(f".{SHADOW}.*"):  # by whoever was killed
            left.unlink()
        with replacing(out) as temporary, open(temporary, "wb") as file:

            def write(offset: int, values: Any) -> None:
                file.seek(offset)
                file.write(values)

            write(0, layout.header)
            write(places["mean"].offset, quantizer.centre.float().numpy())
            for start, rows in _batches(bank, quantizer):
                write(places["rows"].offset + start * bank.d, rows.q.numpy())
                write(places["square"].offset + 8 * start, rows.square.numpy())
                write(places["rounded"].offset + 8 * start, rows.residual.numpy())
                progress("rows", start + len(rows.q), n)
    return open_shadow(bank)


def _batches(bank: Bank, quantizer: Quantizer) -> Iterator[tuple[int, Quantized]]:
    """All rows in order, and where each batch starts."""
    size = batch_rows(bank.rows[0].nbytes)
    for start in range(0, len(bank.rows), size):
        yield start, quantizer.quantized(bank.stored(start, start + size))


def verify_shadow(bank: Bank, progress: Progress = quiet) -> bool:
    """Make the shadow again in passing and compare; False where there is none.

    Raises:
        InputError: Any row of it is not what the bank's row is rounded to, or its norms do not hold.
    """
    shadow, folder = open_shadow(bank), folder_of(bank)
    if shadow is None:
        return False
    said = f"{folder}/{SHADOW} was altered: it is not what the bank's rows are rounded to"
    damaged = InputError(said, f"scorescope bank shadow {folder}")
    if not np.allclose(shadow.quantizer.centre, bank.mean.flatten(), rtol=1e-6, atol=1e-6 * bank.radius):
        raise damaged
    for start, rows in _batches(bank, shadow.quantizer):
        stop = start + len(rows.q)
        norms = ((shadow.square[start:stop], rows.square), (shadow.residual[start:stop], rows.residual))
        same = np.array_equal(shadow.rows[start:stop].reshape(rows.q.shape), rows.q)
        if not same or not all(np.allclose(*pair, 1e-12, 0) for pair in norms):
            raise damaged
        progress("shadow", stop, len(bank.rows))
    return True
