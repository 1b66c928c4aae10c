"""A model built by a function in a Python file: `my_model.py:build`."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from scorescope.denoiser import Denoiser
from scorescope.errors import InputError, unknown
from scorescope.files import sha256


def accepts(path: Path) -> bool:
    """FILE.py:FUNCTION, or a FILE.py alone."""
    return path.suffix == ".py" or path.name.rpartition(":")[0].endswith(".py")


def load(path: Path, options: dict[str, Any]) -> Denoiser:
    """Run the file and call the function with `options`; it must return a `Denoiser`. Errors inside the file are the user's to see."""
    text, _, function = (str(path), "", "build") if path.suffix == ".py" else str(path).rpartition(":")
    file = Path(text)
    if not file.is_file():
        raise InputError(f"there is no file {file}", "the path of a Python file, a colon, and the name of a function in it")
    with importable(file.parent):
        module = _run(file)
        build = getattr(module, function, None)
        if not callable(build):
            raise _no_function(module, file, function)
        try:
            inspect.signature(build).bind(**options)
        except TypeError as problem:
            given = ", ".join(options) or "no arguments"
            raise InputError(f"{function} in {file} can't be called with {given} ({problem})", "defaults for its parameters") from problem
        model = build(**options)
    if not isinstance(model, Denoiser):
        raise InputError(
            f"{function} in {file} returned {type(model).__name__}, not a Denoiser", "ss.NetworkDenoiser(net, schedule, prediction=…)"
        )
    model.about = {**model.about, "file": f"{file}:{function}", "sha256": sha256(file)}
    return model


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Modules in `folder` can be imported inside."""
    place = str(folder.resolve())
    sys.path.insert(0, place)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(place)


def _run(file: Path) -> ModuleType:
    """The file as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"scorescope_model_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[spec.name]
        raise
    return module


def _no_function(module: ModuleType, file: Path, function: str) -> InputError:
    here = [name for name, value in vars(module).items() if callable(value) and getattr(value, "__module__", "") == module.__name__]
    own = [name for name in here if not name.startswith("_")]
    if not own:
        return InputError(f"{file} defines no function", f"def {function}(): … that returns a Denoiser")
    return unknown(f"function in {file}", function, own)
