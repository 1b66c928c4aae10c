"""Families of states that share their products with the rows: a single state, the states of one training pair, those of one trajectory.

Group p has R vectors v_pr; its state t is z_pt − α·centre = Σ_r C_ptr v_pr + rest. One product of the vectors with the rows serves all
states of the group, and ‖rest‖ bounds what the product does not know (Cauchy–Schwarz).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scorescope.empirical.states import States

KEPT = 0.6  # share of what may be left that directions leave; the rest is for rounding


@dataclass(frozen=True)
class Family:
    """States and the vectors that they are combinations of.

    Attributes:
        states: B = P·T states, those of a group one after the other.
        vectors: (P, R, d) float64.
        coefficients: (P, T, R) float64.
        rest: (B,) bound on the norm of what these leave of a state.
        place: (P,) where the products of a group are among those of all groups, unless in order.
        whole: These are all states of the vectors.
    """

    states: States
    vectors: Tensor
    coefficients: Tensor
    rest: Tensor
    place: Tensor | None = None
    whole: bool = True


def alone(states: States) -> Family:
    """States as groups of one."""
    ones = torch.ones(len(states), 1, 1, dtype=torch.float64, device=states.z.device)
    rest = 2.0**-52 * (states.norm + states.alpha * states.centre.norm())
    return Family(states, states.centred[:, None], ones, rest)


def pairs(x: Tensor, eps: Tensor, states: States, place: Tensor) -> Family:
    """Training pairs x, eps (P, d) float64 with states αx + σε (P·T): two vectors for each pair."""
    vectors = torch.stack([x - states.centre, eps], 1)
    weights = torch.stack([states.alpha, states.sigma], 1).view(len(x), -1, 2)
    sizes = (weights * vectors.norm(dim=2)[:, None]).sum(2).flatten()
    return Family(states, vectors, weights, 2.0**-50 * (sizes + states.alpha * states.centre.norm()), place, whole=False)


def trajectories(states: States, count: int, wanted: Tensor) -> Family:
    """`count` trajectories (B = P·T states) by as few directions as leave no state more than `wanted` (B,) in norm.

    Principal directions, each state divided by its `wanted`, so that one that needs precision pulls its own weight.
    """
    z, t = states.centred.view(count, -1, states.d), len(states) // count
    scale = (1 / wanted.clamp(min=1e-300)).view(count, t)
    scale = scale / scale.amax(1, keepdim=True)
    gram = torch.cat([some @ some.mT for some in z.split(8)])
    values, vectors = torch.linalg.eigh(gram * scale[:, None] * scale[..., None])
    values, vectors = values.flip(1).clamp(min=0), vectors.flip(2)
    # After K directions state t is left with ‖rest‖² = Σ_{r>K} λ_r v_tr² (scaled); float64 Gram matrices know no less than 1e-15 of λ_1.
    tail = (values[:, None] * vectors**2).flip(2).cumsum(2).flip(2).clamp(min=0).sqrt() / scale[..., None]
    enough = ((tail <= KEPT * wanted.view(count, t, 1)).all(1) | (values <= 1e-15 * values[:, :1])).all(0)
    kept = max(1, int(enough.long().argmax()) if bool(enough.any()) else t)
    inverse = vectors[..., :kept] * scale[..., None] / values[:, None, :kept].sqrt().clamp(min=1e-300)
    directions = torch.cat([own.mT @ some for own, some in zip(inverse.split(8), z.split(8), strict=True)])
    directions = directions / directions.norm(dim=2, keepdim=True).clamp(min=1e-300)
    parts = list(zip(z.split(8), directions.split(8), strict=True))
    # Directions are orthonormal but for rounding, which a second projection of what is left takes up.
    weights = torch.cat([some @ own.mT for some, own in parts])
    weights += torch.cat([(some - w @ own) @ own.mT for (some, own), w in zip(parts, weights.split(8), strict=True)])
    left = torch.cat([(some - w @ own).norm(dim=2) for (some, own), w in zip(parts, weights.split(8), strict=True)])
    hidden = 2.0**-48 * (states.norm + weights.norm(dim=2).flatten() * kept**0.5)
    rest = left.flatten() + hidden + 2.0**-52 * states.alpha * states.centre.norm()
    return Family(states, directions, weights, rest)
