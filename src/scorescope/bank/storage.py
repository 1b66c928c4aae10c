"""Banks on disk: how they are written, opened and verified.

A bank is a folder with two files. `rows.safetensors` holds the tensors `labels` (N,) int64, if there are any, and `rows`
(N, *shape) as stored; its header is written first, because N is known before the rows are read, so that rows stream through
and memory stays flat. `manifest.json` says what they are (the keys are those of `write_bank`).
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scorescope import __version__
from scorescope.bank.atomic import MANIFEST, ROWS, full_disk_named, replacing, sync
from scorescope.bank.bank import SCHEMA, Bank
from scorescope.bank.summary import Summary
from scorescope.errors import InputError

TYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "I64": np.dtype("<i8")}
BATCH_BYTES = 4 << 20

Progress = Callable[[str, int, int], None]
"""Told (what is done, rows done, rows in all) now and then."""


def quiet(stage: str, done: int, total: int) -> None:
    """The progress of a caller who wants none."""


@dataclass(frozen=True)
class Source:
    """Rows ready to be stored, with all that must be known before the first of them is read.

    Attributes:
        where: What messages and the manifest call the source.
        shape: (N, *row) as stored.
        dtype: uint8, float16 or float32.
        batches: Called once; yields the rows in order, as stored.
        labels: (N,) int64, or None.
        class_names: A name for each class, or None.
        transform: What was done to the rows, in words.
        cautions: What the user should know, in words.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batches: Callable[[], Iterator[np.ndarray]]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    transform: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()


