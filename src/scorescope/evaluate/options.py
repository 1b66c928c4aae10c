"""What to sample and how, spelled once for Python and for the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from tyro.conf import arg

from scorescope.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """Which samples of a model to draw. Sample k is named by (seed, k): it is the same alone and in a batch of any size."""

    n: int = 64
    """How many samples."""
    first: int = 0
    """Number of the first; the others follow it."""
    items: Annotated[tuple[str, ...], arg(metavar="ITEM")] = ()
    """Instead of --n and --first: sample numbers, or ranges such as 100-131."""
    labels: Annotated[tuple[str, ...], arg(metavar="LABEL")] = ("auto",)
    """auto (all classes in turn), none, or class numbers or names: sample k has the k-th of them, in turn."""
    guidance: float = 1.0
    """Weight of classifier-free guidance; 1 is none."""
    solver: str = "dopri5"
    """dopri5, heun, euler or ancestral."""
    steps: int = 50
    """Steps of the solvers that have a fixed number."""
    seed: int = 0
    """Names every random stream."""
    batch: int = 64
    """Samples drawn together, and kept together when the run is killed."""

    def numbers(self) -> list[int]:
        """The samples' numbers, in order.

        Raises:
            InputError: Not a number or a range, a number twice, none at all.
        """
        if not self.items:
            if self.n < 1 or self.first < 0:
                raise InputError(f"--n {self.n} and --first {self.first} name no samples", "--n 64 --first 0")
            return list(range(self.first, self.first + self.n))
        found: list[int] = []
        for text in self.items:
            begin, dash, end = text.partition("-")
            if not begin.isdigit() or (dash and not end.isdigit()) or (dash and int(end) < int(begin)):
                raise InputError(f"--items {text!r} is neither a sample's number nor a range", "--items 37, or --items 100-131")
            found.extend(range(int(begin), int(end or begin) + 1))
        if len(set(found)) < len(found):
            raise InputError(f"--items names sample {next(k for k in found if found.count(k) > 1)} twice", "each number once")
        return found

    def validate(self) -> None:
        """Raise `InputError` for a value that no model could be sampled with."""
        self.numbers()
        for option, value in (("--steps", self.steps), ("--batch", self.batch)):
            if value < 1:
                raise InputError(f"{option} {value} is not a positive number", f"{option} 1 or more")
        if not math.isfinite(self.guidance):
            raise InputError(f"--guidance {self.guidance} is not a number", "--guidance 1.5")
