"""All rows in float64: where the bound on what digits leave is wider than was asked for."""

from __future__ import annotations

import torch

from scorescope.empirical.digits.family import States
from scorescope.empirical.digits.shelf import Shelf
from scorescope.empirical.partial import Partial
from scorescope.empirical.settle import U64

BLOCK = 512


def double(states: States, shelf: Shelf, label: int | None) -> Partial:
    """Partials of B states (B, 1, d) from the shelf's rows of a class, or all."""
    z = states.centred[:, 0]
    total = Partial.nothing(len(z), states.d, z.device)
    constant = 0.5 * states.precision * states.norm**2
    rows = torch.from_numpy(shelf.indices(label)).to(z.device)
    if not len(rows):
        return total
    for index in rows.split(BLOCK):
        x = shelf.fetch(index).sub_(states.centre)
        square = x.square().sum(1)
        for mirrored in (False, True) if shelf.bank.flips else (False,):
            side = shelf.mirror(z) if mirrored else z
            logit = states.slope * (side @ x.T) - 0.5 * states.curve * square
            row = index + len(shelf.bank.rows) * mirrored
            part = Partial.of_rows(logit, x, square, row)
            part.moment = shelf.mirror(part.moment) if mirrored else part.moment
            total = total.merge(part)
    total.peak = total.peak - constant[:, 0]
    mean = total.moment / total.mass[:, None]
    spread = (total.square / total.mass - mean.square().sum(1)).clamp(min=0).sqrt()
    # Two rounded logits differ from the exact ones by at most e each, so no weight is off by more than a factor exp(2e).
    size = states.slope * states.norm * shelf.reach + states.curve * shelf.reach**2
    wrong = torch.expm1(2 * ((states.d + 8) * U64 * size[:, 0]).clamp(max=50))
    total.error = total.mass * (wrong * (spread + 1e-7 * shelf.reach) + (len(shelf.bank) + 8) * U64 * shelf.reach)
    total.doubt = total.mass * (wrong + (len(shelf.bank) + 8) * U64)
    return total
