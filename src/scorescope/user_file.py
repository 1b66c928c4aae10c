"""What a function in a user's file returns: `my_model.py:build`, for models, extractors and encoders alike.

The file runs as any script would, with its own folder importable. What goes wrong inside it is one line with that file's line.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from scorescope.errors import InputError, unknown

FUNCTION = "build"  # unless another is named


def accepts(name: str | Path) -> bool:
    """FILE.py:FUNCTION, or a FILE.py alone."""
    text = str(name)
    return text.endswith(".py") or text.rpartition(":")[0].endswith(".py")


def split(name: str | Path) -> tuple[Path, str]:
    """The file and the function that are named."""
    text = str(name)
    file, function = (text, FUNCTION) if text.endswith(".py") else text.rpartition(":")[::2]
    return Path(file), function


def built(name: str | Path, returns: str, options: Mapping[str, Any] | None = None) -> Any:
    """Run the file, call the function with `options`, and give what it returns.

    Args:
        name: As `accepts` takes it.
        returns: What the function should return, for hints.
        options: Keyword arguments of the function.

    Raises:
        InputError: No such file or function, options that it does not take, or an error inside the file, with its line.
    """
    file, function = split(name)
    if not file.is_file():
        raise InputError(f"there is no file {file}", "the path of a Python file, a colon, and the name of a function in it")
    with importable(file.parent), inside(file):
        module = _run(file)
        build = getattr(module, function, None)
        if not callable(build):
            raise _no_function(module, file, function, returns)
        try:
            inspect.signature(build).bind(**(options or {}))
        except TypeError as problem:
            given = ", ".join(options or {}) or "no arguments"
            raise InputError(f"{function} in {file} can't be called with {given} ({problem})", "defaults for its parameters") from problem
        return build(**(options or {}))


@contextlib.contextmanager
def inside(file: Path, when: str = "") -> Iterator[None]:
    """Turn an error that comes from a user's file into one line that names the file's line; others pass.

    With `when`, what the file's model was asked just then, all errors are turned: without a line of the file, it is what made the model.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as problem:
        line = line_of(problem, file)
        if line is None and not when:
            raise
        said = " ".join(str(problem).split()) or "no message"
        where = f"{file}, line {line}" if line is not None else f"the model of {file}"
        asked = f" ({when})" if when else ""
        raise InputError(f"{where}: {type(problem).__name__}: {said}{asked}", f"mending {file}") from problem


def line_of(problem: BaseException, file: Path) -> int | None:
    """The last line of a file that an error passed through, or that can't be read as Python; None where it passed through none."""
    if isinstance(problem, SyntaxError) and problem.filename and Path(problem.filename).resolve() == file.resolve():
        return problem.lineno
    passed = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if Path(frame.filename).resolve() == file.resolve()]
    return passed[-1] if passed else None


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
    spec = importlib.util.spec_from_file_location(f"scorescope_user_{file.stem}", file)
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


def _no_function(module: ModuleType, file: Path, function: str, returns: str) -> InputError:
    here = [name for name, value in vars(module).items() if callable(value) and getattr(value, "__module__", "") == module.__name__]
    own = [name for name in here if not name.startswith("_")]
    if not own:
        return InputError(f"{file} defines no function", f"def {function}(): … that returns {returns}")
    return unknown(f"function in {file}", function, own)
