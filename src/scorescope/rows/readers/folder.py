"""A folder of files: images, sound or arrays with a row each, in class subfolders or not; or the shards of another reader."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from scorescope.errors import InputError
from scorescope.registry import every, module
from scorescope.rows.images import Item
from scorescope.rows.members import SUFFIXES, Members, files_of, members_source, suffix_of
from scorescope.rows.options import Options
from scorescope.rows.storage import MANIFEST, ROWS, Progress, Source, refuse_special

CLUTTER = frozenset({"thumbs.db", "desktop.ini"})


def accepts(path: Path) -> bool:
    """Any folder."""
    return path.is_dir()


def source(path: Path, options: Options, progress: Progress) -> Source:
    """The rows of the files, or of the shards that the folder holds."""
    if (path / ROWS).exists() and (path / MANIFEST).exists():
        raise InputError(f"{path} is a bank already", f"scorescope bank info {path}")
    names = walk(path)
    members = folder_members(path, names)
    if not files_of(members)[0]:
        for reader, suffixes in every("scorescope.rows.readers", "SUFFIXES").items():
            files = [path / name for name in names if suffix_of(name) in suffixes]
            several = getattr(module("scorescope.rows.readers", reader, "reader"), "several", None)
            if files and several is not None:
                for file in files:
                    refuse_special(file)
                found: Source = several(files, str(path), options, progress)
                return found
    return members_source(members, options, progress)


def folder_members(root: Path, names: Sequence[str]) -> Members:
    """The files of a folder, by paths in it."""
    for name in names:
        if suffix_of(name) in SUFFIXES:
            refuse_special(root / name)

    def read(wanted: Sequence[str]) -> Iterator[Item]:
        return ((name, root / name) for name in wanted)

    return Members(str(root), names, read)


def walk(root: Path) -> list[str]:
    """The files below `root`, in alphabetical order. Hidden files and file managers' clutter do not count."""
    found: list[str] = []
    visited: set[str] = set()

    def refuse(problem: OSError) -> None:
        raise InputError(f"{problem.filename} can't be read ({problem.strerror})", "a folder that you may read") from problem

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        subfolders[:] = [] if real in visited else [name for name in subfolders if not name.startswith(".")]
        if real in visited:
            continue
        visited.add(real)
        found += [
            (Path(folder) / name).relative_to(root).as_posix() for name in names if not name.startswith(".") and name.lower() not in CLUTTER
        ]
    return sorted(found)
