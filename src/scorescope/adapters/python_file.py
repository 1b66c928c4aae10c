"""A model built by a function in a Python file: `my_model.py:build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scorescope import user_file
from scorescope.adapters import objects
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.files import sha256

accepts = user_file.accepts


def load(path: Path, options: dict[str, Any]) -> Denoiser:
    """Run the file and call the function with `options`; it must return a `Denoiser`, or what `objects` can make one of."""
    made, (file, function) = user_file.built(path, "a Denoiser", options), user_file.split(path)
    if not isinstance(made, Denoiser) and objects.kind_of(made) is None:
        raise InputError(
            f"{function} in {file} returned {type(made).__name__}, not a Denoiser", "ss.NetworkDenoiser(net, schedule, prediction=…)"
        )
    try:
        model = objects.denoiser_of(made)
    except InputError as problem:
        raise InputError(f"{function} in {file} returned {type(made).__name__}: {problem.problem}", problem.hint) from problem
    model.about = {**model.about, "file": f"{file}:{function}", "sha256": sha256(file)}
    return model
