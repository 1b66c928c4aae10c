"""A pickled `Denoiser`, as `torch.save(model, "model.pt")` writes it.

Opening a pickle runs whatever code is inside, so `scorescope.adapters.load` comes here only when it was told to trust the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from scorescope.adapters.weights import PICKLES, kinds
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.files import sha256
from scorescope.user_file import importable

REMEDY = "my_model.py:build, a function that reads the file and returns ss.NetworkDenoiser(net, schedule, prediction=…)"


def accepts(path: Path) -> bool:
    """A file with one of the names that pickles go by, which holds one object of some class."""
    return path.suffix.lower() in PICKLES and path.is_file() and "object" in kinds(path)


def load(path: Path, options: dict[str, Any]) -> Denoiser:
    """Unpickle the file; classes are looked for beside it, too. It must hold a `Denoiser`, not a network or weights alone."""
    if options:
        raise InputError(f"{path} says itself what it is and takes no options ({', '.join(options)} given)")
    try:
        with importable(path.parent):
            model = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as problem:  # the code inside may raise anything
        reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise InputError(f"{path} can't be unpickled ({reason})", "the module that defines its classes put beside it") from problem
    if not isinstance(model, Denoiser):
        held = "a network" if isinstance(model, torch.nn.Module) else f"a {type(model).__name__}"
        raise InputError(f"{path} holds {held}, which does not say its schedule and what it predicts", REMEDY)
    for network in model.modules():
        network.eval()
    model.about = {**model.about, "file": str(path), "sha256": sha256(path)}
    return model
