"""Pickles without running code: tensors and plain values come out, everything else as a record of what it would have been.

torch's zip files (since 1.6)       tensors are mapped into memory, not read
torch's older files                 a few pickles in a row, then the numbers
any other pickle                    as EDM's, in which each storage is such an older file of its own, as bytes
"""

from __future__ import annotations

import io
import mmap
import re
import struct
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorescope.adapters.pickle_machine import KNOWN, LONGEST_NAME, Budget, Damaged, Inert, Machine, Odd, is_count
from scorescope.errors import InputError

MAGIC = 0x1950A86A20F9469CFC6C  # how torch's files before 1.6 begin
COPIES = 16  # times its size that a file may ask to be copied: an honest one copies each byte once or twice
SPARE = 1 << 20  # bytes that even the smallest file may ask for
DEEPEST = 4  # files inside bytes inside files
MODULES = 1_000_000  # modules and tensors of one network
REMEDY = "an undamaged copy"


# ---- what is asked for ----------------------------------------------------------------------------------------------------------


def read(path: str | Path) -> Any:
    """What a pickle holds: mappings, lists, tensors, plain values, `argparse.Namespace`, and `Inert` records; nothing in it is run.

    Tensors of a zip file are mapped: the file must stay as it is while they are in use.

    Raises:
        InputError: A file that is cut, or none of the three kinds above.
    """
    try:
        with open(path, "rb") as opened:
            data = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_COPY)  # writable, as torch wants it; the file is not written
    except ValueError as problem:
        raise InputError(f"{path} can't be read as a pickle (it is empty)", REMEDY) from problem
    try:
        return loads(data)
    except InputError as problem:
        raise InputError(f"{path} {problem.problem}", problem.hint) from problem


