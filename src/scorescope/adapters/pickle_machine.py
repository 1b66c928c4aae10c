"""The stack machine of pickles, without Python's imports: tensors, arrays and plain containers are made, all else is a record.

`pickletools` decodes the operations; `OPERATION` is what each does here, and `KNOWN` are the functions that are called, all of them in this
file (`inert.py` adds one of its own). Every other name becomes an `Inert` record, and so does what its call would have made.

Memory and time are bounded by the file: an operation costs what it reads. What may copy (a storage, an array, a list made a dict) is
charged to a `Budget`, a tensor is no larger than its storage, and keys are plain, since a nested tuple can take for ever to hash.
"""

from __future__ import annotations

import math
import pickletools
import re
import struct
from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

OPERATIONS = 20_000_000  # of one pickle; the largest checkpoints have a million
LONGEST = 256  # bytes of a whole number; torch's own are below 16
LONGEST_NAME = 1000  # of a class
LONGEST_KEY = 4096  # of a dictionary
MOST_ARGUMENTS = 64  # of what is known
MOST_DIMENSIONS = 25  # of a tensor
HASHED = 2**60  # below it, whole numbers are their own hash
NUMBERS = re.compile(r"torch\.(bool|(u?int|b?float|complex)(8|16|32|64|128)(_e\w+)?)")  # no quantized ones, none below a byte
DTYPES = {str(one): one for one in vars(torch).values() if isinstance(one, torch.dtype) and NUMBERS.fullmatch(str(one))}
STORAGES = {
    **{"Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16", "Bool": "bool", "Byte": "uint8"},
    **{"Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64", "ComplexFloat": "complex64", "ComplexDouble": "complex128"},
    **{"Untyped": "uint8"},
}
StorageOf = Callable[[torch.dtype, str, int, Any], torch.UntypedStorage]


class Damaged(Exception):
    """A file that can't be read as what it begins like; the message says why."""


class Odd(Exception):
    """Arguments that a known function does not take: its call becomes a record."""


@dataclass(eq=False, repr=False)
class Inert:
    """What a pickle would have imported, or the object that it would have made.

    Attributes:
        name: Module and name, as "omegaconf.dictconfig.DictConfig".
        args: What it would have been called with; None where it was named only.
        state: What its attributes would have been set from.
        items: What would have been put into it, if it was a kind of list or dictionary.
    """

    name: str
    args: tuple[Any, ...] | None = None
    state: Any = None
    items: list[Any] | dict[Any, Any] | None = None

    def __repr__(self) -> str:
        return f"<{self.name}, not made>"


@dataclass(eq=False, repr=False)
class _Unbuilt(Inert):
    """An array or a dtype of numpy before its state is known, and where the machine remembers it."""

    places: list[int] = field(default_factory=list)


@dataclass(eq=False, repr=False)
class Storage(Inert):
    """Bytes that tensors lie in."""

    content: torch.UntypedStorage | None = None
    dtype: torch.dtype = torch.uint8


@dataclass
class Budget:
    """Bytes that may still be copied, and how deep a file lies in others."""

    left: int
    depth: int = 0

    def spend(self, count: int) -> None:
        """Charge so many bytes; a file that asks for more than it may is `Damaged`."""
        self.left -= count
        if self.left < 0:
            raise Damaged("it asks for more memory than its size explains")


# ---- the machine --------------------------------------------------------------------------------------------------------------------


