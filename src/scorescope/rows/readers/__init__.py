"""What a path is: one layout of data on disk a file, found by scanning this package.

A reader has `accepts(path) -> bool`, which looks at names and at most into a folder, and `source(path, options, progress) -> Source`.
One whose data are often kept in several files has `several(files, where, options, progress) -> Source`, too: `SUFFIXES` says which files
of a folder are its own. `folder` takes the folders that no other reader wants.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from scorescope.registry import every, module

GENERAL = "folder"


def reader_of(path: Path) -> ModuleType | None:
    """The reader that accepts a path, or None."""
    known = every(__name__, "accepts")
    for name in sorted(known, key=lambda name: (name == GENERAL, name)):
        if known[name](path):
            return module(__name__, name, "reader")
    return None
