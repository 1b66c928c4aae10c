"""Models that are objects of other libraries, taken as they are: one kind a file, found by scanning this package.

A kind's module has

    OPTIONS                    {keyword: what it is} of what an object cannot tell
    accepts(thing) -> bool     whether a thing is of this kind, by the attributes that it has: no library is imported to look
    wrap(thing, options) -> Denoiser

A network without more is a `NetworkDenoiser` once `schedule=` and `prediction=` say how it is read; where both are said of an object of a
known kind, they hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from torch import nn

from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError, unknown
from scorescope.registry import every, module

NEEDED = {"schedule": "schedule=ss.LinearSchedule()", "prediction": 'prediction="v"'}
OF_NETWORKS = ("schedule", "prediction", "time", "classes", "null_label", "shape", "clip", "name")
A_DENOISER = "ss.NetworkDenoiser(net, schedule, prediction=…), or a subclass of ss.Denoiser"


def kind_of(thing: Any) -> ModuleType | None:
    """The module of the kind that a thing is of; None for none."""
    found = [name for name, accepts in every(__name__, "accepts").items() if accepts(thing)]
    return module(__name__, found[0], "kind of object") if found else None


def denoiser_of(thing: Any, options: Mapping[str, Any] | None = None) -> Denoiser:
    """The object as a `Denoiser`; itself if it is one.

    Args:
        thing: A diffusers pipeline or (network, scheduler), an azula, k-diffusion or EDM denoiser, a smalldiffusion model, or any network.
        options: What the object does not tell; of a network arguments of `NetworkDenoiser`, and `clip`, what its `clipped` takes.

    Raises:
        InputError: Nothing that can be a model, an option that is not known, or a network whose schedule and prediction are not said.
    """
    told, named = dict(options or {}), type(thing).__name__
    if isinstance(thing, Denoiser):
        if told:
            raise InputError(f"{thing.name} says itself what it is and takes no options ({', '.join(told)} given)")
        return thing
    kind = None if NEEDED.keys() <= told.keys() else kind_of(thing)
    known = OF_NETWORKS if kind is None else kind.OPTIONS
    if kind is None and not isinstance(thing, nn.Module) and not (callable(thing) and told):
        raise InputError(f"{named} is not a Denoiser", A_DENOISER)
    for name in told:
        if name not in known:
            raise unknown(f"option of {'a network' if kind is None else kind.WHAT}", name, known)
    if kind is not None:
        model: Denoiser = kind.wrap(thing, told)
        model.about = {"object": kind.WHAT, **model.about}
        return model
    missing = [name for name in NEEDED if name not in told]
    if missing:
        lacks = " and ".join({"schedule": "its schedule", "prediction": "what it predicts"}[name] for name in missing)
        said = f"{named} is not a Denoiser: a network alone does not say {lacks}"
        words = [f"{name}=…" if name in told else example for name, example in NEEDED.items()]
        raise InputError(said, f"ss.load(net, {', '.join(words)}), or {A_DENOISER}")
    clip = told.pop("clip", False)
    return NetworkDenoiser(thing, told.pop("schedule"), told.pop("prediction"), **{"name": name_of(thing), **told}).clipped(clip)


def denoisers_of(things: Any) -> Any:
    """One object as a `Denoiser`, or those of a list or tuple."""
    several = isinstance(things, list | tuple) and kind_of(things) is None
    return [denoiser_of(thing) for thing in things] if several else denoiser_of(things)


def name_of(thing: Callable[..., Any]) -> str:
    """What reports call a network: its class, or the name of a function."""
    return str(getattr(thing, "__name__", type(thing).__name__))
