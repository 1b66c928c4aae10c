"""What several verbs share: a model by its name, whether a device computes, and where results go."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from scorescope.cli.parse import keywords
from scorescope.errors import InputError

if TYPE_CHECKING:
    from scorescope.denoiser import Denoiser
    from scorescope.rows import Bank

LONGEST = 100  # bytes of a name in a folder's name: two of them fit the 255 that file systems take


def check_device(device: str) -> None:
    """Refuse a device that is not there, or that computes nothing, as `meta`."""
    import torch

    try:
        float(torch.ones(2, device=device).sum())
    except (RuntimeError, AssertionError, ImportError, AttributeError) as problem:
        raise InputError(f"device {device!r} can't be used ({str(problem).splitlines()[0]})", "--device cpu") from problem


def default_out(form: str, *names: str) -> Path:
    """The folder of a run that was given none: `default_out("{}-on-{}", model, bank)` lies in `runs/`, whatever the names hold."""
    return Path("runs") / form.format(*map(safe_name, names))


def safe_name(name: str) -> str:
    """A name as a part of a folder's name."""
    safe = re.sub(r"[/\\:\x00-\x1f]", "_", name).lstrip(".").encode(errors="replace")[:LONGEST]
    return safe.decode(errors="ignore") or "_"


def model_of(name: str, bank: Bank | None, load: tuple[str, ...] = (), trust: bool = False, device: str = "cpu") -> Denoiser:
    """The model that a name stands for, with the words after --load; what the bank has decided is said."""
    from scorescope.choice import opened

    try:
        return opened(name, bank, {"trust": trust, **keywords(load)}, device, lambda line: print(line, file=sys.stderr))
    except InputError as problem:  # what Python says as a keyword is a word after --load here
        if not re.match(r"\w+=", problem.hint):
            raise
        raise InputError(problem.problem, f"--load {problem.hint}".replace('"', ""), problem.details) from problem
