"""Options on whose values the defaults of others depend: they are looked for before all others are read."""

from __future__ import annotations

from itertools import pairwise


def value_of(argv: list[str], option: str) -> str | None:
    """The value given to an option, the last if it is given twice."""
    found = None
    for word, following in pairwise([*argv, ""]):
        if word == option and following and not following.startswith("-"):
            found = following
        if word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found
