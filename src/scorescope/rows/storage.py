"""Banks on disk: how they are written, opened and verified.

A bank is a folder with two files. `rows.safetensors` holds the tensors `mean` (*shape) float64, `labels` (N,) int64, if there are
any, `rows` (N, *shape) as stored, their names and their groups (`names.packed`), if there are any; its header is written first,
because N is known before the rows are read, so that rows stream through and memory stays flat. `manifest.json` says what they are
(the keys are those of `write_bank`).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from scorescope import __version__
from scorescope.errors import InputError
from scorescope.files import replacing_folder, space_for
from scorescope.rows.content import SCHEMA, check_labels, check_range
from scorescope.rows.names import packed, unpacked
from scorescope.rows.summary import Summary
from scorescope.rows.tensors import Entry, Layout, StoredFile, StoredRows, plan, read_layout

ROWS, MANIFEST = "rows.safetensors", "manifest.json"
MANIFEST_KEYS: dict[str, Any] = {
    **{"schema": int, "name": str, "rows": int, "shape": [int], "dtype": str, "flips": bool, "low": float, "high": float},
    **{"classes": int, "class_names": [str], "class_counts": [int], "source": str, "transform": [str], "cautions": [str]},
    **{"minimum": float, "maximum": float, "mean": float, "channel_means": [float], "radius": float, "duplicates": int},
    "fingerprint": str,
}
OPTIONAL = ("low", "high", "class_names", "class_counts", "channel_means")  # None where a bank has no such thing
STORED = ("uint8", "float16", "float32")
BATCH_BYTES = 4 << 20
AGAIN = "building the bank again"

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
        extra: What else the manifest says.
        names: Of the rows, or None.
        groups: What rows that belong together share, a word a row, or None.
        known_at_the_end: Asked once the rows were read: what else the manifest says; its `cautions` follow the others.
    """

    where: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    batches: Callable[[], Iterator[np.ndarray]]
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] | None = None
    transform: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    known_at_the_end: Callable[[], Mapping[str, Any]] = dict


class Meaning(NamedTuple):
    """What stored rows stand for: mirror images, the model-space values of 8-bit 0 and 255, the bank's name.

    A bank without a name is called "bank" in memory, and as its folder on disk.
    """

    flips: bool = False
    low: float = -1.0
    high: float = 1.0
    name: str | None = None


def refuse_special(path: Path) -> None:
    """Raise `InputError` for a pipe, which would be waited for without end, a socket or a device."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a pipe, a socket or a device, not a file", "a regular file")


def batch_rows(row_bytes: int) -> int:
    """How many rows to hold at once."""
    return max(1, min(4096, BATCH_BYTES // max(1, row_bytes)))


# ---- writing ----------------------------------------------------------------------------------------------------------------


def refuse_existing(out: Path, force: bool) -> None:
    """Raise `InputError` if `out` exists and may not be replaced; only a bank or an empty folder ever is."""
    if not (out.exists() or out.is_symlink()):
        return
    bank = (out / ROWS).is_file() and (out / MANIFEST).is_file()
    if not out.is_dir() or out.is_symlink() or not (bank or not any(out.iterdir())):
        raise InputError(f"{out} exists and is not a bank, so it is not replaced", "another --out")
    if not force:
        raise InputError(f"{out} exists", "another --out, or --force to replace it")


def name_of(out: Path) -> str:
    """What a bank is called that was given no name."""
    return out.stem if out.suffix == ".bank" else out.name


def write_bank(source: Source, out: Path, meaning: Meaning, *, force: bool = False, progress: Progress = quiet) -> None:
    """Stream a source into a bank folder.

    Raises:
        InputError: Rows with NaN or Inf, an output that exists, a folder without write permission, a full disk; then nothing
            of the bank is left behind.
    """
    flips, low, high, name = meaning
    if flips and len(source.shape) < 3:
        raise InputError(f"flips need rows with a width, those of {source.where} have shape {source.shape[1:]}", "a bank without flips")
    low, high = check_range(low, high)
    if source.labels is not None:
        check_labels(source.labels, source.class_names, source.where)
    byte = source.dtype == np.uint8
    summary = Summary(source.dtype, source.shape, flips=flips, low=low, high=high)
    words = {key: packed(told) for key, told in (("names", source.names), ("groups", source.groups)) if told is not None}
    layout = _layout(source, {key: len(told) for key, told in words.items()})
    refuse_existing(out, force)
    with space_for(out, layout.size, "another disk, or --limit"), replacing_folder(out) as folder:
        with open(folder / ROWS, "wb") as file:
            file.write(layout.header)
            file.seek(layout.tensors["mean"].nbytes, os.SEEK_CUR)  # Known when all rows were seen.
            if source.labels is not None:
                file.write(np.ascontiguousarray(source.labels, dtype="<i8").data)
            for rows in source.batches():
                summary.update(rows)
                if summary.sound:
                    file.write(np.ascontiguousarray(rows, dtype=source.dtype).data)
                progress("rows", summary.seen, source.shape[0])
            file.writelines(words.values())
            summary.refuse_non_finite(source.where)
            content = summary.finish(source.labels)
            file.seek(layout.tensors["mean"].offset)
            file.write(np.ascontiguousarray(summary.mean, dtype="<f8").data)
        counts = None if source.labels is None else np.bincount(source.labels, minlength=len(source.class_names or ())).tolist()
        late = dict(source.known_at_the_end())
        manifest = {
            "schema": SCHEMA,
            "version": __version__,
            "name": name or name_of(out),
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
            "cautions": [*source.cautions, *late.pop("cautions", ()), *content["cautions"]],
            **({} if source.groups is None else {"groups": groups_in_short(source.groups)}),
            **source.extra,
            **late,
        }
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=False, ensure_ascii=False), encoding="utf-8")
        refuse_existing(out, force)  # nor what came there meanwhile


def groups_in_short(groups: tuple[str, ...]) -> dict[str, Any]:
    """What the manifest says of the groups. They change no answer about the rows, so that the bank's fingerprint is without them."""
    digest = hashlib.sha256("\0".join(groups).encode()).hexdigest()
    return {"count": len(set(groups)), "fingerprint": digest}