class Machine:
    """Runs one pickle.

    Args:
        known: Functions by name, as `KNOWN`; each is called with the machine and the arguments in the file.
        budget: What may still be copied.
        storage: Gives the bytes that a persistent id of torch names, by dtype, key, count of numbers and, in old files, a view.
    """

    def __init__(self, known: Mapping[str, Callable[..., Any]], budget: Budget, storage: StorageOf | None = None) -> None:
        self.known, self.budget, self.storage = known, budget, storage
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self, stream: Any) -> Any:
        """From where the stream stands to the pickle's end."""
        try:
            for count, (opcode, arg, _) in enumerate(pickletools.genops(stream)):
                if count > OPERATIONS:
                    raise Damaged(f"it has more than {OPERATIONS:,} operations")
                OPERATION[opcode.name](self, arg)
            return self.stack.pop()
        except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, struct.error) as problem:
            said = "it uses what it does not hold" if isinstance(problem, LookupError) else " ".join(str(problem).split())[:80]
            raise Damaged(f"it was cut, or is no pickle: {said}") from problem

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def marked(self) -> list[Any]:
        """What lies above the last mark, taken off."""
        at = self.marks.pop()
        found = self.stack[at:]
        del self.stack[at:]
        return found

    def memoize(self, index: int) -> None:
        """Remember the uppermost value."""
        value = self.stack[-1]
        self.memo[index] = value
        if isinstance(value, _Unbuilt):
            value.places.append(index)

    def pack(self, count: int) -> None:
        """Make a tuple of the uppermost values."""
        at = len(self.stack) - count
        if at < 0:
            raise IndexError("too few values")
        self.stack[at:] = [tuple(self.stack[at:])]

    def extend(self, target: Any, values: list[Any]) -> None:
        """Put values into a list."""
        if isinstance(target, Inert) and not isinstance(target.items, dict):
            target.items = target = [] if target.items is None else target.items
        if not isinstance(target, list):
            raise TypeError("values for what is no list")
        target += values

    def fill(self, target: Any, values: list[Any]) -> None:
        """Put keys and values in turn into a dictionary."""
        if isinstance(target, Inert) and not isinstance(target.items, list):
            target.items = target = {} if target.items is None else target.items
        if not isinstance(target, dict) or len(values) % 2:
            raise TypeError("keys for what is no dictionary")
        for name, value in zip(values[::2], values[1::2], strict=True):
            target[_key(name)] = value

    def add(self, target: Any, values: list[Any]) -> None:
        """Put values into a set."""
        if not isinstance(target, set):
            raise TypeError("values for what is no set")
        target.update(_key(value) for value in values)

    def found(self, module: Any, name: Any) -> None:
        """A name becomes a dtype or a record, whatever it is."""
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > LONGEST_NAME:
            raise TypeError("a name that is none")
        full = f"{OLD_NAMES.get(module, module)}.{name}"
        self.push(DTYPES.get(full) or Inert(full))

    def call(self, function: Any, args: Any, more: Any = None) -> None:
        """What a known function makes of its arguments, or a record of the call."""
        if not isinstance(args, tuple):
            raise TypeError("arguments that are no tuple")
        named = isinstance(function, Inert) and function.args is None
        name = function.name if isinstance(function, Inert) else type(function).__name__
        if more:  # arguments by name
            self.budget.spend(8 * len(args))
            args = (*args, more)
        known = self.known.get(_public(name)) if named and not more and len(args) <= MOST_ARGUMENTS else None
        try:
            made = Inert(name if named else f"{name.removesuffix('()')}()", args) if known is None else known(self, *args)
        except (Odd, TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, AttributeError):
            made = Inert(name, args)
        self.push(made)

    def build(self) -> None:
        """An object's state; what plain containers and tensors carry beside their content is dropped."""
        state, made = self.stack.pop(), self.stack[-1]
        if isinstance(made, _Unbuilt):
            self.stack[-1] = finished = _built(self, made, state)
            for index in made.places:
                self.memo[index] = finished
            made.places = []
        elif isinstance(made, Namespace):
            held = state if isinstance(state, dict) else {}
            self.budget.spend(8 * len(held))
            vars(made).update({name: value for name, value in held.items() if isinstance(name, str)})
        elif isinstance(made, Inert) and made.args is not None:
            made.state = state

    def persistent(self, given: Any) -> None:
        """A storage of torch by its name."""
        kind = given[0] if isinstance(given, tuple) and given else None
        if self.storage is None or kind != "storage":
            self.push(Inert("persistent id", (given,)))
            return
        cls, key, _, count = given[1:5]
        view = given[5] if len(given) > 5 else None
        dtype = _storage_dtype(cls)
        if dtype is None or not is_count(count) or not isinstance(key, (str, int)) or len(str(key)) > LONGEST_NAME:
            self.push(Inert("torch.storage", (given,)))
            return
        self.push(Storage("torch.storage", (), None, None, self.storage(dtype, str(key), count, view), dtype))


