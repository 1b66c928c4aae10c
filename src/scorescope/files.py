"""Writing files and folders so that a kill, a full disk or a second process never leaves half of one."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scorescope.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary name beside `path`: when the block ends well it is flushed to disk and renamed to `path`, else removed.

    An `OSError` (a full disk, no permission) names `path`, not the temporary name.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except OSError as problem:
        if problem.errno is not None and problem.filename in (None, temporary, str(temporary)):
            problem.filename, problem.filename2 = str(target), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: str | Path) -> Iterator[Path]:
    """A hidden folder beside `path`, which takes its place when the block ends well, else is removed.

    Whoever is killed leaves it behind, and the next try replaces it. A lock that dies with its process tells such a leftover from a
    folder that is being written.

    Raises:
        InputError: Another process writes it, or the folder around it can't be written to.
    """
    target = Path(os.path.abspath(path))
    partial, old = target.with_name(f".{target.name}.partial"), target.with_name(f".{target.name}.replaced")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if partial.exists():
            with locked(partial, target.name):
                shutil.rmtree(partial)
        partial.mkdir()
    except OSError as problem:
        raise InputError(f"can't write into {target.parent} ({problem.strerror})", "a folder that you may write to") from problem
    with locked(partial, target.name):
        try:
            yield partial
            for written in (*partial.rglob("*"), partial):
                _sync(written)
            if target.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.rename(target, old)
            os.rename(partial, target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _sync(target.parent)
        shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    """Put a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path, what: str | Path, hint: str = "waiting for it") -> Iterator[None]:
    """Nobody else writes `what` into the folder while the block lasts; the lock dies with its process.

    Raises:
        InputError: Another process holds the lock.
    """
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as taken:
            raise InputError(f"another process is writing {what}", hint) from taken
        except OSError:
            pass  # a file system without locks
        yield
    finally:
        os.close(descriptor)


@contextmanager
def space_for(path: str | Path, size: int, hint: str) -> Iterator[None]:
    """The disk of `path` has `size` bytes free at first, and that it becomes full meanwhile is one line.

    Raises:
        InputError: It has not, or it does.
    """
    parent = next(folder for folder in Path(path).absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < size:
        raise InputError(f"{path} needs {size / 1e6:,.1f} MB, the disk has {free / 1e6:,.1f} MB free", hint)
    try:
        yield
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"the disk became full; {path} needs {size / 1e6:,.1f} MB; nothing was left behind", hint) from problem


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON atomically; NaN is refused, since it is no JSON."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n")


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically.

    The bytes are made first and written here: the library's own writer leaves files that only their owner may read, a hidden file
    of another name when it is killed, and hides a full disk in an error of its own.
    """
    from safetensors.torch import save

    packed = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, metadata=dict(metadata or {}))
    with replacing(path) as temporary:
        temporary.write_bytes(packed)


def sha256(path: str | Path) -> str:
    """Hash of a file's bytes."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def cache_folder(given: str | Path | None = None) -> Path:
    """Where what can be made again is kept: `given`, $SCORESCOPE_CACHE, or the user's own."""
    if given is not None:
        return Path(given)
    if os.environ.get("SCORESCOPE_CACHE"):
        return Path(os.environ["SCORESCOPE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "scorescope"