def batch_rows(row_bytes: int) -> int:
    """How many rows to hold at once."""
    return max(1, min(4096, BATCH_BYTES // max(1, row_bytes)))


# ---- writing ----------------------------------------------------------------------------------------------------------------


def write_bank(
    source: Source,
    out: Path,
    *,
    flips: bool = False,
    low: float = -1.0,
    high: float = 1.0,
    name: str | None = None,
    force: bool = False,
    progress: Progress = quiet,
) -> Bank:
    """Stream a source into a bank folder and return the bank, opened.

    Raises:
        InputError: Rows with NaN or Inf, an output that exists, a folder without write permission, a full disk; then nothing
            of the bank is left behind.
    """
    if flips and len(source.shape) < 3:
        raise InputError(f"flips need rows with a width, those of {source.where} have shape {source.shape[1:]}", "a bank without flips")
    byte = source.dtype == np.uint8
    summary = Summary(source.dtype, source.shape, flips=flips, low=low, high=high)
    header = _header(source.dtype, source.shape, source.labels is not None)
    size = len(header) + math.prod(source.shape) * source.dtype.itemsize + (0 if source.labels is None else 8 * source.shape[0])
    with replacing(out, force) as folder:
        free = shutil.disk_usage(folder).free
        if free < size:
            raise InputError(f"{out} needs {size / 1e6:,.1f} MB, the disk has {free / 1e6:,.1f} MB free", "another disk, or --limit")
        with full_disk_named(out, size), open(folder / ROWS, "wb") as file:
            file.write(header)
            if source.labels is not None:
                file.write(np.ascontiguousarray(source.labels, dtype="<i8").data)
            for rows in source.batches():
                summary.update(rows)
                if summary.sound:
                    file.write(np.ascontiguousarray(rows, dtype=source.dtype).data)
                progress("rows", summary.seen, source.shape[0])
            summary.refuse_non_finite(source.where)
            content = summary.finish(source.labels)
            sync(file)
        counts = None if source.labels is None else np.bincount(source.labels, minlength=len(source.class_names or ())).tolist()
        manifest = {
            "schema": SCHEMA,
            "version": __version__,
            "name": name or (out.stem if out.suffix == ".bank" else out.name),
            "rows": source.shape[0],
            "shape": list(source.shape[1:]),
            "dtype": source.dtype.name,
            "flips": flips,
            "low": low if byte else None,
            "high": high if byte else None,
            "classes": len(counts or ()),
            "class_names": list(source.class_names) if source.class_names else None,
            "class_counts": counts,
            "source": source.where,
            "transform": list(source.transform),
            **content,
            "cautions": [*source.cautions, *content["cautions"]],
        }
        with full_disk_named(out, size), open(folder / MANIFEST, "w", encoding="utf-8") as text:
            json.dump(manifest, text, indent=1, allow_nan=False, ensure_ascii=False)
            sync(text)
    return open_bank(out)


def save_bank(bank: Bank, path: str | Path, *, force: bool = False) -> Bank:
    """Write a bank that is in memory (or elsewhere on disk) to a folder, and return it opened from there."""
    step = batch_rows(bank.rows[0].nbytes)
    source = Source(
        where=str(bank.manifest.get("source", "arrays")),
        shape=bank.rows.shape,
        dtype=bank.rows.dtype,
        batches=lambda: (np.asarray(bank.rows[start : start + step]) for start in range(0, len(bank.rows), step)),
        labels=bank.labels,
        class_names=bank.class_names,
        transform=tuple(bank.manifest.get("transform", ())),
    )
    return write_bank(source, Path(path), flips=bank.flips, low=bank.low, high=bank.high, name=bank.name, force=force)


def _header(dtype: np.dtype[Any], shape: tuple[int, ...], labelled: bool) -> bytes:
    """The head of the safetensors file; labels come first, so that both tensors are aligned whatever the rows' size."""
    code = next(code for code, known in TYPES.items() if known == dtype)
    labels = 8 * shape[0] if labelled else 0
    tensors: dict[str, Any] = {"labels": {"dtype": "I64", "shape": [shape[0]], "data_offsets": [0, labels]}} if labelled else {}
    end = labels + math.prod(shape) * dtype.itemsize
    tensors["rows"] = {"dtype": code, "shape": list(shape), "data_offsets": [labels, end]}
    text = json.dumps(tensors, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


# ---- opening ----------------------------------------------------------------------------------------------------------------


def open_bank(path: Path) -> Bank:
    """Open a bank folder, its rows memory-mapped.

    Raises:
        InputError: No bank there, or its files are cut, altered in size, or contradict each other.
    """
    if not path.exists():
        raise InputError(f"no bank at {path}", "scorescope bank build SOURCE --out NAME.bank")
    for name in (MANIFEST, ROWS):
        if not (path / name).is_file():
            raise InputError(f"{path} is no bank: it has no {name}", "a folder made by scorescope bank build")
    manifest = _read_manifest(path / MANIFEST)
    rows_path = path / ROWS
    layout = _read_header(rows_path, manifest)
    shape, dtype = (manifest["rows"], *manifest["shape"]), np.dtype(manifest["dtype"])
    found = layout.get("rows")
    if found is None or found[1] != shape or found[0] != dtype or ("labels" in layout) != bool(manifest["classes"]):
        raise InputError(f"{path}: {ROWS} is not what {MANIFEST} describes ({dtype} {shape})", "building the bank again")
    rows = np.memmap(rows_path, dtype=found[0], mode="r", offset=found[2], shape=shape)
    labels = None
    if "labels" in layout:
        kind, extent, offset = layout["labels"]
        labels = np.fromfile(rows_path, dtype=kind, count=math.prod(extent), offset=offset)
        if labels.shape != (len(rows),) or labels.min() < 0 or labels.max() >= manifest["classes"]:
            raise InputError(
                f"{path}: the labels are not those of the {manifest['classes']} classes of {MANIFEST}", "building the bank again"
            )
    low, high = (manifest["low"], manifest["high"]) if dtype == np.uint8 else (-1.0, 1.0)
    names = tuple(manifest["class_names"]) if manifest["class_names"] else None
    name = str(manifest["name"])
    return Bank(rows, labels, flips=manifest["flips"], low=low, high=high, class_names=names, name=name, manifest=manifest)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known = {"schema": int, "rows": int, "shape": list, "dtype": str, "flips": bool, "classes": int, "name": str, "fingerprint": str}
        sound = all(isinstance(manifest[key], kind) for key, kind in known.items()) and {"low", "high", "class_names"} <= manifest.keys()
        sound = sound and all(isinstance(extent, int) and extent > 0 for extent in (manifest["rows"], *manifest["shape"]))
        sound = sound and (manifest["dtype"] != "uint8" or float(manifest["low"]) < float(manifest["high"]))
        sound = sound and manifest["dtype"] in {kind.name for kind in TYPES.values()}
    except (ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        raise InputError(f"{path} is cut or is no bank's manifest", "building the bank again")
    if manifest["schema"] > SCHEMA:
        raise InputError(f"{path} was written by a newer version ({manifest.get('version')})", "upgrading scorescope")
    return dict(manifest)


def _read_header(path: Path, manifest: dict[str, Any]) -> dict[str, tuple[np.dtype[Any], tuple[int, ...], int]]:
    """The tensors of a safetensors file: name → (dtype, shape, offset in the file), after its size was checked."""
    size = path.stat().st_size
    data = math.prod((manifest["rows"], *manifest["shape"])) * np.dtype(manifest["dtype"]).itemsize
    data += 8 * manifest["rows"] if manifest["classes"] else 0
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 + length and size < data:
            raise InputError(f"{path} was cut: expected more than {data:,} bytes, found {size:,}", "building the bank again")
        try:
            tensors = json.loads(file.read(min(length, 1 << 20)))
            tensors.pop("__metadata__", None)
            layout = {
                name: (TYPES[entry["dtype"]], tuple(map(int, entry["shape"])), 8 + length + int(entry["data_offsets"][0]))
                for name, entry in tensors.items()
            }
            end = 8 + length + max(int(entry["data_offsets"][1]) for entry in tensors.values())
            whole = all(
                math.prod(shape) * kind.itemsize == entry["data_offsets"][1] - entry["data_offsets"][0]
                for (kind, shape, _), entry in zip(layout.values(), tensors.values(), strict=True)
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as problem:
            raise InputError(f"{path} was altered: its header can't be read as safetensors", "building the bank again") from problem
    if size != end:
        what = "was cut" if size < end else "has bytes too many"
        raise InputError(f"{path} {what}: expected {end:,} bytes, found {size:,}", "building the bank again")
    if not whole:
        raise InputError(f"{path} was altered: its header contradicts itself", "building the bank again")
    return layout


# ---- verifying --------------------------------------------------------------------------------------------------------------


def verify(bank: Bank, progress: Progress = quiet) -> dict[str, Any]:
    """Read every row, and return what the manifest should say of the content: fingerprint, statistics, cautions.

    Raises:
        InputError: A file cut since it was opened; rows with NaN or Inf; content, labels, flips or range other than those that
            the manifest's fingerprint was taken of; statistics or counts that differ from the manifest's.
    """
    rows, where = bank.rows, f"bank {bank.name}"
    if isinstance(rows, np.memmap) and rows.filename is not None:
        where, size, expected = str(Path(rows.filename).parent), os.path.getsize(rows.filename), rows.offset + rows.nbytes
        if size < expected:  # Touching a page behind the end would kill the process.
            raise InputError(f"{rows.filename} was cut: expected {expected:,} bytes, found {size:,}", "building the bank again")
    summary = Summary(rows.dtype, rows.shape, flips=bank.flips, low=bank.low, high=bank.high)
    step = batch_rows(rows[0].nbytes)
    for start in range(0, len(rows), step):
        summary.update(np.asarray(rows[start : start + step]))
        progress("rows", summary.seen, len(rows))
    summary.refuse_non_finite(where)
    content = summary.finish(bank.labels)
    manifest = bank.manifest
    if "fingerprint" not in manifest:
        return content
    if content["fingerprint"] != manifest["fingerprint"]:
        found, recorded = content["fingerprint"][:12], manifest["fingerprint"][:12]
        raise InputError(
            f"{where} was altered: its content has fingerprint {found}…, its manifest says {recorded}…", "building the bank again"
        )
    content["class_counts"] = None if bank.labels is None else np.bincount(bank.labels, minlength=bank.classes).tolist()
    wrong = [key for key in content if key != "cautions" and not _agree(content[key], manifest.get(key))]
    if wrong:
        raise InputError(f"{where}: its manifest is wrong about {', '.join(wrong)}", "building the bank again")
    return content


def _agree(found: Any, recorded: Any) -> bool:
    """Equality, up to rounding for sums that may have been taken in other batches."""
    if isinstance(found, list) and isinstance(recorded, list):
        return len(found) == len(recorded) and all(map(_agree, found, recorded))
    if isinstance(found, float) and isinstance(recorded, (int, float)):
        return math.isclose(found, recorded, rel_tol=1e-9, abs_tol=1e-9)
    return bool(found == recorded)