def _operations() -> dict[str, Callable[[Machine, Any], None]]:
    """What each operation of a pickle does, by the name that `pickletools` gives it."""

    def two(machine: Machine) -> list[Any]:
        found = [machine.stack.pop(), machine.stack.pop()]
        return found[::-1]

    def pop(machine: Machine, arg: Any) -> None:
        if machine.marks and machine.marks[-1] == len(machine.stack):
            machine.marks.pop()
        else:
            machine.stack.pop()

    def called_with_marked(machine: Machine, arg: Any) -> None:
        function, *args = machine.marked()
        machine.call(function, tuple(args))

    def instance(machine: Machine, arg: str) -> None:
        args = machine.marked()
        machine.found(*arg.split(" ", 1))
        machine.call(machine.stack.pop(), tuple(args))

    def called_with_names(machine: Machine, arg: Any) -> None:
        more = machine.stack.pop()
        function, args = two(machine)
        machine.call(function, args, more)

    def refused(machine: Machine, arg: Any) -> None:
        raise ValueError("it needs what lies outside of it")

    def append(machine: Machine, arg: Any) -> None:
        value = machine.stack.pop()
        machine.extend(machine.stack[-1], [value])

    def many(put: Callable[[Machine, Any, list[Any]], None]) -> Callable[[Machine, Any], None]:
        def done(machine: Machine, arg: Any) -> None:
            values = machine.marked()
            put(machine, machine.stack[-1], values)

        return done

    def pair(machine: Machine, arg: Any) -> None:
        values = two(machine)
        machine.fill(machine.stack[-1], values)

    def dictionary(machine: Machine, arg: Any) -> None:
        values = machine.marked()
        machine.push({})
        machine.fill(machine.stack[-1], values)

    def number(machine: Machine, arg: int) -> None:
        if arg.bit_length() > 8 * LONGEST:
            raise ValueError("a number without end")
        machine.push(arg)

    strings = ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8")
    content = ("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8", "FLOAT", "BINFLOAT")
    numbers = ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4")
    push = Machine.push
    return {
        **dict.fromkeys((*strings, *content), push),
        **dict.fromkeys(numbers, number),
        **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, _: None),
        **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), Machine.memoize),
        **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda m, index: m.push(m.memo[index])),
        **dict.fromkeys(("EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"), refused),
        "MEMOIZE": lambda m, _: m.memoize(len(m.memo)),
        "NONE": lambda m, _: m.push(None),
        "NEWTRUE": lambda m, _: m.push(True),
        "NEWFALSE": lambda m, _: m.push(False),
        "EMPTY_LIST": lambda m, _: m.push([]),
        "EMPTY_TUPLE": lambda m, _: m.push(()),
        "EMPTY_DICT": lambda m, _: m.push({}),
        "EMPTY_SET": lambda m, _: m.push(set()),
        "MARK": lambda m, _: m.marks.append(len(m.stack)),
        "POP": pop,
        "POP_MARK": lambda m, _: m.marked().clear(),
        "DUP": lambda m, _: m.push(m.stack[-1]),
        "TUPLE": lambda m, _: m.push(tuple(m.marked())),
        "TUPLE1": lambda m, _: m.pack(1),
        "TUPLE2": lambda m, _: m.pack(2),
        "TUPLE3": lambda m, _: m.pack(3),
        "LIST": lambda m, _: m.push(m.marked()),
        "DICT": dictionary,
        "FROZENSET": lambda m, _: m.push(frozenset(_key(value) for value in m.marked())),
        "APPEND": append,
        "APPENDS": many(Machine.extend),
        "SETITEM": pair,
        "SETITEMS": many(Machine.fill),
        "ADDITEMS": many(Machine.add),
        "GLOBAL": lambda m, arg: m.found(*arg.split(" ", 1)),
        "STACK_GLOBAL": lambda m, _: m.found(*two(m)),
        "REDUCE": lambda m, _: m.call(*two(m)),
        "NEWOBJ": lambda m, _: m.call(*two(m)),
        "NEWOBJ_EX": called_with_names,
        "OBJ": called_with_marked,
        "INST": instance,
        "BUILD": lambda m, _: m.build(),
        "PERSID": lambda m, arg: m.persistent(arg),
        "BINPERSID": lambda m, _: m.persistent(m.stack.pop()),
    }


OPERATION = _operations()
PLAIN = (str, bytes, bool, type(None), torch.dtype, Inert)


def _key(value: Any) -> Any:
    """A key that is fast to hash: as it is, or else in a record."""
    if type(value) is tuple and len(value) <= 8 and all(not isinstance(one, tuple) and _key(one) is one for one in value):
        return value
    if isinstance(value, PLAIN) and not (isinstance(value, (str, bytes)) and len(value) > LONGEST_KEY):
        return value
    if isinstance(value, (int, float)) and abs(value) < HASHED:
        return value
    return Inert("key", (value,))


def is_count(value: Any) -> bool:
    """Whether it is a count."""
    return type(value) is int and 0 <= value < HASHED


