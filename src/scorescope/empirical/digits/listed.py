"""Some rows, more than a few and less than a crowd: their logits again from products in float64, their weights summed row by row.

Digits that leave much of a state are enough to list the rows that can matter to it, but for those that together carry next to nothing,
and these are asked exactly: what a state's digits left does not enter the answer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scorescope.empirical.digits import compiled
from scorescope.empirical.digits.family import States
from scorescope.empirical.digits.nominate import KNOWN, Lists, asked, rounding, sides
from scorescope.empirical.digits.shelf import Shelf
from scorescope.empirical.partial import Partial

STATES = 256  # of one step, in float64


def listed(states: States, shelf: Shelf, which: Tensor, lists: Lists, error: Tensor, tolerance: float, left: float) -> Partial:
    """Partials of the states `which` of B states (B, 1, d) from the rows in `lists`.

    Args:
        states: All states.
        shelf: The rows.
        which: (Q,) indices of states.
        lists: Rows by state, with logits that are off by no more than `error` (B,).
        error: Of a listed logit.
        tolerance: Error of a mean, relative to its norm.
        left: Share of a state's mass that its list may lack.
    """
    result = Partial.nothing(len(which), states.d, states.z.device)
    for part in torch.arange(len(which)).split(STATES):
        result.put(part, _some(states[which[part]], shelf, which[part], lists, error[which[part]], tolerance, left))
    return result


def _some(states: States, shelf: Shelf, which: Tensor, lists: Lists, error: Tensor, tolerance: float, left: float) -> Partial:
    slope, curve, norm = states.slope[:, 0], states.curve[:, 0], states.norm[:, 0]
    # Values of rows are digits but for their rounding to float32. Where that moves no logit by much, it is left out.
    z = sides(states, shelf)
    even = asked(states, z, shelf)
    rough = even < tolerance / 2
    found = compiled.listed(z, lists, which, (slope, curve, error < KNOWN, states.centre, rough), shelf)
    high, top, mass, square, tilt, mass2, (moment, *mirrored) = found
    moment = (moment + shelf.mirror(mirrored[0]) if mirrored else moment) * shelf.step
    seen = mass.clamp(min=1e-300)
    size, own = (square / seen).sqrt(), torch.linalg.vector_norm(moment, dim=1) / seen
    spread = (size.square() - own.square()).clamp(min=0).sqrt() + 1e-6 * size
    # Weights are off by what float64 rounds of a logit, and are rounded to float32 in the end.
    off = torch.expm1((rounding(states, shelf)[:, 0] + rough * even).clamp(max=50)) + 2.0**-22
    wrong = off * spread + shelf.rounded + compiled.DEPTH * 2.0**-24 * size + left * (shelf.reach + own)
    none = ~(mass > 0)
    return Partial(
        torch.where(none, -torch.inf, high - 0.5 * states.precision[:, 0] * norm**2),
        top,
        mass,
        moment,
        square,
        tilt,
        mass2,
        (off + left) * mass,
        wrong * mass,
        torch.full_like(mass, torch.inf),
    )
