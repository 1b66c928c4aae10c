"""What answers depend on, as plain values: two objects with one identity answer alike, so a run may only be continued by the same.

    numbers, words        themselves
    arrays, tensors       type, shape and a hash of the bytes
    functions             a hash of their code, what they close over, their defaults, and the globals of their module that they name
    networks              a hash of their structure, the code of their classes, and every parameter and buffer
    other objects         their class and all that they hold

What can't be told from another of its kind (an open file, a random generator) has no identity: `NoIdentity` names it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import secrets
import sys
import sysconfig
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

LONG = 16  # items from which on a list is told by its hash
LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})  # whose code is told by its version


class NoIdentity(ValueError):
    """A value that can't be told from another; the message says where it was and what."""


def identity_of(value: Any, where: str = "it", seen: tuple[int, ...] = ()) -> Any:
    """What a value is, as something JSON can hold.

    Args:
        value: Anything.
        where: What to call it, should it have no identity.
        seen: Objects inside which this one lies: they are not described again.

    Raises:
        NoIdentity: It holds something that can't be told from another.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if id(value) in seen:
        return "itself"
    inner = (*seen, id(value))
    if isinstance(value, Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        return f"{value.dtype} {tuple(value.shape)} {_hash(flat.view(torch.uint8).numpy().tobytes())}"
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"{value.dtype} {value.shape} {_hash(np.ascontiguousarray(value).tobytes())}"
    if isinstance(value, (np.generic, torch.dtype, torch.device, Path, bytes, complex, ModuleType, range, slice)):
        return str(value.item() if isinstance(value, np.generic) else value)
    if isinstance(value, Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, Mapping):
        return {str(key): identity_of(item, f"{where}[{key!r}]", inner) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [identity_of(item, f"an item of {where}", inner) for item in value]
        items = sorted(items, key=json.dumps) if isinstance(value, (set, frozenset)) else items
        return items if len(items) <= LONG else f"{len(items)} items {_hash(json.dumps(items).encode())}"
    if isinstance(value, functools.partial):
        return [identity_of(part, where, inner) for part in (value.func, value.args, value.keywords)]
    if isinstance(value, type):
        return _class(value, seen)
    if isinstance(value, MethodType):
        return [identity_of(value.__func__, where, inner), identity_of(value.__self__, where, inner)]
    if isinstance(value, FunctionType):
        return _function(value, where, seen)
    if isinstance(value, BuiltinFunctionType):
        return f"{value.__module__}.{value.__qualname__}"
    if callable(getattr(value, "identity", None)):
        return _own(value)
    if isinstance(value, nn.Module):
        return network_identity(value, where, inner)
    return _object(value, where, inner)


def identity_or_token(model: Any) -> tuple[Any, str]:
    """`model.identity()` and no words; where it has none, a value that no other call gives, and why its run can't be continued."""
    try:
        return model.identity(), ""
    except NoIdentity as problem:
        return f"none {secrets.token_hex(8)}", f"this run can't be continued: {problem}"


_asked: list[int] = []  # objects that are telling their own identity: what leads back to one of them is not told again


def _own(value: Any) -> Any:
    """What an object says of itself."""
    if id(value) in _asked:
        return "itself"
    _asked.append(id(value))
    try:
        return value.identity()
    finally:
        _asked.pop()


def _object(value: Any, where: str, seen: tuple[int, ...]) -> Any:
    """The class of an object and what it holds."""
    if dataclasses.is_dataclass(value):
        held: dict[str, Any] = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "__dict__") and type(value).__module__.partition(".")[0] not in ("_io", "threading"):
        held = vars(value)
    else:
        raise NoIdentity(f"{where} is a {type(value).__name__}, which can't be told from another")
    return {"type": _class(type(value), seen), **{name: identity_of(item, f"{where}.{name}", seen) for name, item in held.items()}}


def network_identity(net: nn.Module, where: str = "it", seen: tuple[int, ...] = ()) -> dict[str, Any]:
    """Structure, code, weights, and what else a network's modules hold as plain attributes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(nn.Module.state_dict(net).items()):
        digest.update(f"{name} {identity_of(tensor)}".encode())
    own, inner = [], (*seen, *(id(module) for module in net.modules()))
    hidden = set(vars(nn.Module()))  # hooks and the like; `training` is set by whoever asks
    for name, module in net.named_modules():
        held = {key: value for key, value in vars(module).items() if key not in hidden}
        own.append([name, _class(type(module), inner), identity_of(held, f"{where}.{name}" if name else where, inner)])
    return {"type": type(net).__qualname__, "structure": _hash(json.dumps(own).encode()), "weights": digest.hexdigest()}


def _class(kind: type, seen: tuple[int, ...]) -> str:
    """A class by name, and by a hash of its code, and its bases', where that is not a library's."""
    name = f"{kind.__module__}.{kind.__qualname__}"
    version = _library(kind.__module__)
    if id(kind) in seen or version is not None:
        return f"{name} {version or ''}".strip()
    inner = (*seen, id(kind))
    methods = [_function(value, name, inner) for value in vars(kind).values() if isinstance(value, FunctionType)]
    bases = [_class(base, inner) for base in kind.__bases__]
    plain = {key: repr(value) for key, value in vars(kind).items() if isinstance(value, (bool, int, float, str, tuple))}
    plain = {key: value for key, value in plain.items() if not key.startswith("__")}
    return f"{name} {_hash(json.dumps([methods, bases, plain], sort_keys=True).encode())}"


def _function(function: FunctionType, where: str, seen: tuple[int, ...]) -> str:
    """A function by name, and by a hash of its code and of what it uses of its own module where that is not a library's."""
    name = f"{function.__module__}.{function.__qualname__}"
    if id(function) in seen:
        return name
    inner = (*seen, id(function))
    closed = [identity_of(_content(cell), f"what {name} closes over", inner) for cell in function.__closure__ or ()]
    defaults = identity_of([function.__defaults__, function.__kwdefaults__], f"a default of {name}", inner)
    version = _library(str(function.__module__))
    if version is not None:
        return f"{name} {version} {_hash(json.dumps([closed, defaults]).encode()) if closed else ''}".strip()
    used = {}
    for word in sorted(_names(function.__code__)):
        value = function.__globals__.get(word)
        if isinstance(value, (bool, int, float, str, tuple, list, Tensor, np.ndarray, FunctionType, type, nn.Module)):
            used[word] = identity_of(value, f"the global {word}", inner)
    return f"{name} {_hash(json.dumps([_compiled(function.__code__), closed, defaults, used], sort_keys=True).encode())}"


def _names(code: Any) -> set[str]:
    """Global names and attributes that code mentions, in functions inside it, too."""
    return {*code.co_names, *(name for part in code.co_consts if hasattr(part, "co_names") for name in _names(part))}


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing is in it yet
        return None


def _compiled(code: Any) -> str:
    """A hash of what Python made of the source: two functions on one line differ, comments do not count."""
    consts = [_compiled(part) if hasattr(part, "co_code") else repr(part) for part in code.co_consts]
    return _hash(code.co_code + json.dumps([consts, code.co_names]).encode())


def _library(module: str) -> str | None:
    """The version of the library that a module belongs to ("" where it has none); None for the user's own code."""
    top = module.partition(".")[0]
    if top in ("builtins", "scorescope"):
        return ""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return str(getattr(sys.modules.get(top), "__version__", "")) if file.startswith(LIBRARIES) else None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
