"""Bad inputs as a table: each is answered in one line that says what is wrong, with exit status 2, and nothing is written.

A file of this package has a list `CASES`; a new fault is a new line in one of them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


def nothing(folder: Path) -> None:
    """Nothing to prepare."""


class Case(NamedTuple):
    """One bad input.

    `run` is the words after `scorescope`, or a function of a fresh folder, in which both run. `says` is a pattern that the line matches.
    `make` puts files into the folder first.
    """

    name: str
    run: Sequence[str] | Callable[[Path], Any]
    says: str
    make: Callable[[Path], None] = nothing


def every() -> list[Case]:
    modules = [importlib.import_module(f"{__name__}.{found.name}") for found in pkgutil.iter_modules(__path__)]
    return [case for module in modules for case in module.CASES]
