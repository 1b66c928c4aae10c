"""A model that tells a live row how often it is asked, so that a slow or stalling one is seen while it samples."""

from __future__ import annotations

from torch import Tensor

from scorescope.denoiser import Denoiser, Wrapped
from scorescope.progress import Row

MANY = 300  # evaluations of one batch; dopri5 takes 60 to 80 of a trained network, 260 of the worst that ended


class Watched(Wrapped):
    """A model that tells a live row how often it was asked."""

    NOT_IDENTITY = (*Wrapped.NOT_IDENTITY, "row", "calls")

    def __init__(self, model: Denoiser, row: Row) -> None:
        super().__init__(model)
        self.row, self.calls = row, 0

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The model's posterior mean."""
        self.calls += 1
        slow = ", more than smooth models need: is t in the unit that it was trained with?" if self.calls > MANY else ""
        self.row(0, f"evaluation {self.calls} of this batch, t = {float(t.max()):.2f}{slow}")
        return self.model(z, t, label)
