"""Outside families of weights, one a file, found by scanning this package.

A family's module has

    MARK                   what every checkpoint of the family has, for the line that says what is missing
    belongs(checkpoint)    True where names and shapes are of this family and of no other, None where they may be, False where they are not
    OPTIONS                {keyword: what it is} of what a checkpoint cannot tell
    build(checkpoint, options) -> Denoiser
    READINGS               if it likes: options, as ({"process": "ddpm"}, {"process": "cfm"}), among which a bank may choose (`choice`)

Time, sign and scale are the family's own inside, and the paper's outside: they are converted here and nowhere else. What does not give
E[x | z] says why in its model's `about["samples_only"]`. Each family has a case in tests/family_cases.py, and is held to all that is asked
there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from scorescope.errors import InputError, unknown
from scorescope.registry import module, names

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds.

    Attributes:
        weights: Tensors by name, without what wrappers put before the names; float32 where they are floating-point.
        part: Which part of the file they are: "ema", "model", …, or "all".
        rest: What else is in the file, by name: plain values, as `args`, `step`, `config`; buffers that a latent model keeps beside its
            network, as `alphas_cumprod`; and where the part was a whole network, its record (`inert.Inert`) under the part's name.
        left_out: Classes of the objects in the file that were not made.
    """

    weights: Weights
    part: str = "all"
    rest: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def has(self, *prefixes: str) -> bool:
        """Whether for each of the prefixes there is a weight whose name begins so."""
        return all(any(name.startswith(prefix) for name in self.weights) for prefix in prefixes)


def family_of(checkpoint: Checkpoint, asked: str | None) -> Any:
    """The family of a checkpoint: the one asked for, or the one that its names prove.

    Raises:
        InputError: An unknown family, one that the names contradict, or names that leave the choice open.
    """
    known = {name: module(__name__, name, "family") for name in names(__name__)}
    first = next(iter(checkpoint.weights), "nothing")
    if asked is not None:
        family = module(__name__, asked, "family")
        if family.belongs(checkpoint) is False:
            raise InputError(f"a state dict of family {asked} has {family.MARK}, this one begins with {first}")
        return family
    told = {name: family.belongs(checkpoint) for name, family in known.items()}
    proven, fitting = [name for name in told if told[name]], [name for name in told if told[name] is not False]
    if len(proven) == 1:
        return known[proven[0]]
    if not fitting:
        raise InputError(
            f"its names ({', '.join(list(checkpoint.weights)[:3])}, …) are of no known family",
            "my_model.py:build, a function that builds the network",
        )
    choices = " or ".join(f'family="{name}"' for name in fitting)
    raise InputError(f"its names do not tell which code it belongs to ({' or '.join(fitting)})", choices)


def known_options(options: Mapping[str, Any], more: Iterable[str]) -> None:
    """Refuse an option that no family has, before it is asked which family it is."""
    known = {option for name in names(__name__) for option in module(__name__, name, "family").OPTIONS} | set(more)
    for option in options:
        if option not in known:
            raise unknown("option of a checkpoint:", option, known)


def checked(options: Mapping[str, Any], known: Mapping[str, str], family: str) -> dict[str, Any]:
    """The options, each of which the family knows.

    Raises:
        InputError: One that it does not know; the nearest is suggested.
    """
    for name in options:
        if name not in known:
            raise unknown(f"option of family {family}", name, known)
    return dict(options)


def chosen(options: Mapping[str, Any], name: str, known: Iterable[str], family: str, default: str | None = None) -> str:
    """An option that is one of a few words.

    Raises:
        InputError: Another word.
    """
    value = str(options.get(name, default))
    if value not in list(known):
        raise unknown(f"{name} of family {family}", value, known)
    return value


def counted(options: Mapping[str, Any], name: str, default: int = 0) -> int:
    """An option that is a positive whole number; `default` where it is not given.

    Raises:
        InputError: Something else.
    """
    value = options.get(name, default)
    if type(value) is not int or (name in options and value < 1):
        raise InputError(f"{name}={value} is not a positive whole number", f"{name}=4")
    return value


def required(told: Mapping[str, Any], needed: Mapping[str, str], what: str) -> None:
    """Ask for what names and shapes of `what` do not tell; `needed` has an example for each such option.

    Raises:
        InputError: Some of it was not told.
    """
    missing = [name for name in needed if name not in told]
    if missing:
        remedy = ", ".join(needed[name] for name in missing) + ", or what it was trained with"
        raise InputError(f"the state dict of {what} does not tell {', '.join(missing)}", remedy)


@contextmanager
def whole(network: str) -> Iterator[None]:
    """Inside, a weight that is looked for in vain is one line.

    Raises:
        InputError: Names or shapes that no such network has.
    """
    try:
        yield
    except InputError:
        raise
    except (LookupError, ValueError) as problem:
        raise InputError(f"the state dict lacks what every {network} has ({problem})", "the whole state dict") from problem


def filled(network: Callable[[Any], nn.Module], config: Any, weights: Weights) -> nn.Module:
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


def positive(name: str, value: Any, example: str) -> float:
    """An option as a positive number, however it was written.

    Raises:
        InputError: It is none.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 < number < math.inf:
        raise InputError(f"{name}={value} is not a positive number", example)
    return number
