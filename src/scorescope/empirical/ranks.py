"""What the engine asks of the other processes among which a bank's rows are shared; alone, every answer is one's own.

Every process asks the same questions in the same order, whatever its own rows are: what decides on the next question must itself come
from an answer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from scorescope.empirical.partial import LAST, Partial

TOGETHER = 256  # moments that are told at a time: what the caches of a processor hold


class Ranks(ABC):
    """The processes, of which each holds a range of the stored rows."""

    @abstractmethod
    def share(self, rows: int) -> range:
        """Which of the stored rows are one's own; the shares of all processes are all rows, in their order."""

    @abstractmethod
    def largest(self, x: Tensor) -> Tensor:
        """The largest over the processes, element by element."""

    @abstractmethod
    def total(self, x: Tensor) -> Tensor:
        """The sum over the processes."""

    def smallest(self, x: Tensor) -> Tensor:
        """The smallest over the processes, element by element."""
        return -self.largest(-x)

    def any(self, x: Tensor) -> Tensor:
        """Whether it is true in any process."""
        return self.largest(x.to(torch.uint8)).bool()

    def merge(self, partial: Partial) -> Partial:
        """The partials of all processes as one, by the law of `Partial.merge`: first the peaks, then the rescaled sums, in place."""
        seen, away = partial.mass > 0, (partial.ratio - 1).abs()
        peak, near = self.largest(torch.stack([torch.where(seen, partial.peak, -torch.inf), -away]))
        factor, down = partial.factor(peak)
        numbers = [partial.mass, partial.tilt + partial.mass * down, factor * partial.mass2]
        mass, tilt, mass2 = self.total(factor * torch.stack(numbers))
        # Peaks of different processes are rounded each by itself.
        uneven = torch.where(seen & (partial.peak != peak), 2.0**-50 * (partial.peak.abs() + peak.abs()), 0.0)
        doubt = partial.doubt + partial.mass * torch.expm1(uneven.clamp(max=50)) * uneven.clamp(max=50).exp()
        moment, apart = partial.moment, torch.empty_like(mass)
        for start in range(0, len(moment), TOGETHER):
            some = slice(start, start + TOGETHER)
            own = moment[some] / partial.mass[some, None].clamp(min=1e-300)
            moment[some] = self.total(factor[some, None] * moment[some])
            apart[some] = torch.linalg.vector_norm(own.sub_(moment[some] / mass[some, None].clamp(min=1e-300)), dim=1)
        # Every error of a weight moves the answer by what its own rows' mean is away from that of all.
        error, doubt = self.total(factor * torch.stack([partial.error + doubt * apart, doubt]))
        top = self.smallest(torch.where(seen & (partial.peak == peak), partial.top, LAST))
        ratio = self.smallest(torch.where(-away == near, partial.ratio, torch.inf))
        return Partial(peak, top, mass, moment, tilt, mass2, doubt, error, ratio)

    @abstractmethod
    def refuse_different(self, what: str, *values: Tensor | None) -> None:
        """Raise `InputError` in all processes if one was given other values than the rest."""


class Alone(Ranks):
    """One process that holds all rows."""

    def share(self, rows: int) -> range:
        """All."""
        return range(rows)

    def largest(self, x: Tensor) -> Tensor:
        """One's own."""
        return x

    def total(self, x: Tensor) -> Tensor:
        """One's own."""
        return x

    def merge(self, partial: Partial) -> Partial:
        """One's own."""
        return partial

    def refuse_different(self, what: str, *values: Tensor | None) -> None:
        """Nobody to differ from."""