def _layout(source: Source, words: Mapping[str, int]) -> Layout:
    """The tensors of a bank, the wide types first, so that each is aligned whatever the rows' size; texts take so many bytes."""
    labels = {} if source.labels is None else {"labels": (np.dtype("<i8"), (source.shape[0],))}
    texts = {key: (np.dtype(np.uint8), (size,)) for key, size in words.items()}
    return plan({"mean": (np.dtype("<f8"), source.shape[1:]), **labels, "rows": (source.dtype, source.shape), **texts})


# ---- opening ----------------------------------------------------------------------------------------------------------------


class Stored(NamedTuple):
    """What a bank folder holds: the rows on the disk, labels (N,), mean (*shape), names and groups where there are any, the manifest."""

    rows: StoredRows
    labels: np.ndarray | None
    mean: np.ndarray | None
    manifest: dict[str, Any]
    names: Callable[[], tuple[str, ...]] | None = None
    groups: Callable[[], tuple[str, ...]] | None = None


def read_bank(path: Path) -> Stored:
    """Read a bank folder; its rows stay on the disk.

    Raises:
        InputError: No bank there, or its files are cut, altered in size, or contradict each other.
    """
    if not path.exists():
        raise InputError(f"no bank at {path}", "scorescope bank build SOURCE --out NAME.bank")
    for name in (MANIFEST, ROWS):
        if not (path / name).is_file():
            raise InputError(f"{path} is no bank: it has no {name}", "a folder made by scorescope bank build")
    manifest = _read_manifest(path / MANIFEST)
    file = StoredFile.at(path / ROWS)
    shape, dtype = (manifest["rows"], *manifest["shape"]), np.dtype(manifest["dtype"])
    least = math.prod(shape) * dtype.itemsize + (8 * manifest["rows"] if manifest["classes"] else 0)
    found = read_layout(path / ROWS, least, AGAIN).tensors
    entry, mean, tags = found.get("rows"), found.get("mean"), found.get("labels")
    known = entry is not None and (entry.shape, entry.dtype) == (shape, dtype) and (tags is not None) == bool(manifest["classes"])
    if entry is None or not known or (mean is not None and (mean.shape, mean.dtype) != (shape[1:], np.float64)):
        raise InputError(f"{path}: {ROWS} is not what {MANIFEST} describes ({dtype} {shape})", AGAIN)
    labels = None if tags is None else file.read(tags)
    if labels is not None and (labels.shape != shape[:1] or labels.min() < 0 or labels.max() >= manifest["classes"]):
        raise InputError(f"{path}: the labels are not those of the {manifest['classes']} classes of {MANIFEST}", AGAIN)
    centre = None if mean is None else file.read(mean)
    if centre is not None and not np.isfinite(centre).all():
        raise InputError(f"{path / ROWS} was altered: its mean is not finite", AGAIN)
    names, groups = (partial(_read_words, file, found[key], manifest["rows"], key) if key in found else None for key in ("names", "groups"))
    return Stored(StoredRows(file, entry), labels, centre, manifest, names, groups)


def _read_words(file: StoredFile, entry: Entry, n: int, what: str) -> tuple[str, ...]:
    return unpacked(file.read(entry), n, str(file.path), what)


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        schema, version = manifest["schema"], manifest.get("version")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise InputError(f"{path} is cut or is no bank's manifest", AGAIN) from problem
    if isinstance(schema, int) and schema > SCHEMA:
        raise InputError(f"{path} was written by a newer version ({version})", "upgrading scorescope")
    for key, kind in MANIFEST_KEYS.items():
        if key not in manifest:
            raise InputError(f"{path} is cut or is no bank's manifest: it has no {key}", AGAIN)
        if not (_is_a(kind, manifest[key]) or (manifest[key] is None and key in OPTIONAL)):
            raise InputError(f"{path} was altered: its {key} can't be {json.dumps(manifest[key])[:60]}", AGAIN)
    counts, names, channels = manifest["class_counts"], manifest["class_names"], manifest["channel_means"]
    contradictions = {
        "rows": not manifest["rows"],
        "shape": not all(manifest["shape"] or [0]),
        "dtype": manifest["dtype"] not in STORED,
        "class_counts": len(counts or ()) != manifest["classes"] or (counts is not None and sum(counts) != manifest["rows"]),
        "class_names": bool(names and counts) and len(names) != manifest["classes"],
        "channel_means": channels is not None and [len(channels)] != manifest["shape"][:1],
        "low": (manifest["dtype"] == "uint8") != (manifest["low"] is not None) or (manifest["low"] is None) != (manifest["high"] is None),
    }
    for key in (key for key, wrong in contradictions.items() if wrong):
        raise InputError(f"{path} was altered: its {key} contradicts the rest", AGAIN)
    return dict(manifest)


def _is_a(kind: Any, value: Any) -> bool:
    """Whether a value of JSON is of a kind of `MANIFEST_KEYS`: a whole number from 0, a finite number, a word, or a list of such."""
    if isinstance(kind, list):
        return isinstance(value, list) and all(_is_a(kind[0], item) for item in value)
    if kind in (int, float):
        known = isinstance(value, (int, kind)) and not isinstance(value, bool)
        return known and (0 <= value < 1 << 62 if kind is int else abs(value) <= sys.float_info.max)
    return isinstance(value, kind)
