"""Models from files and objects: one outside family a file, found by scanning this package.

An adapter module has `accepts(path) -> bool` and `load(path, options) -> Denoiser`. `load` below finds the one that accepts a path.
State dicts from elsewhere go by their names: `adapters/families`, one a file. Objects of other libraries: `adapters/objects`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scorescope.adapters import objects, pickled
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.registry import every, module
from scorescope.rows import Bank
from scorescope.theories import theory

PICKLED = "pickled"  # the adapter that runs a file's code
THEORY = "theory"  # and a colon: what the name of a theory begins with


def load(path: Any, *, bank: Bank | None = None, trust: bool = False, samples_only: str | None = None, **options: Any) -> Denoiser:
    """A model from a checkpoint, the folder of a training run, a Python function, or an object of another library.

    Args:
        path: `model.safetensors`, a run's folder, or `my_model.py:build`, a file and a function that returns a `Denoiser` or an object.
            A bare state dict of one of `adapters/families` (or {model, ema, …}), as safetensors or as a pickle, which is read without
            running code. A folder of diffusers (a pipeline, a training checkpoint, a network and its scheduler), or
            `hf:owner/name`, which downloads one. `theory:NAME`, a closed form of `scorescope.theories`. What `adapters.objects` knows: a
            network with `schedule=` and `prediction=`, a diffusers pipeline or (network, scheduler), an azula, k-diffusion or EDM denoiser,
            a smalldiffusion model.
        bank: Of a theory.
        trust: Allow a pickled `Denoiser` (`model.pt`) to be opened, which runs whatever code is inside.
        samples_only: Why the model's target is not E[x | z_t], in words ("trained with OT coupling"); its samples alone are judged then.
        **options: Passed on: to the function, or to the family's adapter: `family` ("sit", "dit", …) where the names of the weights
            do not tell it, `weights`, the part of the file, where it shall not be the moving average ("model", …), and what a state dict
            cannot tell (`heads`; `process`, …); of diffusers, `scheduler`, `null`, `clip`, `variant`; or what an object does not tell.

    Raises:
        InputError: Nothing there, a theory that is not known or has no bank, a file of no known family, a pickle without `trust`, a
            function that returns no `Denoiser`, an object that can't be one.
    """
    if samples_only is not None and not (isinstance(samples_only, str) and samples_only.strip()):
        raise InputError(f"samples_only={samples_only!r} does not say why", 'samples_only="trained with OT coupling"')
    model = _loaded(path, bank, trust, options) if isinstance(path, str | Path) else objects.denoiser_of(path, options)
    if samples_only is not None:
        model.about = {**model.about, "samples_only": samples_only.strip()}
    return model


def _loaded(path: str | Path, bank: Bank | None, trust: bool, options: dict[str, Any]) -> Denoiser:
    """The model that a path names."""
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
        known = "a checkpoint, a training run's or diffusers' folder, hf:owner/name, or my_model.py:build"
        raise InputError(f"there is no model at {place}", known)
    raise InputError(f"{place} is of no known family", "a .safetensors file written by scorescope train, or my_model.py:build")
