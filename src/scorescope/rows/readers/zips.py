"""A zip of images, sound or arrays with a row each: StyleGAN's, EDM's and EDM2's data sets (`dataset.json`), or a folder as it is."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from scorescope.errors import InputError
from scorescope.rows.images import Item
from scorescope.rows.members import Members, members_source
from scorescope.rows.options import Options
from scorescope.rows.raw import in_words
from scorescope.rows.storage import Progress, Source

BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)  # the last for what is encrypted


def accepts(path: Path) -> bool:
    """NAME.zip."""
    return path.suffix.lower() == ".zip"


def source(path: Path, options: Options, progress: Progress) -> Source:
    """The rows of its files."""

    def broken(problem: BaseException) -> InputError:
        return InputError(f"{path} was cut or altered ({in_words(problem)})", "downloading or writing it again")

    def read(wanted: Sequence[str]) -> Iterator[Item]:
        try:
            with zipfile.ZipFile(path) as archive:
                for name in wanted:
                    yield name, archive.read(name)
        except BROKEN as problem:
            raise broken(problem) from problem

    try:
        with zipfile.ZipFile(path) as archive:
            names = [one.filename for one in archive.infolist() if not one.is_dir()]
    except BROKEN as problem:
        raise broken(problem) from problem
    visible = [name for name in sorted(names) if not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))]
    return members_source(Members(str(path), visible, read), options, progress)
