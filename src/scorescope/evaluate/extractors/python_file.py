"""A user's own extractor: `my_extractor.py:build`."""

from __future__ import annotations

import runpy
from pathlib import Path

from torch import nn

from scorescope.adapters.python_file import importable
from scorescope.errors import InputError, unknown
from scorescope.evaluate.extractors import Extractor
from scorescope.files import sha256


def accepts(name: str) -> bool:
    """FILE.py:FUNCTION, or a FILE.py alone."""
    return name.endswith(".py") or name.rpartition(":")[0].endswith(".py")


def load(name: str) -> Extractor:
    """Run the file and call the function; errors inside the file are the user's to see.

    Raises:
        InputError: No such file or function; it returns neither a torch module nor an `Extractor`.
    """
    text, _, function = (name, "", "build") if name.endswith(".py") else name.rpartition(":")
    file = Path(text)
    if not file.is_file():
        raise InputError(f"there is no file {file}", "the path of a Python file, a colon, and the name of a function in it")
    with importable(file.parent):
        names = runpy.run_path(str(file), run_name=f"scorescope_extractor_{file.stem}")
        if not callable(names.get(function)):
            own = [key for key, value in names.items() if callable(value) and not key.startswith("_")]
            raise unknown(f"function in {file}", function, own)
        built = names[function]()
    if isinstance(built, nn.Module):
        made = Extractor.of(built, file.stem)
        return Extractor(made.net, made.name, f"{sha256(file)} {made.identity}")
    if not isinstance(built, Extractor):
        raise InputError(
            f"{function} in {file} returned {type(built).__name__}, not an extractor", "a torch module, or ss.evaluate.Extractor(…)"
        )
    return built
