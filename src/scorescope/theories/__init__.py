"""Theories: closed-form denoisers of a bank, one a file, whose name is the theory's.

A module has `THEORY`, a subclass of `Denoiser` that is made as `THEORY(bank, **options)`. `scorescope examine theory:NAME` asks one like
any model.
"""

from __future__ import annotations

from typing import Any

from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.registry import module
from scorescope.rows import Bank


def theory(name: str, bank: Bank, **options: Any) -> Denoiser:
    """The theory of that name, of a bank.

    Raises:
        InputError: No such theory (the nearest name is suggested), or options that it does not take.
    """
    kind = module(__name__, name, "theory").THEORY
    try:
        made: Denoiser = kind(bank, **options)
    except TypeError as problem:
        raise InputError(
            f"theory {name} can't be made with {', '.join(options) or 'no options'} ({problem})", "its own options"
        ) from problem
    return made
