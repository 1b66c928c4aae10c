"""A shadow: a bank of floats once more in 8 bits, with what every row lost to rounding, so that bounds on inner products are certain.

With one step s for the whole bank and the bank's mean m (rounded to float32),

    q = clip(round((x − m)/s), −127, 127),    rounded = ‖x − m − s q‖,    square = ‖x − m‖²,

so that |⟨z, x − m⟩ − s⟨z, q⟩| ≤ ‖z‖·rounded for every z, by Cauchy–Schwarz. The rows on the disk are half as large as float16.
`shadow.safetensors` lies beside the rows; it can be made again at any time and adds nothing to what the bank means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from scorescope.errors import InputError
from scorescope.rows.atomic import full_disk_named, refuse_full_disk, replacing_file
from scorescope.rows.bank import Bank
from scorescope.rows.storage import Progress, batch_rows, quiet
from scorescope.rows.tensors import Layout, StoredFile, StoredRows, plan, read_layout

SHADOW, SCHEMA = "shadow.safetensors", 1
SAMPLED = 1 << 21  # values from which the step is chosen
QUANTILES = 33  # steps that are tried
CHUNK = 1 << 18  # float64 values of one step of the arithmetic: they stay in the processor's cache
OUTWARD = 1 + 2.0**-40  # covers the rounding of a float64 norm of millions of values


@dataclass(frozen=True)
class Shadow:
    """An opened shadow.

    Attributes:
        step: s, the value of one unit of q.
        mean: m (d,) float32.
        square: ‖x − m‖² of every stored row (N,) float64.
        rounded: ‖x − m − s q‖ of every stored row (N,) float64, never too small.
        rows: q (N, *shape) int8 on the disk.
    """

    step: float
    mean: np.ndarray
    square: np.ndarray
    rounded: np.ndarray
    rows: StoredRows

    def stored(self, start: int, stop: int) -> np.ndarray:
        """The q of rows start … stop − 1, int8 (n, *shape); by one read, in order."""
        return self.rows[start:stop]

    def stored_at(self, index: np.ndarray) -> np.ndarray:
        """The q of these stored rows (B,), in any order, int8 (B, *shape)."""
        return self.rows[np.asarray(index)]


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


# ---- opening ----------------------------------------------------------------------------------------------------------------


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
    if folder is None or not (folder / SHADOW).exists():
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
    square, rounded, mean = (file.read(found.tensors[name]) for name in ("square", "rounded", "mean"))
    if not all(np.isfinite(values).all() for values in (square, rounded, mean)) or square.min() < 0 or rounded.min() < 0:
        raise InputError(f"{path} was altered: it holds norms that are none", again)
    return Shadow(step, mean, square, rounded, StoredRows(file, found.tensors["rows"]))


# ---- making -----------------------------------------------------------------------------------------------------------------


def build_shadow(path: str | Path, progress: Progress = quiet) -> Shadow | None:
    """Make the shadow of the bank at `path`, in place of the one it may have; None for 8-bit banks, which need none.

    One pass: the step is chosen from a sample of the rows, and what is clipped elsewhere counts as rounded away.
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
    mean = bank.mean.flatten().float()
    step = best_step(bank, mean)
    layout = _layout(bank, step)
    out, places = folder / SHADOW, layout.tensors
    with full_disk_named(out, layout.size, "freeing some space"), replacing_file(out) as file:
        refuse_full_disk(out, layout.size, "freeing some space")
        write = partial(_write_at, file)
        write(0, layout.header)
        write(places["mean"].offset, mean.numpy())
        for start, q, square, rounded in _rounded(bank, mean, step):
            write(places["rows"].offset + start * bank.d, q)
            write(places["square"].offset + 8 * start, square)
            write(places["rounded"].offset + 8 * start, rounded)
            progress("rows", start + len(q), n)
    return open_shadow(bank)


def _write_at(file: BinaryIO, offset: int, values: Any) -> None:
    file.seek(offset)
    file.write(values.data if isinstance(values, np.ndarray) else values)


def best_step(bank: Bank, mean: Tensor) -> float:
    """The step with the least ‖x − m − s q‖, on average over a sample of rows spread through the bank.

    Steps are tried that just clip no value of some row. The largest of them clips nothing at all, but one bright pixel in a million
    would then make every row coarse; an average of squares would let that pixel decide too.
    """
    count = max(1, min(len(bank.rows), SAMPLED // bank.d))
    sample = torch.from_numpy(bank.stored_at(np.linspace(0, len(bank.rows) - 1, count).astype(np.int64))).reshape(count, -1)
    x = sample.double() - mean.double()
    peak = x.abs().amax(1)
    peak = peak[peak > 0]
    if not len(peak):
        return 1.0
    steps = [float(step) / 127 for step in peak.quantile(torch.linspace(0, 1, QUANTILES, dtype=torch.float64)).unique()]
    lost = [float(_residual(x, _whole(x, step), step).norm(dim=1).mean()) for step in steps]
    return steps[int(np.argmin(lost))]


def _whole(x: Tensor, step: float) -> Tensor:
    return (x / step).round_().clamp_(-127, 127)


def _residual(x: Tensor, whole: Tensor, step: float) -> Tensor:
    return torch.sub(x, whole, alpha=step)


def _rounded(bank: Bank, mean: Tensor, step: float) -> Iterator[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
    """All rows in order: where they start, q (n, d) int8, ‖x − m‖² (n,) and ‖x − m − s q‖ (n,)."""
    size, at_once = batch_rows(bank.rows[0].nbytes), max(1, CHUNK // bank.d)
    centre = mean.double()
    for start in range(0, len(bank.rows), size):
        stored = torch.from_numpy(bank.stored(start, start + size)).reshape(-1, bank.d)
        q = torch.empty(stored.shape, dtype=torch.int8)
        square, rounded = (torch.empty(len(stored), dtype=torch.float64) for _ in range(2))
        for part in (slice(begin, begin + at_once) for begin in range(0, len(stored), at_once)):
            x = stored[part].double().sub_(centre)
            whole = _whole(x, step)
            q[part] = whole.to(torch.int8)
            square[part] = torch.linalg.vecdot(x, x)
            lost = _residual(x, whole, step)
            rounded[part] = torch.linalg.vecdot(lost, lost).sqrt_().mul_(OUTWARD)
        yield start, q.numpy(), square.numpy(), rounded.numpy()


# ---- verifying --------------------------------------------------------------------------------------------------------------


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
    if not np.allclose(shadow.mean, bank.mean.flatten().numpy(), rtol=1e-6, atol=1e-6 * bank.radius):
        raise damaged
    for start, q, square, rounded in _rounded(bank, torch.from_numpy(shadow.mean), shadow.step):
        stop = start + len(q)
        norms = ((shadow.square[start:stop], square), (shadow.rounded[start:stop], rounded))
        if not np.array_equal(shadow.stored(start, stop).reshape(q.shape), q) or not all(np.allclose(*pair, 1e-12, 0) for pair in norms):
            raise damaged
        progress("shadow", stop, len(bank.rows))
    return True
