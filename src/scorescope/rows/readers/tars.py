"""Tars of files with a row each, one or several: webdataset's shards, ImageNet's class tars, a folder that was packed.

    shards/   shard-{000..009}.tar   shard-*.tar      key.jpg with key.cls (a class) or key.json (fields, any of which is a column)
    ILSVRC2012_img_train.tar                          n01440764.tar and so on inside, each a class
    n01440764.tar, …                                  such tars in a folder

Nothing is unpacked on the disk. Rows are in the order of the tars' names, and within a tar in its own.
"""

from __future__ import annotations

import glob
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from scorescope.errors import InputError
from scorescope.rows.images import Item
from scorescope.rows.members import SUFFIXES as MEMBERS
from scorescope.rows.members import TABLE, Members, first_folder, members_source, suffix_of
from scorescope.rows.options import Options
from scorescope.rows.raw import in_words
from scorescope.rows.readers import cifar
from scorescope.rows.storage import Progress, Source, refuse_special

SUFFIXES = frozenset({".tar"})
PACKED = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")
WORDNET = re.compile(r"n\d{8}\.tar$")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
BESIDE = frozenset({".cls", ".json", ".txt"})
BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)
BLOCK = 512  # bytes; a tar ends with a block of zeros


def accepts(path: Path) -> bool:
    """NAME.tar, also compressed, or a pattern of such names; not CIFAR's."""
    return path.name.lower().endswith(PACKED) and not cifar.accepts(path) and not path.is_dir()


def source(path: Path, options: Options, progress: Progress) -> Source:
    """The rows of the files in a tar, or in all tars of a pattern."""
    if path.exists():
        return several([path], str(path), options, progress)
    files = expanded(str(path))
    if not files:
        raise InputError(f"no source at {path}", "a tar, or a pattern as 'shards/{000..009}.tar' or 'shards/*.tar'")
    for file in files:
        if not file.is_file():
            raise InputError(f"no tar at {file}, which is one of {path}", "all shards, or another pattern")
    return several(files, str(path), options, progress)


def expanded(pattern: str) -> list[Path]:
    """The paths that a pattern with {000..009} and * stands for, in order."""
    found = BRACES.search(pattern)
    if found is None:
        return [Path(name) for name in sorted(glob.glob(pattern))] if glob.has_magic(pattern) else []
    numbers = range(int(found[1]), int(found[2]) + 1)
    names = [f"{pattern[: found.start()]}{n:0{len(found[1])}}{pattern[found.end() :]}" for n in numbers]
    return [path for name in names for path in expanded(name) or [Path(name)]]


def several(files: list[Path], where: str, options: Options, progress: Progress) -> Source:
    """The same of several tars."""
    options.refuse(where, "files", "columns")
    files = sorted(files)
    for file in files:
        refuse_special(file)
    names: list[str] = []
    texts: dict[str, bytes] = {}
    known: set[str] = set()
    for file in files:
        for name, _, data in _members(file, len(files) > 1, lambda name: suffix_of(name) in BESIDE):
            if name in known:
                raise InputError(f"{file} holds {name} twice", "names that differ")
            known.add(name)
            names.append(name)
            if data is not None:
                texts[name] = data
            if len(names) % 1000 == 0:
                progress("looking into tars", len(names), len(names))

    def read(wanted: Sequence[str]) -> Iterator[Item]:
        left, asked = iter(wanted), set(wanted)
        for file in files:
            for name, _, data in _members(file, len(files) > 1, asked.__contains__):
                if data is not None:
                    assert name == next(left)
                    yield name, data

    fields = _fields(names, texts, where)
    aside = frozenset(texts)
    plain = [name for name in names if name not in aside or PurePosixPath(name).name == TABLE]
    classes = len(files) > 1 and not all(WORDNET.search(file.name) for file in files)
    return members_source(Members(where, plain, read, _inside if classes else first_folder, fields, True, aside), options, progress)


def _inside(name: str) -> str:
    """The folder within a shard, which is the first part of the name."""
    return first_folder(name.partition("/")[2])


def _members(file: Path, named: bool, wanted: Any) -> Iterator[tuple[str, int, bytes | None]]:
    """Name, size and (where `wanted`) content of each file in a tar, and of those in tars within it, which are called by its name."""
    place = f"{file.name.partition('.')[0]}/" if named or WORDNET.search(file.name) else ""
    with _open(file) as tar:
        for one in tar:
            tar.members.clear()  # type: ignore[attr-defined]  # which would hold every file's head until the end
            name = place + one.name.removeprefix("./")
            if not one.isreg() or PurePosixPath(name).name.startswith("."):
                continue
            if suffix_of(name) == ".tar":
                inner = tar.extractfile(one)
                assert inner is not None
                with tarfile.open(fileobj=inner) as nested:
                    for within in nested:
                        nested.members.clear()  # type: ignore[attr-defined]
                        called = f"{PurePosixPath(name).stem}/{within.name.removeprefix('./')}"
                        if within.isreg():
                            yield called, within.size, _content(nested, within) if wanted(called) else None
                continue
            yield name, one.size, _content(tar, one) if wanted(name) else None
        if file.suffix.lower() == ".tar":
            _check_end(tar, file)


def _content(tar: tarfile.TarFile, one: tarfile.TarInfo) -> bytes:
    inner = tar.extractfile(one)
    assert inner is not None
    data = inner.read()
    if len(data) != one.size:
        raise EOFError(f"{one.name} ends after {len(data):,} of {one.size:,} bytes")
    return data


@contextmanager
def _open(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file) as tar:
            yield tar
    except BROKEN as problem:
        raise InputError(f"{file} was cut or is no tar ({in_words(problem)})", "downloading or writing it again") from problem


def _check_end(tar: tarfile.TarFile, file: Path) -> None:
    """A tar that was cut between two files ends without its block of zeros, and the library says nothing."""
    reading: IO[bytes] = tar.fileobj  # type: ignore[assignment]
    reading.seek(tar.offset)
    if reading.read(BLOCK) != bytes(BLOCK):
        raise EOFError(f"it ends after {tar.offset:,} bytes, without an end")


def _fields(names: list[str], texts: dict[str, bytes], where: str) -> dict[str, dict[str, Any]]:
    """What files beside the rows' own say: `key.cls` the class, `key.json` fields by name, `key.txt` a text."""
    rows = {_key(name): name for name in names if suffix_of(name) in MEMBERS}
    fields: dict[str, dict[str, Any]] = {}
    for name, data in texts.items():
        row, kind = rows.get(_key(name)), suffix_of(name)
        if row is None:
            continue
        try:
            text = data.decode().strip()
            said = json.loads(text) if kind == ".json" else {kind[1:]: int(text) if text.isdecimal() else text}
        except (ValueError, RecursionError) as problem:
            raise InputError(f"{where}: {name} can't be read ({problem})", "repair or remove it") from problem
        for key, value in said.items() if isinstance(said, dict) else [("label", said)]:
            fields.setdefault(str(key), {})[row] = value
    return fields


def _key(name: str) -> str:
    """What the files of one row share: the path up to the first dot of its last part."""
    folder, slash, last = name.rpartition("/")
    return f"{folder}{slash}{last.partition('.')[0]}"
