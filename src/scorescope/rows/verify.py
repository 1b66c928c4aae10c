"""Is a bank what its manifest says? Every row is read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from scorescope.errors import InputError
from scorescope.rows.bank import Bank
from scorescope.rows.storage import AGAIN, Progress, batch_rows, groups_in_short, quiet
from scorescope.rows.summary import Summary
from scorescope.rows.tensors import StoredRows


def verify(bank: Bank, progress: Progress = quiet) -> dict[str, Any]:
    """Read every row, and return what the manifest should say of the content: fingerprint, statistics, cautions.

    Raises:
        InputError: A file cut since it was opened; rows with NaN or Inf; content, labels, flips or range other than those that
            the manifest's fingerprint was taken of; statistics or counts that differ from the manifest's.
    """
    rows, where = bank.rows, f"bank {bank.name}"
    if isinstance(rows, StoredRows):
        where = str(rows.file.path.parent)
    summary = Summary(rows.dtype, rows.shape, flips=bank.flips, low=bank.low, high=bank.high)
    step = batch_rows(rows[0].nbytes)
    for start in range(0, len(rows), step):
        summary.update(np.asarray(rows[start : start + step]))
        progress("rows", summary.seen, len(rows))
    summary.refuse_non_finite(where)
    content, _ = summary.finish(bank.labels), bank.names
    if bank.groups is not None:
        content["groups"] = groups_in_short(bank.groups)
    manifest = bank.manifest
    if "fingerprint" not in manifest:
        return content
    if content["fingerprint"] != manifest["fingerprint"]:
        found, recorded = content["fingerprint"][:12], manifest["fingerprint"][:12]
        raise InputError(f"{where} was altered: its content has fingerprint {found}…, its manifest says {recorded}…", AGAIN)
    content["class_counts"] = None if bank.labels is None else np.bincount(bank.labels, minlength=bank.classes).tolist()
    wrong = [key for key in content if key != "cautions" and not _agree(content[key], manifest.get(key))]
    if wrong:
        raise InputError(f"{where}: its manifest is wrong about {', '.join(wrong)}", AGAIN)
    if not np.allclose(bank.mean.numpy(), summary.mean, rtol=1e-9, atol=1e-9 * content["radius"]):
        raise InputError(f"{where} was altered: its mean is not that of its rows", AGAIN)
    return content


def _agree(found: Any, recorded: Any) -> bool:
    """Equality, up to rounding for sums that may have been taken in other batches."""
    if isinstance(found, list) and isinstance(recorded, list):
        return len(found) == len(recorded) and all(map(_agree, found, recorded))
    if isinstance(found, float) and isinstance(recorded, (int, float)):
        return math.isclose(found, recorded, rel_tol=1e-9, abs_tol=1e-9)
    return bool(found == recorded)
