"""Networks from elsewhere: how one is called, and which modules a callable holds."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from scorescope.errors import InputError

LABELS = ("label", "labels", "y", "class_labels", "class_label")  # what parameters for a class are called, in this order
VECTORS = ("encoder_hidden_states", "context", "cond", "condition", *LABELS)  # and those for a vector in its place
INSIDE = ("_orig_mod", "module")  # where torch.compile and data parallelism keep the network


def label_argument(net: Callable[..., Any], classes: int, names: Sequence[str] = LABELS) -> int | str | None:
    """How a network takes the class: as its third argument (2), by a name, or not at all (None).

    A parameter without default that stands third is given the label, or None where there are no classes: `net(z, t, label)`. Optional
    ones are left alone, but where there are classes that the model is asked for: then the label goes to the first of `names` that the
    network has, or else to the third. A signature that can't be read counts as (z, t, label).
    """
    parameters = _parameters(net)
    if parameters is None:
        return 2
    placed = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(placed) > 2 and placed[2].default is placed[2].empty:
        return 2
    named = [p for p in parameters if p.name in names and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p not in placed[:2]]
    if not classes:
        named = [p for p in named if p.default is p.empty]
    if named:
        return min((p.name for p in named), key=names.index)
    return 2 if classes and len(placed) > 2 else None


class Conditioned(nn.Module):
    """A network that is told its class by a vector: label k becomes row k of a table.

    The vectors may be one-hot, learned embeddings (n, width), contexts for cross-attention or embeddings of n prompts (n, tokens, width).
    Wrapped so, `NetworkDenoiser(net, …, classes=net.classes, null_label=net.null_label)` takes it as any network with labels.

    Args:
        net: Called as `net(z, time, vector)`, or with the vector as the first of `VECTORS` that it has where its third argument is another.
        vectors: (n, *) of the n classes; (0, *), beside `null`, for a network that always has the same one.
        null: (*) of "no class", often zeros; None where the network has none.

    Attributes:
        classes: n.
        null_label: n, or None without `null`.

    Raises:
        InputError: Vectors that are none, or of other shapes.
    """

    def __init__(self, net: Callable[..., Any], vectors: Tensor, null: Tensor | None = None) -> None:
        super().__init__()
        if not isinstance(vectors, Tensor) or vectors.ndim < 2 or not vectors.is_floating_point():
            shape = f"{vectors.dtype} of shape {tuple(vectors.shape)}" if isinstance(vectors, Tensor) else type(vectors).__name__
            raise InputError(f"the vectors of the classes are {shape}", "a floating-point tensor (classes, width)")
        if null is not None and null.shape != vectors.shape[1:]:
            raise InputError(f"the null vector has shape {tuple(null.shape)}, those of classes {tuple(vectors.shape[1:])}", "one shape")
        self.net, self.classes, self.null_label = net, len(vectors), None if null is None else len(vectors)
        self.held = nn.ModuleList([] if isinstance(net, nn.Module) else held(net))
        self.vectors: Tensor
        self.register_buffer("vectors", vectors if null is None else torch.cat([vectors, null[None].to(vectors)]))
        self._argument = label_argument(net, 1, VECTORS)
        if self._argument is None:
            raise InputError("the network has no place for a vector", "a forward(z, t, context)")

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Any:
        """What the network returns, given the vectors of the labels (B,); the null one for None."""
        if label is None:
            if self.null_label is None:
                raise InputError("the network has no null vector, so it has no unconditional prediction", "a label")
            label = torch.full((len(z),), self.null_label, dtype=torch.int64, device=z.device)
        vector = self.vectors[label].to(z.dtype)
        return self.net(z, t, **{self._argument: vector}) if isinstance(self._argument, str) else self.net(z, t, vector)


def _parameters(net: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Of a network's call, looking through wrappers that take anything; None where it can't be known."""
    try:
        found = list(inspect.signature(net.forward if isinstance(net, nn.Module) else net).parameters.values())
    except (TypeError, ValueError):
        return None
    if not any(p.kind is p.VAR_POSITIONAL for p in found):
        return found
    inner = [net._modules[name] for name in INSIDE if name in net._modules] if isinstance(net, nn.Module) else []
    return _parameters(inner[0]) if inner and inner[0] is not None else None


def held(value: Any, seen: set[int] | None = None) -> Iterator[nn.Module]:
    """The modules inside a value, each once: itself, or those of containers, functions (bound, partial, closed over, and the globals that
    they name), and objects that can be called.
    """
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, (Tensor, str, bytes, type)):
        return
    seen.add(id(value))
    if isinstance(value, nn.Module):
        seen.update(id(part) for part in nn.Module.modules(value))
        yield value
        return
    for part in _parts(value):
        yield from held(part, seen)


def _parts(value: Any) -> list[Any]:
    """What a container, a function or an object that can be called holds."""
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple, set)):
        return list(value)
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if inspect.ismethod(value):
        return [value.__self__, value.__func__]
    if inspect.isfunction(value):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _filled(cell)]
        named = [value.__globals__[name] for name in value.__code__.co_names if name in value.__globals__]
        wrapped = [value.__wrapped__] if hasattr(value, "__wrapped__") else []
        return [*cells, *(part for part in named if isinstance(part, nn.Module)), *(value.__defaults__ or ()), *wrapped]
    if callable(value) and hasattr(value, "__dict__") and not inspect.isbuiltin(value):
        return list(vars(value).values())
    return []


def _filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True
