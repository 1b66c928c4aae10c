"""A folder belongs to a run: one protocol for examine, sample, train, features and bench.

    OUT/run.json   the kind of run, all settings that its numbers depend on (identity of models and banks, code version), and notes
    OUT/…          what the run writes: names that its `Kind` lists, and no others

The same command again continues. A folder with other settings, of another kind, of another program, or in use by another process is
refused in one line. `force` removes what the run's kind lists, and nothing else: a file that is not the run's own is never touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from scorescope import __version__
from scorescope.errors import InputError
from scorescope.files import locked, write_json

RECORD, SCHEMA = "run.json", 1
ANOTHER = "another --out, or --force to replace it"


@dataclass(frozen=True)
class Kind:
    """What a folder can be.

    Attributes:
        name: With its article, as messages say it: "an examination".
        own: Glob patterns, relative to the folder, of all files that such a run writes beside `run.json`; so narrow that no other
            file is likely to fit.
        before: Names of files by which a folder of an earlier version, which had no `run.json`, is known.
        keys: What a `run.json` of an earlier version, which named no kind, is known by; any other that names none is somebody else's.
    """

    name: str
    own: tuple[str, ...]
    before: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


@contextmanager
def claimed(
    folder: str | Path,
    kind: Kind,
    settings: Mapping[str, Any],
    *,
    notes: Mapping[str, Any] | None = None,
    force: bool = False,
    hint: str = ANOTHER,
) -> Iterator[bool]:
    """The folder is this run's while the block lasts, and locked; gives whether an earlier start is continued.

    Args:
        folder: Of the run; made if need be.
        kind: What the run is.
        settings: What its numbers depend on, as values that JSON can hold; the code version is added.
        notes: What else `run.json` should say of a fresh run.
        force: Begin again, in place of whatever run of this kind is there.
        hint: What to do about other settings.

    Raises:
        InputError: The folder holds other settings (what differs is named), something else, or is written by another process.
    """
    place = Path(folder)
    continues(place, kind, settings, force=force, hint=hint)  # before anything is made
    place.mkdir(parents=True, exist_ok=True)
    with locked(place, place, "waiting for it, or another --out"):
        continued = continues(place, kind, settings, force=force, hint=hint)
        _remove(place, tuple(str(Path(name).with_name(f".{Path(name).name}.[0-9]*.tmp")) for name in (*kind.own, RECORD)))
        if not continued:
            _remove(place, (*kind.own, RECORD, *kind.before))
            record = {"schema": SCHEMA, "kind": kind.name, "settings": _wanted(settings), **_as_stored(notes or {})}
            write_json(place / RECORD, record)
        yield continued


def continues(folder: str | Path, kind: Kind, settings: Mapping[str, Any], *, force: bool = False, hint: str = ANOTHER) -> bool:
    """Whether the folder holds this very run; False where it is free, or `force` makes it so. As `claimed`, but nothing is written."""
    return _continues(Path(folder), kind, _wanted(settings), force, hint)


def record_of(folder: str | Path) -> dict[str, Any] | None:
    """What `run.json` says; None where there is none, or one that can't be read."""
    try:
        found = json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def is_run(folder: str | Path, kind: Kind) -> bool:
    """Whether the folder holds a run of this kind."""
    found = record_of(folder)
    return found is not None and found.get("kind") == kind.name


def differences(known: Any, wanted: Any, name: str = "") -> list[str]:
    """What differs between two nested records, as "name old → new"."""
    if isinstance(known, dict) and isinstance(wanted, dict):
        keys = [*known, *(key for key in wanted if key not in known)]
        return [line for key in keys for line in differences(known.get(key), wanted.get(key), f"{name}.{key}" if name else key)]
    return [] if known == wanted else [f"{name} {_short(known)} → {_short(wanted)}"]


def _continues(folder: Path, kind: Kind, wanted: dict[str, Any], force: bool, hint: str) -> bool:
    if not folder.exists() or (folder.is_dir() and all(fnmatch(path.name, f".{RECORD}.[0-9]*.tmp") for path in folder.iterdir())):
        return False
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder for {kind.name}", "another --out")
    if not (folder / RECORD).exists():
        if any((folder / name).exists() for name in kind.before):
            if force:
                return False
            raise InputError(f"{folder} holds {kind.name} of an earlier version, which can't be continued", hint)
        raise InputError(f"{folder} is not empty and does not hold {kind.name}", "another --out")
    found = record_of(folder)
    if found is not None and "kind" not in found and not (kind.keys and found.keys() >= set(kind.keys)):
        raise InputError(f"{folder} is not empty and does not hold {kind.name}", "another --out")
    if found is not None and found.get("kind", kind.name) != kind.name:
        raise InputError(f"{folder} holds {found['kind']}, not {kind.name}", "another --out")
    if force:
        return False
    if found is None or not isinstance(found.get("settings"), dict):
        what = "is damaged" if found is None else f"is of {kind.name} of an earlier version, which can't be continued"
        raise InputError(f"{folder / RECORD} {what}", hint)
    differing = differences(found["settings"], wanted)
    if differing:
        more = f", and {len(differing) - 6} more" if len(differing) > 6 else ""
        raise InputError(f"{folder} holds {kind.name} with other settings ({', '.join(differing[:6])}{more})", hint)
    return True


def _remove(folder: Path, patterns: tuple[str, ...]) -> None:
    """Remove the files that fit, and the folders that held nothing else."""
    found = [path for pattern in patterns for path in folder.glob(pattern)]
    for path in found:
        path.unlink(missing_ok=True)
    emptied = {parent for path in found for parent in path.parents if folder in parent.parents}
    for parent in sorted(emptied, key=lambda one: -len(one.parts)):
        if parent.is_dir() and not any(parent.iterdir()):
            parent.rmdir()


def _wanted(settings: Mapping[str, Any]) -> dict[str, Any]:
    return _as_stored({**settings, "version": __version__})


def _as_stored(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values as JSON gives them back."""
    return dict(json.loads(json.dumps(values, allow_nan=False)))


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)
    return text[:12] if len(text) == 64 and not set(text) - set("0123456789abcdef") else text if len(text) <= 60 else f"{text[:57]}…"
