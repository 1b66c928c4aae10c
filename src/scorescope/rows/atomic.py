"""A folder, or a file in one, that appears whole or not at all.

It is written under a hidden name beside its final place and renamed when everything is on the disk. Whoever is killed leaves
the hidden one behind; the next try replaces it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from scorescope.errors import InputError

ROWS, MANIFEST = "rows.safetensors", "manifest.json"


def refuse_existing(out: Path, force: bool) -> None:
    """Raise `InputError` if `out` exists and may not be replaced; only a bank or an empty folder ever is."""
    if not (out.exists() or out.is_symlink()):
        return
    bank = (out / ROWS).is_file() and (out / MANIFEST).is_file()
    if out.is_dir() and not out.is_symlink() and (bank or not any(out.iterdir())):
        if not force:
            raise InputError(f"{out} exists", "another --out, or --force to replace it")
        return
    raise InputError(f"{out} exists and is not a bank, so it is not replaced", "another --out")


@contextlib.contextmanager
def replacing(out: Path, force: bool) -> Iterator[Path]:
    """A hidden folder beside `out` that is renamed to `out` when the block ends, and removed when it fails.

    A lock that dies with its process tells a leftover, which is replaced, from a build that is going on, which is not.
    """
    out = Path(os.path.abspath(out))
    refuse_existing(out, force)
    partial, old = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.replaced")
    lock = None
    try:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            if partial.exists():
                os.close(_lock(partial, out.name))
                shutil.rmtree(partial)
            partial.mkdir()
        except OSError as problem:
            raise InputError(f"can't write into {out.parent} ({problem.strerror})", "a folder that you may write to") from problem
        lock = _lock(partial, out.name)
        try:
            yield partial
            _sync_folder(partial)
            if out.exists():
                shutil.rmtree(old, ignore_errors=True)
                os.rename(out, old)
            os.rename(partial, out)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _sync_folder(out.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def replacing_file(out: Path) -> Iterator[BinaryIO]:
    """A hidden file beside `out` that is renamed to `out` when the block ends, and removed when it fails.

    The folder is locked meanwhile, by a lock that dies with its process: only one process writes at a time.
    """
    partial = out.with_name(f".{out.name}.partial")
    lock = _lock(out.parent, out.name)
    try:
        try:
            partial.touch()
        except OSError as problem:
            raise InputError(f"can't write into {out.parent} ({problem.strerror})", "a folder that you may write to") from problem
        try:
            with open(partial, "wb") as file:
                yield file
                sync(file)
            os.rename(partial, out)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        _sync_folder(out.parent)
    finally:
        os.close(lock)


def _lock(folder: Path, name: str) -> int:
    """An exclusive lock on a folder in which `name` is made, held until the returned descriptor is closed."""
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        os.close(descriptor)
        raise InputError(f"another build is writing {name}", "waiting for it") from problem
    except OSError:
        pass  # A file system without locks.
    return descriptor


def refuse_full_disk(out: Path, size: int, hint: str) -> None:
    """Raise `InputError` if the disk of the folder that will hold `out` has less than `size` bytes free."""
    free = shutil.disk_usage(out.parent).free
    if free < size:
        raise InputError(f"{out} needs {size / 1e6:,.1f} MB, the disk has {free / 1e6:,.1f} MB free", hint)


@contextlib.contextmanager
def full_disk_named(out: Path, size: int, hint: str) -> Iterator[None]:
    """Turn the error of a full disk into one that says what was being written, and how large it is."""
    try:
        yield
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InputError(f"the disk became full; {out} needs {size / 1e6:,.1f} MB; nothing was left behind", hint) from problem


def sync(file: Any) -> None:
    """Put an open file on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
