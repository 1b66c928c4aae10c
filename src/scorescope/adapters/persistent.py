"""Modules that were pickled whole, as records that ran no code: their weights by dotted names, and what they were made with.

NVlabs' pickles (EDM, EDM2, StyleGAN) hold every module as a record whose state has `_parameters`, `_buffers` and `_modules`, as PyTorch's
own modules have, and `_init_kwargs`, what its class was called with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from scorescope.errors import InputError

MOST, DEEPEST = 100_000, 64  # modules of one network, and inside one another


class Record(Protocol):
    """What a pickle asked to be made, as `scorescope.adapters.inert` records it: the name of a class, arguments, and a state."""

    name: str
    state: Any


def weights_of(record: Record) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Parameters and buffers by dotted names, and {"class": its name, **_init_kwargs} of each module by its dotted name ("" the whole).

    Raises:
        InputError: It is no module, or holds modules without end.
    """
    weights: dict[str, Tensor] = {}
    modules: dict[str, dict[str, Any]] = {}
    left: list[tuple[str, Any]] = [("", record)]
    while left:
        name, one = left.pop()
        if not is_module(one):
            raise InputError(f"its {name or 'network'} is a {type(one).__name__}, and no pickled module", "an undamaged copy")
        before, kwargs = f"{name}." if name else "", one.state.get("_init_kwargs")
        modules[name] = {"class": one.name.rpartition(".")[2]} | dict(kwargs if isinstance(kwargs, Mapping) else {})
        for part in ("_parameters", "_buffers"):
            held = one.state[part].items()
            weights |= {f"{before}{key}": value.detach() for key, value in held if isinstance(value, Tensor)}  # others are None
        left += [(f"{before}{key}", inner) for key, inner in reversed(one.state["_modules"].items()) if inner is not None]
        if len(modules) + len(left) > MOST or name.count(".") > DEEPEST:
            raise InputError("it holds modules without end", "an undamaged copy")
    return weights, modules


def is_module(value: Any) -> bool:
    """Whether a value is the record of a module."""
    state = getattr(value, "state", None)
    return isinstance(state, Mapping) and all(isinstance(state.get(part), Mapping) for part in ("_parameters", "_buffers", "_modules"))
