"""The training loss: denoising score matching (Eq. 1) in the v parameterization."""

from __future__ import annotations

from torch import Tensor, nn

from scorescope import convert
from scorescope.schedule import LinearSchedule
from scorescope.training.examples import Batch

SCHEDULE = LinearSchedule()


def dsm_loss(net: nn.Module, batch: Batch) -> Tensor:
    """Mean over the batch of ‖v_θ(z_t, t) − (ε − x)‖²/d: Eq. 1 weighted by λ(t) = t²/(1 − t)², per dimension; a scalar."""
    z = convert.add_noise(batch.x, batch.eps, batch.t, SCHEDULE)
    prediction = net(z, batch.t.to(z.dtype), batch.label)
    return (prediction - (batch.eps - batch.x)).square().mean()
