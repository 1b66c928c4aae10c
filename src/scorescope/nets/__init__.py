"""The architectures of the paper (appendix C.1); each file is one family and knows nothing of diffusion.

A family is a module with three names: `SIZE`, what a recipe chooses (`SIZE(...).on(shape, classes)` is a `CONFIG`); `CONFIG`, all that
determines the network, as plain values; `NETWORK(config)`, a module called as `net(z, t, label)` whose `stages` are its blocks in
order. All that it computes with are parameters and buffers of its state dict. It is found by its file's name. A network without `SIZE`
takes the weights of others, and no recipe trains it.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from torch import nn

from scorescope import registry
from scorescope.errors import InputError

LARGEST, DEEPEST = 2**20, 1000  # of a count in a `CONFIG`, and of blocks in a row: a damaged file may claim anything


def families() -> list[str]:
    """Names of all families that a recipe can train."""
    return list(registry.every(__name__, "SIZE"))


def module(family: str) -> Any:
    """The family's module.

    Raises:
        InputError: No such family; the nearest name is suggested.
    """
    return registry.module(__name__, family, "family")


def family_of(value: object) -> str:
    """The family to which a `SIZE`, a `CONFIG` or a network belongs."""
    return type(value).__module__.rpartition(".")[2]


def build(config: Any) -> nn.Module:
    """The network that a config determines, with freshly drawn weights."""
    network: nn.Module = module(family_of(config)).NETWORK(config)
    return network


def square(shape: tuple[int, ...], network: str) -> None:
    """Refuse rows that are no square images or latents."""
    if len(shape) != 3 or shape[1] != shape[2]:
        remedy = "--preset mlp-desk, for vectors" if len(shape) == 1 else "building the bank with --size"
        raise InputError(f"{network} takes square images or latents (C, H, H); the bank's rows are {shape}", remedy)


def check(config: Any, **most: int) -> None:
    """Refuse values of a `CONFIG` that no network has: each is of its default's kind, and counts are from 1 (classes from 0) to `most`.

    Raises:
        InputError: One that is not; it is named.
    """
    for field in fields(config):
        given = getattr(config, field.name)
        for value in given if isinstance(field.default, tuple) else (given,):
            if isinstance(field.default, (bool, str)):
                sound = type(value) is type(field.default)
            elif isinstance(field.default, float):
                sound = type(value) in (int, float) and 0 < value < math.inf
            else:
                least = 0 if field.name == "classes" else 1
                sound = type(value) is int and least <= value <= most.get(field.name, LARGEST)
            if not sound:
                raise InputError(f"a network can't have {field.name} = {value!r}")
