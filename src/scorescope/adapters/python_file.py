"""A model built by a function in a Python file: `my_model.py:build`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from scorescope.denoiser import Denoiser
from scorescope.errors import InputError, unknown
from scorescope.files import sha256


def accepts(path: Path) -> bool:
    """FILE.py:FUNCTION, or a FILE.py alone."""
    return ".py" in path.name and (path.suffix == ".py" or path.name.rpartition(":")[0].endswith(".py"))


def load(path: Path, options: dict[str, Any]) -> Denoiser:
    """Run the file and call the function with `options`; it must return a `Denoiser`."""
    text, _, function = str(path).rpartition(":") if not str(path).endswith(".py") else (str(path), "", "build")
    file = Path(text)
    if not file.is_file():
        raise InputError(f"there is no file {file}", "the path of a Python file, a colon, and the name of a function in it")
    spec = importlib.util.spec_from_file_location(f"scorescope_model_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(file.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent.resolve()))
    build = getattr(module, function, None)
    if not callable(build):
        raise unknown(f"function in {file}", function, [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")])
    model = build(**options)
    if not isinstance(model, Denoiser):
        raise InputError(f"{function} in {file} returned {type(model).__name__}, not a Denoiser", "ss.NetworkDenoiser(net, schedule, prediction=…)")
    model.about = {**model.about, "file": f"{file}:{function}", "sha256": sha256(file)}
    return model