# ---- what is known ------------------------------------------------------------------------------------------------------------------

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # of Python 2


def _public(name: str) -> str:
    """A name as `KNOWN` has it: numpy 2's as numpy 1 had it, and what several libraries have their own copies of."""
    if name.endswith((".EasyDict", ".AttributeDict")):  # of dnnlib and Lightning: dictionaries whose keys are attributes, too
        return "builtins.dict"
    if name.endswith(".persistence._reconstruct_persistent_obj"):
        return PERSISTENT
    return name.replace("numpy._core.", "numpy.core.", 1)


def _storage_dtype(cls: Any) -> torch.dtype | None:
    """float32 of "torch.FloatStorage", also on another device."""
    found = re.fullmatch(r"torch\.(?:cuda\.|storage\.)?(?:_)?(\w+?)Storage", cls.name) if isinstance(cls, Inert) else None
    return DTYPES.get(f"torch.{STORAGES.get(found[1])}") if found else None


def _pairs(machine: Machine, *args: Any) -> dict[Any, Any]:
    """A dictionary, from another or from pairs."""
    made: dict[Any, Any] = {}
    for given in args:
        if not isinstance(given, (dict, list, tuple)):
            raise Odd
        machine.budget.spend(100 * len(given))
        items = list(given.items()) if isinstance(given, dict) else given
        if not all(isinstance(one, (list, tuple)) and len(one) == 2 for one in items):
            raise Odd
        machine.fill(made, [value for one in items for value in one])
    return made


def _listed(machine: Machine, args: tuple[Any, ...]) -> list[Any]:
    """The one argument of `list`, `tuple` or `set`."""
    if not args:
        return []
    (given,) = args
    if not isinstance(given, (list, tuple, set, frozenset)):
        raise Odd
    machine.budget.spend(8 * len(given))
    return list(given)


def _encoded(machine: Machine, text: Any, encoding: Any = "utf-8", *_: Any) -> bytes:
    """How protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8", "ascii"):
        raise Odd
    machine.budget.spend(len(text))
    return text.encode(encoding)


def _tensor(machine: Machine, storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Tensor:
    """A view of a storage: requires_grad and hooks are dropped, a dtype may follow (`_rebuild_tensor_v3`), and bits of complex numbers."""
    if not isinstance(storage, Storage) or storage.content is None or not is_count(offset):
        raise Odd
    if not all(isinstance(one, (tuple, list)) and len(one) == len(size) <= MOST_DIMENSIONS for one in (size, stride)):
        raise Odd
    lengths, steps = tuple(size), tuple(stride)
    dtypes = [one for one in more[2:] if isinstance(one, torch.dtype)]
    dtype = dtypes[0] if dtypes else storage.dtype
    if not all(map(is_count, (*lengths, *steps))) or any(one for one in more[2:] if not isinstance(one, torch.dtype)):
        raise Odd
    count = math.prod(lengths)
    end = offset + sum((n - 1) * step for n, step in zip(lengths, steps, strict=True)) + 1 if count else offset
    held = storage.content.nbytes() // dtype.itemsize
    if end > held or count > held:
        raise Damaged(f"a tensor of {'×'.join(map(str, lengths))[:40]} numbers lies in a storage of {held:,}")
    machine.budget.spend(count * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage.content, offset, lengths, steps)


def _typed(machine: Machine, function: Any, cls: Any, args: Any, state: Any) -> Any:
    """A tensor of a subclass, or with attributes: without them."""
    if not isinstance(function, Inert) or function.name not in TENSORS or not isinstance(args, tuple) or len(args) > MOST_ARGUMENTS:
        raise Odd
    return _tensor(machine, *args)


def _parameter(machine: Machine, data: Any, *_: Any) -> Tensor:
    """`torch.nn.Parameter`: its tensor."""
    if not isinstance(data, Tensor):
        raise Odd
    return data


def _persistent_object(machine: Machine, about: Any) -> Inert:
    """An object of NVlabs' `torch_utils.persistence`, which comes with the source of its class: its name and state, without the source."""
    if not isinstance(about, dict) or not isinstance(about.get("class_name"), str):
        raise Odd
    facts = {name: about.get(name) for name in ("type", "version", "class_name")}
    return Inert(about["class_name"], (facts,), about.get("state"))


