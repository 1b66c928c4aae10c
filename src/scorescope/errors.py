"""The one exception for bad input: what is wrong, and what to do. The command line prints it as one line and exits with 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """The user's input can't be used as it is.

    Args:
        problem: What is wrong, naming the file, row or option.
        hint: What to do about it; printed after `Try:`.
        details: A table that the command line prints above the line.
    """

    def __init__(self, problem: str, hint: str = "", details: str = "") -> None:
        self.problem, self.hint, self.details = problem, hint, details
        super().__init__(f"{problem}. Try: {hint}" if hint else problem)


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not among `known`, with the nearest one suggested."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"{near[0]!r} (did you mean that?)" if near else f"one of {', '.join(names)}"
    return InputError(f"unknown {kind} {name!r}; there is {', '.join(names)}", hint)
