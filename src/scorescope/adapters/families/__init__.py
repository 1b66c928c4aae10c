"""Outside families of weights, one a file, found by scanning this package.

A family's module has

    PROOF          (names, prefix): a state dict with a name that begins so is of this family and of no other; "" where no name tells
    FITS           a name that every state dict of the family has
    OPTIONS        {keyword: what it is} of what a state dict cannot tell
    build(weights, options) -> Denoiser

Time, sign and scale are the family's own inside, and the paper's outside: they are converted here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from scorescope.errors import InputError, unknown
from scorescope.registry import module, names

Weights = dict[str, Tensor]


def family_of(weights: Mapping[str, Tensor], asked: str | None) -> Any:
    """The family of a state dict: the one asked for, or the one that its names prove.

    Raises:
        InputError: An unknown family, one that the names contradict, or names that leave the choice open.
    """
    known = {name: module(__name__, name, "family") for name in names(__name__)}
    if asked is not None:
        module(__name__, asked, "family")
    fitting = [name for name, family in known.items() if any(key.startswith(family.FITS) for key in weights)]
    proven = [name for name in fitting if known[name].PROOF and any(key.startswith(known[name].PROOF) for key in weights)]
    if asked is not None:
        if asked not in fitting:
            raise InputError(
                f"a state dict of family {asked} has {known[asked].FITS}…, this one begins with {next(iter(weights), 'nothing')}"
            )
        return known[asked]
    if proven:
        return known[proven[0]]
    if not fitting:
        raise InputError(
            f"its names ({', '.join(list(weights)[:3])}, …) are of no known family", "my_model.py:build, a function that builds the network"
        )
    choices = " or ".join(f'family="{name}"' for name in fitting)
    raise InputError(f"its names do not tell which code it belongs to ({' or '.join(fitting)})", choices)


def checked(options: Mapping[str, Any], known: Mapping[str, str], family: str) -> dict[str, Any]:
    """The options, each of which the family knows.

    Raises:
        InputError: One that it does not know; the nearest is suggested.
    """
    for name in options:
        if name not in known:
            raise unknown(f"option of family {family}", name, known)
    return dict(options)


def filled(network: type[nn.Module], config: Any, weights: Weights) -> nn.Module:
    """The network with these very tensors as its weights: no second copy is made.

    Raises:
        InputError: Weights that do not fit.
    """
    try:
        with _Unfilled():
            net = network(config)
    except (MemoryError, RuntimeError) as problem:
        if isinstance(problem, RuntimeError) and "allocate" not in str(problem):
            raise
        raise InputError("the network that it describes is larger than memory") from problem
    try:
        net.load_state_dict(weights, assign=True)
    except RuntimeError as problem:
        raise InputError(f"its weights do not fit the network ({str(problem).splitlines()[-1].strip()})") from problem
    return net.eval()


class _Unfilled(TorchFunctionMode):
    """Parameters keep what their memory holds, which costs nothing; on PyTorch's meta device the first network takes seconds of imports."""

    FILLS = frozenset({torch.Tensor.uniform_, torch.Tensor.normal_, torch.Tensor.zero_, torch.Tensor.fill_})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return args[0] if func in self.FILLS else func(*args, **(kwargs or {}))
