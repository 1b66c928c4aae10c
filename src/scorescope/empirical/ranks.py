"""What the engine asks of the other processes among which a bank's rows are shared; alone, every answer is one's own."""

from __future__ import annotations

from torch import Tensor

from scorescope.empirical.partial import Partial


class Ranks:
    """One process that holds all rows."""

    def largest(self, x: Tensor) -> Tensor:
        """The largest over the processes, element by element."""
        return x

    def total(self, x: Tensor) -> Tensor:
        """The sum over the processes."""
        return x

    def any(self, x: Tensor) -> Tensor:
        """Whether it is true in any process."""
        return x

    def merge(self, partial: Partial) -> Partial:
        """The partials of all processes as one."""
        return partial
