"""Families of states that share their products with the rows: a single state, the states of one training pair, those of one trajectory.

Group p has R vectors of digits b_pr; its state k is z_pk − α·centre = Σ_r C_pkr b_pr + rest. One product of the digits with the rows serves
all states of the group, and ‖rest‖ bounds what the product does not know (Cauchy–Schwarz).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scorescope.empirical import states
from scorescope.empirical.chance import CERTAIN, SAFE, lots, uniform
from scorescope.schedule import Schedule
from scorescope.search.quantize import BASE, planes

KEPT = 0.6  # share of what may be left that directions leave; the rest is for their rounding
STRIDE = 80.0  # what the first plane of principal directions may leave of the states, as a factor
TOGETHER = 8  # trajectories whose states the caches of a processor hold
VALUES = 1 << 19  # float64 values of one step: what the caches hold
MOST = 7  # planes of a vector: 127·254⁶ is beyond what float64 resolves


@dataclass(frozen=True)
class States(states.States):
    """States z (P, T, d) float64 with α and σ (P, T): P groups of T states, whose constants are those of single states, (P, T) each."""

    reach: float = 0.0

    @staticmethod
    def of(z: Tensor, t: Tensor, schedule: Schedule, centre: Tensor, reach: float = 0.0) -> States:
        """States z (P, T, d) at times t (P, T)."""
        alpha, sigma, *_ = schedule(t.flatten())
        return States(z, alpha.reshape(t.shape), sigma.reshape(t.shape), centre, reach)

    def __getitem__(self, part: Tensor | slice | tuple[slice, slice]) -> States:
        """Some of the groups, or some of the states of all."""
        return self._known(States(self.z[part], self.alpha[part], self.sigma[part], self.centre, self.reach), lambda norm: norm[part])

    @cached_property
    def flat(self) -> States:
        """The states as groups of one each."""
        z, alpha, sigma = self.z.flatten(0, 1), self.alpha.flatten(), self.sigma.flatten()
        own = States(z[:, None], alpha[:, None], sigma[:, None], self.centre, self.reach)
        return self._known(own, lambda norm: norm.flatten()[:, None])

    @property
    def single(self) -> states.States:
        """The states of groups of one each."""
        return states.States(self.z[:, 0], self.alpha[:, 0], self.sigma[:, 0], self.centre, self.reach)

    def _known(self, others: States, place: Callable[[Tensor], Tensor]) -> States:
        """`others`, told the norms if they are known here."""
        if "norm" in self.__dict__:
            others.__dict__["norm"] = place(self.norm)
        return others

    @property
    def d(self) -> int:
        """Dimensions."""
        return self.z.shape[2]

    @property
    def centred(self) -> Tensor:
        """(P, T, d) z − α·centre, made anew each time."""
        return self._centred(slice(None))

    def _centred(self, part: slice) -> Tensor:
        return torch.addcmul(self.z[part], self.alpha[part, :, None], self.centre, value=-1)

    @cached_property
    def norm(self) -> Tensor:
        """(P, T) norms of the centred states."""
        size = max(1, VALUES // max(1, self.z.shape[1] * self.d))
        parts = [slice(start, start + size) for start in range(0, max(1, len(self.z)), size)]
        return torch.cat([torch.linalg.vector_norm(self._centred(part), dim=2) for part in parts])

    @cached_property
    def shell(self) -> Tensor:
        """(P, T) the logit of a row at distance σ√d, on whose shell the state then lies; infinite at σ = 0."""
        level = 0.5 * (self.precision * self.norm**2 - self.d)
        return torch.where(self.steep, torch.inf, level)


@dataclass(frozen=True)
class Grain:
    """What is known of a rest that was shaped (`shaped`): |⟨rest, x⟩| is no more than `each` (P, T) times the texture of row x.

    Attributes:
        each: (P, T).
        texture: (n,) float64 of one's own rows, in the order of the bank.
        most: The largest of all rows.
    """

    each: Tensor
    texture: Tensor
    most: float


@dataclass(frozen=True)
class Family:
    """States and what is known of them from products with the rows.

    Attributes:
        states: (P, T).
        norms: (P, R) norms of the vectors of digits.
        coefficients: (P, T, R) float64.
        rest: (P, T) bound on the norm of what digits and coefficients leave of a state.
        place: (P,) where the products of a group are among those of all groups.
        drift: (P, T) a bound on ‖C rest‖ for any covariance C of trace 1: that of `rest`, or less where the rest is random.
        grain: What else is known of the rest, if it was shaped.
    """

    states: States
    norms: Tensor
    coefficients: Tensor
    rest: Tensor
    place: Tensor
    drift: Tensor
    grain: Grain | None = None

    def astray(self, rows: int) -> Tensor:
        """(P, T) bound on |⟨rest, x⟩| / ‖x‖ for each of so many vectors x: ‖rest‖, or less where the rest is random.

        By Hoeffding's inequality a rest in units that were rounded at random goes beyond s·unit·‖x‖ with a probability of 2e^(−2s²):
        all rows together do so with one of e⁻³², at d = 3,072 beyond a quarter of what its norm allows.
        """
        return torch.minimum(self.rest, self.drift * (((CERTAIN + math.log(2 * rows)) / 2) ** 0.5 / SAFE))

    def some(self, states: States, which: Tensor | slice, times: slice) -> Family:
        """The groups `which` at some of the times, whose `states` are given; their products stay where they are."""
        rest, drift = self.rest[which][:, times], self.drift[which][:, times]
        return Family(states, self.norms[which], self.coefficients[which][:, times], rest, self.place[which], drift)

    def products(self, exact: Tensor, part: slice) -> Tensor:
        """Those of the groups `part` among the products (P', R, n) of all groups."""
        return exact[part] if self._in_order else exact[self.place[part]]

    @cached_property
    def _in_order(self) -> bool:
        return bool((self.place == torch.arange(len(self.place), device=self.place.device)).all())


def alone(states: States, wanted: Tensor | None = None, seen: Tensor | None = None) -> tuple[Family, Tensor]:
    """States as groups of one (B, 1, d) with their own digits (B, R, d) int8, or those (B, R, K) of what is `seen` of them (B, K).

    One plane, or as many as leave no state more drift than `wanted` (B, 1). The last plane is rounded up or down at random, right on
    average, by lots of the coordinates; a covariance C of trace 1 makes of such a rest, by McDiarmid's inequality, no more than SAFE·unit
    but for a probability of e⁻³², at d = 3,072 a quarter of what its norm allows.
    """
    centred = states.centred[:, 0] if seen is None else seen
    unit = (centred.abs().amax(1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float64).tiny)
    digits, columns, rest = [], [], centred
    drift = torch.full_like(unit, torch.inf)
    for _ in range(MOST):
        last = wanted is None or bool((unit * SAFE <= wanted).all())
        if last:
            plane = torch.addcdiv(lots(torch.arange(rest.shape[1], device=rest.device)).double(), rest, unit).floor_().clamp_(-128, 127)
            rest, drift = torch.addcmul(rest, plane, unit, value=-1), unit * SAFE
        else:
            (plane,), rest = planes(rest, unit, 1)
        digits.append(plane.to(torch.int8))
        columns.append(unit)
        unit = unit / BASE
        if last or (wanted is not None and bool((rest.norm(dim=1, keepdim=True) <= wanted).all())):
            break
    stack, left = torch.stack(digits, 1), rest.norm(dim=1, keepdim=True)
    place = torch.arange(len(stack), device=rest.device)
    return Family(states, norms_of(stack), torch.stack(columns, 2), left, place, torch.minimum(left, drift)), stack


def norms_of(digits: Tensor) -> Tensor:
    """(P, R) norms of digits (P, R, d)."""
    return torch.cat([some.float().norm(dim=2).double() for some in digits.split(64)])


def digits_of(directions: Tensor, weights: Tensor, wanted: Tensor, step: float) -> tuple[Tensor, Tensor, Tensor]:
    """Digits of directions that a family's states are combinations of, with as many planes as each deserves.

    Args:
        directions: (P, K, d) float64.
        weights: (P, T, K): centred state = Σ_k weights·direction.
        wanted: (P, T) norm of a rest that is small enough.
        step: A unit in which the first direction may be exact (the rows' own, for a direction that is a row).

    Returns:
        Digits (P, R, d) int8, coefficients (P, T, R), and a bound (P, T) on the norm of what they leave of Σ_k weights·direction.
    """
    p, count, d = directions.shape
    digits, columns = [], []
    left = torch.zeros_like(wanted)
    for k in range(count):
        rest, weight = directions[:, k], weights[:, :, k]
        # Each direction may leave a like share.
        allowed = (wanted / weight.abs().clamp(min=1e-300)).amin(1) / count
        unit = rest.abs().amax(1, keepdim=True) / 127
        if k == 0 and float(unit.max()) <= step * 128 / 127 * (1 + 1e-6):
            unit = torch.full_like(unit, step)
        unit = unit.clamp(min=torch.finfo(torch.float64).tiny)
        for _ in range(MOST):
            if bool((rest.norm(dim=1) <= allowed).all()):
                break
            plane, rest = planes(rest, unit, 1)
            digits.append(plane[0])
            columns.append(weight * unit)
            unit = unit / BASE
        left += weight.abs() * rest.norm(dim=1)[:, None]
    if not digits:
        return torch.zeros(p, 1, d, dtype=torch.int8, device=left.device), torch.zeros_like(weights[..., :1]), left
    return torch.stack(digits, 1), torch.stack(columns, 2), left


def pairs(x: Tensor, eps: Tensor, states: States, wanted: Tensor, step: float) -> tuple[Family, Tensor]:
    """Training pairs x, eps (P, d) float64 with states αx + σε, and their digits: one plane of the row and a few of the noise."""
    directions = torch.stack([x - states.centre, eps], 1)
    weights = torch.stack([states.alpha, states.sigma], 2)
    digits, coefficients, rest = digits_of(directions, weights, wanted, step)
    rest = rest + 2.0**-48 * (states.alpha * directions[:, 0].norm(dim=1)[:, None] + states.sigma * eps.norm(dim=1)[:, None])
    return Family(states, norms_of(digits), coefficients, rest, torch.arange(len(x), device=x.device), rest), digits


def trajectories(states: States, wanted: Tensor) -> tuple[Family, Tensor]:
    """Trajectories by their principal directions, and the digits of these: one plane each, then the directions of what is left.

    No state is left more drift than `wanted` (P, T). The last plane is rounded up or down at random, by lots of direction and coordinate:
    as in `alone`, with Σ_r C_pkr² in the place of a squared unit, and what the directions leave added to it.
    """
    rest = states.centred
    parts = torch.arange(len(rest), device=rest.device).split(TOGETHER)
    digits: list[Tensor] = []
    columns: list[Tensor] = []
    left = states.norm
    drift = torch.full_like(left, torch.inf)
    while len(digits) < MOST * rest.shape[1] and bool((left > wanted).any()):
        inverse, weights = principal(rest, torch.maximum(wanted, left / STRIDE))
        plane = torch.empty(len(rest), weights.shape[2], rest.shape[2], dtype=torch.int8, device=rest.device)
        column, now = torch.empty_like(weights), torch.empty_like(left)
        directions = [inverse[part] @ rest[part] for part in parts]
        for part, own in zip(parts, directions, strict=True):
            unit = (own.abs().amax(2, keepdim=True) / 127).clamp(min=torch.finfo(torch.float64).tiny)
            column[part] = weights[part] * unit.mT
            own.div_(unit)
        last = False
        if bool((SAFE * column.norm(dim=2) <= wanted).all()):
            gone = [torch.baddbmm(rest[part], column[part], own, alpha=-1) for part, own in zip(parts, directions, strict=True)]
            bound = SAFE * column.norm(dim=2) + torch.cat([torch.linalg.vector_norm(some, dim=2) for some in gone])
            last = bool((bound <= wanted).all())
            drift = bound if last else drift  # no bound on a plane that is rounded to the nearest
        row = torch.arange(states.d, device=rest.device)
        dither = uniform(torch.arange(1, 1 + column.shape[2], device=rest.device)[:, None], row) if last else None
        for part, own in zip(parts, directions, strict=True):
            whole = own.round_() if dither is None else own.add_(dither).floor_().clamp_(-128, 127)
            plane[part] = whole.to(torch.int8)
            rest[part] = torch.baddbmm(rest[part], column[part], whole, alpha=-1)
            now[part] = torch.linalg.vector_norm(rest[part], dim=2)
        digits.append(plane)
        columns.append(column)
        if last:
            left = now
            break
        if bool((now >= left).all()):
            break  # nothing but rounding is left
        left = now
    if not digits:
        digits, columns = [torch.zeros_like(rest[:, :1], dtype=torch.int8)], [torch.zeros_like(rest[:, :, :1])]
    stack, coefficients = torch.cat(digits, 1), torch.cat(columns, 2)
    # And what the rounding of these very differences may hide.
    hidden = 2.0**-48 * (states.norm + (coefficients.abs() * norms_of(stack)[:, None]).sum(2))
    left = left + hidden
    place = torch.arange(len(stack), device=left.device)
    return Family(states, norms_of(stack), coefficients, left, place, torch.minimum(left, drift + hidden)), stack


def principal(rest: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """The fewest directions that leave no vector (P, T, d) more than `KEPT` of `wanted` (P, T).

    The principal directions, each vector divided by its `wanted` so that one that needs precision pulls its own weight.

    Returns:
        What makes the directions of the vectors, (P, K, T), and the vectors of the directions, (P, T, K).
    """
    scale = 1 / wanted.clamp(min=1e-300)
    scale = scale / scale.amax(1, keepdim=True)
    gram = torch.cat([some @ some.mT for some in rest.split(TOGETHER)])
    values, vectors = torch.linalg.eigh(gram * scale[:, None] * scale[..., None])
    values, vectors = values.flip(1).clamp(min=0), vectors.flip(2)
    # After K directions vector k is left with ‖rest‖² = Σ_{r>K} λ_r v_kr² (scaled); float64 Gram matrices know no less than 1e-15 of λ_1.
    tail = (values[:, None] * vectors**2).flip(2).cumsum(2).flip(2).clamp(min=0).sqrt() / scale[..., None]
    enough = (tail <= KEPT * wanted[..., None]).all(1)
    enough |= values <= 1e-15 * values[:, :1]
    enough = enough.all(0)
    count = max(1, int(enough.long().argmax()) if bool(enough.any()) else rest.shape[1])
    vectors, values = vectors[..., :count], values[:, None, :count]
    inverse = vectors * scale[..., None] / values.sqrt().clamp(min=1e-300)
    return inverse.mT, vectors * values.sqrt() / scale[..., None]
