"""Options of a verb, from a frozen dataclass; a wrong option is one line, like every other bad input."""

from __future__ import annotations

import contextlib
import io
import re
from typing import Any, TypeVar

import tyro

from scorescope.errors import InputError
from scorescope.evaluate.options import whole

T = TypeVar("T")
CONFIG = (tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes)


def parse(kind: type[T], argv: list[str], prog: str, description: str, default: Any = tyro.MISSING_NONPROP) -> T:
    """`argv` as a `kind`; `--help` prints and exits with 0.

    Raises:
        InputError: An unknown option (the near one is suggested), a missing or unreadable value.
    """
    said = io.StringIO()
    extra = {} if default is tyro.MISSING_NONPROP else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(
                kind,
                args=argv,
                prog=prog,
                description=description,
                config=CONFIG,
                **extra,
            )
    except SystemExit as leaving:
        if not leaving.code:
            raise
        raise _one_line(said.getvalue(), prog) from None


def _one_line(box: str, prog: str) -> InputError:
    """What tyro says in a box of several sections; ours, since its hook for errors (`tyro._errors`) is private and new."""
    plain = re.sub(r"[│╭╮╰╯]", " ", re.sub(r"\x1b\[[0-9;]*m", "", box))
    said = re.split(r"(?m)^ *(?:─ |[─-]{3}).*\n", plain)[1]
    text, everything = " ".join(said.split()), " ".join(plain.split())
    own = re.match(r"Error parsing [\w.]+: (.*?)\. Try: (.*)", text)  # an `InputError` of the dataclass itself
    if own:
        return InputError(own[1], own[2].rstrip("."))
    if text.startswith("Missing from"):
        indent = len(said) - len(said.lstrip(" "))
        text = "missing: " + ", ".join(re.findall(rf"(?m)^ {{{indent + 4}}}(\S.*?) *$", said))
    near = re.findall(r"(?:Perhaps you meant|Arguments similar to (\S+)): +(--[\w-]+)", everything)
    hint = min(near, key=lambda pair: text.find(pair[0]))[1] if near else f"{prog} --help"
    return InputError(text.rstrip(".") or "the options can't be read", hint)


def size(text: str) -> int:
    """Bytes of "2GB", "500 MB" or "1.5GiB".

    Raises:
        InputError: Not a size, or one that no machine has.
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", text.upper(), re.ASCII)
    value = 0.0 if found is None else float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2] or " ")
    if not 1 <= value < 2**60:
        raise InputError(f"--memory {text!r} is not a size", "--memory 2GB")
    return int(value)


def keywords(words: tuple[str, ...]) -> dict[str, str | int]:
    """`heads=6 family=sit` as keywords for `scorescope.load`; whole numbers are numbers.

    Raises:
        InputError: A word without "=".
    """
    wrong = [word for word in words if not re.fullmatch(r"\w+=.+", word)]
    if wrong:
        raise InputError(f"--load {wrong[0]!r} is not of the form name=value", "--load family=sit heads=6")
    pairs = (word.split("=", 1) for word in words)
    return {name: value if whole(value) is None else int(value) for name, value in pairs}
