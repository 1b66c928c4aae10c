"""A model built by a function in a Python file: `my_model.py:build`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scorescope import user_file
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.files import sha256

accepts = user_file.accepts


def load(path: Path, options: dict[str, Any]) -> Denoiser:
    """Run the file and call the function with `options`; it must return a `Denoiser`."""
    model, (file, function) = user_file.built(path, "a Denoiser", options), user_file.split(path)
    if not isinstance(model, Denoiser):
        raise InputError(
            f"{function} in {file} returned {type(model).__name__}, not a Denoiser", "ss.NetworkDenoiser(net, schedule, prediction=…)"
        )
    model.about = {**model.about, "file": f"{file}:{function}", "sha256": sha256(file)}
    return model
