"""What to sample and how, spelled once for Python and for the command line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from tyro.conf import arg

from scorescope.errors import InputError

MOST = 10_000_000  # samples of a run: fewer than memory holds, more than anyone compares
MOST_STEPS = 1_000_000


def whole(text: str) -> int | None:
    """A number from 0 on in at most 18 decimal digits, so that int64 holds it; None for other words."""
    return int(text) if text.isdecimal() and len(text) <= 18 else None


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
            InputError: Not a number or a range, a number twice, none at all, more than `MOST`.
        """
        if not self.items and (self.n < 1 or not 0 <= self.first < 10**18):
            raise InputError(f"--n {self.n} and --first {self.first} name no samples", "--n 64 --first 0")
        ranges = [] if self.items else [range(self.first, self.first + self.n)]
        for text in self.items:
            begin, dash, end = text.partition("-")
            first, last = whole(begin), whole(end if dash else begin)
            if first is None or last is None or last < first:
                raise InputError(f"--items {text!r} is neither a sample's number nor a range", "--items 37, or --items 100-131")
            ranges.append(range(first, last + 1))
        count = sum(part.stop - part.start for part in ranges)
        if count > MOST:
            raise InputError(f"{count:,} samples are too many for one run, which may draw {MOST:,}", "several runs, with --first and --out")
        found = [k for part in ranges for k in part]
        again = [a for a, b in pairwise(sorted(found)) if a == b]
        if again:
            raise InputError(f"--items names sample {again[0]} twice", "each number once")
        return found

    def validate(self) -> None:
        """Raise `InputError` for a value that no model could be sampled with."""
        self.numbers()
        for option, value in (("--steps", self.steps), ("--batch", self.batch)):
            if not 1 <= value <= MOST_STEPS:
                raise InputError(f"{option} {value} is not a number from 1 to {MOST_STEPS}", f"{option} 50")
        if not -(2**63) <= self.seed < 2**63:
            raise InputError(f"--seed {self.seed} is beyond 64 bits", "--seed 0")
        if not math.isfinite(self.guidance):
            raise InputError(f"--guidance {self.guidance} is not a number", "--guidance 1.5")
