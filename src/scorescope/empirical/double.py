"""All rows in float64: where a tolerance is tighter than digits resolve."""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.empirical.family import States
from scorescope.empirical.partial import Partial
from scorescope.empirical.settle import U64
from scorescope.empirical.shelf import Shelf

BLOCK = 2048


def double(states: States, shelf: Shelf, label: int | None) -> tuple[Partial, Tensor]:
    """Partials of B states (B, 1, d) from the shelf's rows of a class, or all, and the row of each that is nearest to its shell."""
    z, batch = states.centred[:, 0], len(states.z)
    total = Partial.nothing(batch, states.d, z.device)
    near = torch.full((batch,), torch.inf, dtype=torch.float64, device=z.device)
    near_row = torch.zeros(batch, dtype=torch.int64, device=z.device)
    constant = 0.5 * states.precision * states.norm**2
    rows = torch.from_numpy(shelf.indices(label)).to(z.device)
    if not len(rows):
        return total, near_row
    for index in rows.split(BLOCK):
        x = shelf.fetch(index) - states.centre
        square = x.square().sum(1)
        for mirrored in (False, True) if shelf.bank.flips else (False,):
            side = shelf.mirror(z) if mirrored else z
            logit = states.slope * (side @ x.T) - 0.5 * states.curve * square
            row = index + len(shelf.bank.rows) * mirrored
            best, place = (logit - states.shell).abs().min(1)
            near_row = torch.where(best < near, row[place], near_row)
            near = torch.minimum(near, best)
            part = Partial.of_rows(logit - constant, x, square, row)
            part.moment = shelf.mirror(part.moment) if mirrored else part.moment
            total = total.merge(part)
    mean = total.moment / total.mass[:, None]
    spread = (total.square / total.mass - mean.square().sum(1)).clamp(min=0).sqrt()
    # Two rounded logits differ from the exact ones by at most e each, so no weight is off by more than a factor exp(2e).
    size = states.slope * states.norm * shelf.reach + states.curve * shelf.reach**2 + constant
    wrong = torch.expm1(2 * ((states.d + 8) * U64 * size[:, 0]).clamp(max=50))
    total.error = total.mass * (wrong * (spread + 1e-7 * shelf.reach) + (len(shelf.bank) + 8) * U64 * shelf.reach)
    total.doubt = total.mass * (wrong + (len(shelf.bank) + 8) * U64)
    return total, near_row