def _dtype(given: Any, order: Any = "=") -> np.dtype[Any]:
    """A dtype of plain numbers or text."""
    if isinstance(given, np.dtype):
        return given
    code = given.args[0] if isinstance(given, _Unbuilt) and given.args else None
    if not isinstance(code, str) or not re.fullmatch(r"[biufc]\d{1,2}|[SU]\d{1,4}", code) or order not in ("<", ">", "|", "="):
        raise Odd
    return np.dtype(code).newbyteorder(order)


def _array(machine: Machine, raw: Any, dtype: Any, shape: Any, order: str) -> np.ndarray[Any, Any]:
    """An array of its bytes."""
    kind = _dtype(dtype)
    if isinstance(raw, str):  # as Python 2 wrote it
        raw = _encoded(machine, raw, "latin1")
    if not isinstance(raw, (bytes, bytearray)) or not isinstance(shape, tuple) or not all(map(is_count, shape)):
        raise Odd
    if math.prod(shape) * kind.itemsize != len(raw):
        raise Damaged(f"an array of {'×'.join(map(str, shape))[:40]} numbers has {len(raw):,} bytes")
    machine.budget.spend(len(raw))
    return np.frombuffer(raw, kind).reshape(shape, order="F" if order == "F" else "C").copy()


def _built(machine: Machine, made: _Unbuilt, state: Any) -> Any:
    """What numpy makes of its (version, …) states; a record where it is more than plain numbers."""
    try:
        if made.name == "numpy.dtype":
            return _dtype(made, state[1])
        _, shape, dtype, columns_first, raw = state
        return _array(machine, raw, dtype, shape, "F" if columns_first else "C")
    except (Odd, TypeError, ValueError, LookupError):
        return Inert(made.name, made.args, state)


def _scalar(machine: Machine, dtype: Any, raw: Any) -> Any:
    """A number of numpy as Python's."""
    return _array(machine, raw, dtype, (), "C").item()


def _words(given: tuple[Any, ...]) -> list[str]:
    """Short words and numbers, of a device or a path."""
    if not all(isinstance(one, (str, int)) and len(str(one)) <= LONGEST_NAME for one in given):
        raise Odd
    return [str(one) for one in given]


def _bytearray(machine: Machine, content: Any = b"", *coding: Any) -> bytearray:
    made = content if isinstance(content, bytes) and not coding else _encoded(machine, content, *coding)
    machine.budget.spend(len(made))
    return bytearray(made)


def _complex(machine: Machine, real: Any, imaginary: Any) -> complex:
    if not isinstance(real, float) or not isinstance(imaginary, float):
        raise Odd
    return complex(real, imaginary)


def _instance(machine: Machine, cls: Any, *args: Any) -> Any:
    """How old protocols call a class."""
    if not isinstance(cls, Inert) or cls.name.startswith("copyreg."):
        raise Odd
    machine.call(cls, args)
    return machine.stack.pop()


def _from_base(machine: Machine, cls: Any, base: Any, state: Any) -> Any:
    """How the oldest protocols make an instance: `state` is what a list or dictionary begins with."""
    return _instance(machine, cls) if state is None else _instance(machine, cls, state)


TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor_v3")
DICTIONARIES = ("builtins.dict", "collections.OrderedDict", "collections.Counter")
PATHS = ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath", "Path")
KNOWN: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(TENSORS, _tensor),
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _typed,
    "torch.Size": lambda m, *args: tuple(_listed(m, args)),
    "torch.device": lambda m, *args: ":".join(_words(args)),
    PERSISTENT: _persistent_object,
    **dict.fromkeys(DICTIONARIES, _pairs),
    "collections.defaultdict": lambda m, factory=None, *args: _pairs(m, *args),
    "builtins.list": lambda m, *args: _listed(m, args),
    "builtins.tuple": lambda m, *args: tuple(_listed(m, args)),
    "builtins.set": lambda m, *args: {_key(one) for one in _listed(m, args)},
    "builtins.frozenset": lambda m, *args: frozenset(_key(one) for one in _listed(m, args)),
    "builtins.complex": _complex,
    "builtins.bytearray": _bytearray,
    "_codecs.encode": _encoded,
    "argparse.Namespace": lambda m: Namespace(),
    "copyreg._reconstructor": _from_base,
    "copyreg.__newobj__": _instance,
    **dict.fromkeys((f"pathlib.{name}" for name in PATHS), lambda m, *args: str(PurePosixPath(*_words(args)))),
    "numpy.dtype": lambda m, *args: _Unbuilt("numpy.dtype", args),
    "numpy.core.multiarray._reconstruct": lambda m, *args: _Unbuilt("numpy.ndarray", args),
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _array,
}
