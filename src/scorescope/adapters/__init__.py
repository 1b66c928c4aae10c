"""Models from files: one outside family a file, found by scanning this package.

An adapter module has `accepts(path) -> bool` and `load(path, options) -> Denoiser`. `load` below finds the one that accepts a path.
State dicts from elsewhere go by their names: `adapters/families`, one a file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scorescope.adapters import pickled
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.registry import every, module
from scorescope.rows import Bank
from scorescope.theories import theory

PICKLED = "pickled"  # the adapter that runs a file's code
THEORY = "theory"  # and a colon: what the name of a theory begins with


def load(path: str | Path, *, bank: Bank | None = None, trust: bool = False, **options: Any) -> Denoiser:
    """A model from a checkpoint, the folder of a training run, or a Python function.

    Args:
        path: `model.safetensors`, a run's folder, or `my_model.py:build`, a file and a function that returns a `Denoiser`.
            A bare state dict of SiT, REPA or guided-diffusion (or {model, ema, …}), as safetensors or as a pickle, which is read without
            running code. A folder of diffusers (a pipeline, a training checkpoint, a network and its scheduler), or
            `hf:owner/name`, which downloads one. `theory:NAME`, a closed form of `scorescope.theories`.
        bank: Of a theory.
        trust: Allow a pickled `Denoiser` (`model.pt`) to be opened, which runs whatever code is inside.
        **options: Passed on: to the function, or to the family's adapter: `family` ("sit", "repa", "adm") where the names of the weights
            do not tell it, `weights`, the part of the file, where it shall not be the moving average ("model", …), and what a state dict
            cannot tell (`heads`; `head_width`, `order`, `schedule`); of diffusers, `scheduler`, `null`, `clip`, `variant`.

    Raises:
        InputError: Nothing there, a theory that is not known or has no bank, a file of no known family, a pickle without `trust`, a
            function that returns no `Denoiser`.
    """
    kind, _, rest = str(path).partition(":")
    if kind == THEORY:
        if bank is None:
            raise InputError(f"{path} is a theory of a bank, and none is given", f'load("{path}", bank=bank)')
        return theory(rest, bank, **options)
    place = Path(path)
    for name, accepts in every(__name__, "accepts").items():
        if accepts(place) and (trust or name != PICKLED):
            model: Denoiser = module(__name__, name, "adapter").load(place, options)
            return model
    if pickled.accepts(place):
        raise InputError(
            f"{place} is a pickled object, and opening one runs whatever code is inside",
            "a .safetensors file, or --trust if you made it yourself",
        )
    if not place.exists():
        raise InputError(f"there is no model at {place}", "a .safetensors file, a training run's folder, or my_model.py:build")
    raise InputError(f"{place} is of no known family", "a .safetensors file written by scorescope train, or my_model.py:build")
