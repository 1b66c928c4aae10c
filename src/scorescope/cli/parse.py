"""Options of a verb, from a frozen dataclass; a wrong option is one line, like every other bad input."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any, TypeVar

import tyro

from scorescope.errors import InputError

T = TypeVar("T")


def parse(kind: type[T], argv: list[str], prog: str, description: str, default: Any = tyro.MISSING_NONPROP) -> T:
    """`argv` as a `kind`; `--help` prints and exits with 0.

    Raises:
        InputError: An unknown option (the near one is suggested), a missing or unreadable value.
    """
    said = io.StringIO()
    extra = {} if default is tyro.MISSING_NONPROP else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=argv, prog=prog, description=description, config=(tyro.conf.FlagCreatePairsOff,), **extra)
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise _one_line(said.getvalue(), prog) from None


def _one_line(box: str, prog: str) -> InputError:
    """What tyro says in a box of several lines."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip(" │╭╮╰╯─\t") for line in plain.splitlines()]
    parts = " ".join(line for line in lines[1:] if line)
    problem = re.split(r" Perhaps you meant:| For full helptext| Argument helptext:", parts)[0].strip()
    problem = re.sub(r"^Missing from [\w -]+: ", "missing: ", problem)
    near = re.search(r"Perhaps you meant: *(--[\w-]+)", parts)
    return InputError(problem.rstrip(".") or "the options can't be read", near.group(1) if near else f"{prog} --help")
