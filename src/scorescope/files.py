"""Writing files so that a kill, a full disk or a second process never leaves half of one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
