"""Families of states that share their products with the rows: a single state, the states of one training pair, those of one trajectory.

Group p has R vectors v_pr; its state t is z_pt − α·centre = Σ_r C_ptr v_pr + rest. One product of the vectors with the rows serves all
states of the group, and ‖rest‖ bounds what the product does not know (Cauchy–Schwarz).

    |⟨v, x⟩ as computed − ⟨v, x⟩| ≤ (d + 4)·u·‖v‖‖x‖      u = 2⁻²⁴ in float32, 2⁻⁵³ in float64 (Higham, Accuracy and Stability, 3.1)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scorescope.empirical.states import States
from scorescope.search.products import U32, U64

KEPT = 0.6  # share of what may be left that directions leave; the rest is for rounding


@dataclass(frozen=True)
class Family:
    """States and the vectors that they are combinations of.

    Attributes:
        states: B = P·T states, those of a group one after the other.
        vectors: (P, R, d) float64.
        coefficients: (P, T, R) float64.
        rest: (B,) bound on the norm of what these leave of a state.
        double: Whether the products with the rows are made in float64.
        place: (P,) where the products of a group are among those of all groups, unless in order.
    """

    states: States
    vectors: Tensor
    coefficients: Tensor
    rest: Tensor
    double: bool
    place: Tensor | None = None

    @cached_property
    def columns(self) -> Tensor:
        """(P, T, R + 2) what the products, ‖x‖² and 1 are multiplied with to make logits relative to the shell's."""
        states, shape = self.states, self.coefficients.shape[:2]
        scale = states.slope.view(*shape, 1) * self.coefficients
        fixed = torch.stack([-0.5 * states.curve, -states.shell], 1).view(*shape, 2)
        return torch.cat([scale, fixed], 2)

    @cached_property
    def _size(self) -> Tensor:
        """(B,) Σ_r |C_r|‖v_r‖: a bound on the norm of every partial sum."""
        return (self.coefficients.abs() * self.vectors.norm(dim=2)[:, None]).sum(2).flatten() * (1 + 1e-5)

    def error(self, unit: float) -> Tensor:
        """(B,) bound on the error of a logit that is put together with unit roundoff `unit`, but for what is common to all rows."""
        states, own = self.states, U64 if self.double else U32
        size, far = states.slope * self._size * states.reach, states.curve * states.reach**2
        products = (states.d + 4) * (own * size + U64 * far)
        together = (self.vectors.shape[1] + 8) * unit * (size + far + states.shell.abs())
        return (products + together + self.tilt * states.reach) * (1 + 1e-5)

    @property
    def tilt(self) -> Tensor:
        """(B,) slope·‖rest‖: by how much what is left of a state tilts logits, for each unit of a row's norm."""
        return self.states.slope * self.rest

    @property
    def rounding(self) -> Tensor:
        """(B,) the part of `error` that is float64's, where products and logits are in float64."""
        return self.error(U64) - self.tilt * self.states.reach


def alone(states: States, double: bool) -> Family:
    """States as groups of one."""
    ones = torch.ones(len(states), 1, 1, dtype=torch.float64, device=states.z.device)
    rest = 2.0**-52 * (states.norm + states.alpha * states.centre.norm())
    return Family(states, states.centred[:, None], ones, rest, double)


def pairs(x: Tensor, eps: Tensor, states: States, place: Tensor) -> Family:
    """Training pairs x, eps (P, d) float64 with states αx + σε (P·T): two vectors for each pair."""
    vectors = torch.stack([x - states.centre, eps], 1)
    weights = torch.stack([states.alpha, states.sigma], 1).view(len(x), -1, 2)
    sizes = (weights * vectors.norm(dim=2)[:, None]).sum(2).flatten()
    return Family(states, vectors, weights, 2.0**-50 * (sizes + states.alpha * states.centre.norm()), True, place)


def trajectories(states: States, count: int, wanted: Tensor, double: bool) -> Family:
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
    return Family(states, directions, weights, left.flatten() + hidden + 2.0**-52 * states.alpha * states.centre.norm(), double)
