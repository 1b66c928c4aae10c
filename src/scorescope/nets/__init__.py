"""The architectures of the paper (appendix C.1); each file is one family and knows nothing of diffusion.

A family is a module with three names: `SIZE`, what a recipe chooses (`SIZE(...).on(shape, classes)` is a `CONFIG`); `CONFIG`, all that
determines the network, as plain values; `NETWORK(config)`, a module called as `net(z, t, label)` whose `stages` are its blocks in
order. It is found by its file's name.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from torch import nn

from scorescope.errors import unknown


def families() -> list[str]:
    """Names of all families."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


def module(family: str) -> Any:
    """The family's module.

    Raises:
        InputError: No such family; the nearest name is suggested.
    """
    if family not in families():
        raise unknown("family", family, families())
    return importlib.import_module(f"{__name__}.{family}")


def family_of(value: object) -> str:
    """The family to which a `SIZE`, a `CONFIG` or a network belongs."""
    return type(value).__module__.rpartition(".")[2]


def build(config: Any) -> nn.Module:
    """The network that a config determines, with freshly drawn weights."""
    network: nn.Module = module(family_of(config)).NETWORK(config)
    return network