def loads(data: bytes | mmap.mmap) -> Any:
    """As `read`, from memory."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of escapes in strings of Python 2
            return _loads(data, Budget(COPIES * len(data) + SPARE))
    except Damaged as problem:
        raise InputError(f"can't be read as a pickle ({problem})", REMEDY) from problem
    except MemoryError as problem:
        raise InputError("can't be read as a pickle (it is larger than memory)", "a machine with more") from problem


def is_network(value: Any) -> bool:
    """Whether a record is of a `torch.nn.Module`."""
    state = value.state if isinstance(value, Inert) else None
    return isinstance(state, dict) and isinstance(state.get("_modules"), dict) and isinstance(state.get("_parameters"), dict)


def state_dict(network: Inert) -> dict[str, Tensor]:
    """The parameters and buffers of a record of a network, as `torch.nn.Module.state_dict` names them.

    Raises:
        InputError: More than `MODULES` of them, as only a network that holds itself has.
    """
    found: dict[str, Tensor] = {}
    left: list[tuple[str, Any]] = [("", network)]
    count = 0
    while left:
        prefix, one = left.pop()
        if not is_network(one):
            continue
        buffers, hidden = one.state.get("_buffers"), one.state.get("_non_persistent_buffers_set")
        held = [*one.state["_parameters"].items(), *(buffers.items() if isinstance(buffers, dict) else ())]
        inner = [(f"{prefix}{name}.", module) for name, module in one.state["_modules"].items() if isinstance(name, str)]
        count += 1 + len(held) + len(inner)
        if count > MODULES or len(prefix) > LONGEST_NAME:
            raise InputError("holds a network without end", REMEDY)
        for name, value in held:
            if isinstance(value, Tensor) and isinstance(name, str) and not (isinstance(hidden, set) and name in hidden):
                found[prefix + name] = value
        left += reversed(inner)
    return found


def left_out(value: Any) -> list[str]:
    """Names of the objects that were not made, each once; networks, whose tensors can be had, do not count."""
    return list(dict.fromkeys(one.name for one in walk(value) if isinstance(one, Inert) and not is_network(one)))


def walk(value: Any) -> Iterator[Any]:
    """A value and all that it holds, each object once."""
    seen: set[int] = set()
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, (Mapping, list, tuple, set, frozenset, Inert, Namespace)):
            if id(one) in seen:
                continue
            seen.add(id(one))
        yield one
        if isinstance(one, Mapping):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, (list, tuple, set, frozenset)):
            left += one
        elif isinstance(one, Inert):
            left += [one.args, one.state, one.items]
        elif isinstance(one, Namespace):
            left += vars(one).values()


# ---- the three kinds of files -----------------------------------------------------------------------------------------------------


def _loads(data: bytes | mmap.mmap, budget: Budget) -> Any:
    if data[:4] == b"PK\x03\x04":
        return _zipped(data, budget)
    stream = data if isinstance(data, mmap.mmap) else io.BytesIO(data)
    first = Machine(ALL, budget).run(stream)
    return _older(data, stream, budget) if isinstance(first, int) and first == MAGIC else first


def _zipped(data: bytes | mmap.mmap, budget: Budget) -> Any:
    """`NAME/data.pkl`, whose tensors lie in `NAME/data/KEY`, nothing compressed."""
    try:
        with zipfile.ZipFile(data if isinstance(data, mmap.mmap) else io.BytesIO(data)) as archive:  # type: ignore[arg-type]
            entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, ValueError, OverflowError, RuntimeError, struct.error, LookupError) as problem:
        raise Damaged("it begins like a zip file of torch, whose table of contents at the end is missing: it was cut") from problem
    main = min((name for name in entries if re.fullmatch(r"([^/]*/)?data\.pkl", name)), default=None)
    if main is None:
        raise Damaged("it is a zip file, but none of torch")
    folder = main.removesuffix("data.pkl")
    buffer = data if isinstance(data, mmap.mmap) else bytearray(data)
    whole = torch.frombuffer(buffer, dtype=torch.uint8).untyped_storage()
    made: dict[str, torch.UntypedStorage] = {}

    def place(name: str) -> tuple[int, int]:
        """Where a record begins and ends."""
        entry = entries.get(name)
        if entry is None:
            raise Damaged(f"it lacks {name}")
        at = entry.header_offset
        if entry.compress_type != zipfile.ZIP_STORED or not 0 <= at <= len(data) - 30 or data[at : at + 4] != b"PK\x03\x04":
            raise Damaged(f"{name} is damaged")
        begin = at + 30 + sum(struct.unpack("<HH", data[at + 26 : at + 30]))
        if begin + entry.file_size > len(data):
            raise Damaged(f"{name} is cut")
        return begin, begin + entry.file_size

    def storage(dtype: torch.dtype, key: str, count: int, view: Any) -> torch.UntypedStorage:
        begin, end = place(f"{folder}data/{key}")
        if count * dtype.itemsize > end - begin:
            raise Damaged(f"{folder}data/{key} is cut")
        if key not in made:
            held = whole[begin:end]
            if begin % 16:  # torch writes at multiples of 64
                budget.spend(end - begin)
                held = held.clone()
            made[key] = held
        return made[key]

    if f"{folder}byteorder" in entries and data[slice(*place(f"{folder}byteorder"))] != b"little":
        raise Damaged("it was written on a big-endian machine")
    return Machine(ALL, budget, storage).run(io.BytesIO(data[slice(*place(main))]))


def _older(data: bytes | mmap.mmap, stream: Any, budget: Budget) -> Any:
    """After the magic number: protocol, machine, content, a list of keys, and for each key how many numbers, and the numbers."""
    made: dict[str, tuple[torch.UntypedStorage, torch.dtype, int]] = {}
    views: dict[str, torch.UntypedStorage] = {}

    def storage(dtype: torch.dtype, key: str, count: int, view: Any) -> torch.UntypedStorage:
        if key not in made:
            if count * dtype.itemsize > len(data):
                raise Damaged(f"its storage {key} is cut")
            budget.spend(count * dtype.itemsize)
            made[key] = (torch.UntypedStorage(count * dtype.itemsize), dtype, count)
        whole = made[key][0]
        if view is None:
            return whole
        name, first, length = view
        if not (is_count(first) and is_count(length) and (first + length) * dtype.itemsize <= len(whole)):
            raise Damaged(f"a view of its storage {key} is out of range")
        return views.setdefault(str(name), whole[first * dtype.itemsize : (first + length) * dtype.itemsize])

    _, about = Machine(ALL, budget).run(stream), Machine(ALL, budget).run(stream)
    if not isinstance(about, dict) or about.get("little_endian") is not True:
        raise Damaged("it was written on a big-endian machine, or by a torch that is not known")
    content = Machine(ALL, budget, storage).run(stream)
    keys = Machine(ALL, budget).run(stream)
    at = stream.tell()
    for key in keys if isinstance(keys, list) else ():
        held, dtype, count = made.pop(str(key), (None, torch.uint8, -1))
        size = max(count, 0) * dtype.itemsize
        if held is None or data[at : at + 8] != struct.pack("<q", count) or at + 8 + size > len(data):
            raise Damaged(f"its storage {str(key)[:20]} is cut")
        if size:
            target = torch.empty(0, dtype=torch.uint8).set_(held)
            target.numpy()[:] = np.frombuffer(data, np.uint8, size, at + 8)
        at += 8 + size
    if made:
        raise Damaged(f"its storage {next(iter(made))[:20]} is missing")
    return content


def _from_bytes(machine: Machine, content: Any) -> Any:
    """A storage that was saved as a file of its own, as tensors in a plain pickle are."""
    if not isinstance(content, bytes) or machine.budget.depth >= DEEPEST:
        raise Odd
    machine.budget.spend(len(content))
    machine.budget.depth += 1
    try:
        return _loads(content, machine.budget)
    finally:
        machine.budget.depth -= 1


ALL = {**KNOWN, "torch.storage._load_from_bytes": _from_bytes}
__all__ = ["Inert", "is_network", "left_out", "loads", "read", "state_dict", "walk"]
