"""Rounding that rows hardly see: a state's rounding errors are shaped so that rows whose neighbouring values are alike average them out.

The error of each digit is handed on to the digits after it (noise shaping, or error diffusion): what digits leave of a state is then
rest = H q with H = Π_k (1 − a_k S_k), q the errors of single roundings and S_k the shift by one place along axis k of a row's shape. So
⟨rest, x⟩ = ⟨q, Hᵀx⟩, and Hᵀx are differences of neighbours along every axis: of natural images a small part of x in norm. Rounded at
random, q_j has mean 0 whatever the errors before it were and lies in an interval of one unit, so that Azuma's and Hoeffding's inequality
holds: |⟨rest, x⟩| goes beyond s·unit·‖Hᵀx‖ with a probability of 2e^(−2s²).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scorescope.empirical.chance import CERTAIN, lots
from scorescope.empirical.digits import compiled
from scorescope.empirical.digits.family import Family, Grain, States, norms_of
from scorescope.empirical.digits.shelf import Shelf
from scorescope.rows import Bank

PARTS = 8  # of a whole, that a_k is a number of: Hᵀ of digits is then exact in float32
AXES = 4  # of a row's shape at most, for the same reason
SAMPLED = 1 << 21  # values of the rows that tell how alike neighbours are
PLAIN = 0.5  # share of the rows' norm beyond which differences are no gain
VALUES = 1 << 19  # values of one step: what the caches hold


class Shaping:
    """How the errors of states are shaped for the rows of a shelf.

    Attributes:
        factors: a_k of each axis.
        texture: (n,) float64 bound on ‖Hᵀx‖ of one's own rows x, in the order of the bank, and of their mirror images.
        most: The largest texture of all rows.
        worth: Whether it is much less than the rows' norm.
    """

    def __init__(self, shelf: Shelf) -> None:
        self.shelf, self.shape = shelf, shelf.bank.shape
        every = max(1, len(shelf.own) * shelf.bank.d // SAMPLED)
        none = torch.empty(0, shelf.bank.d, dtype=torch.int8, device=shelf.device)
        sample = torch.cat([none, *(rows.q[::every] for rows in shelf.rows(None))]).float().view(-1, *self.shape)
        self.factors = [0.0] * len(self.shape)
        for axis in reversed(range(len(self.shape))):
            here, after = (sample.narrow(1 + axis, begin, self.shape[axis] - 1).double() for begin in (0, 1))
            alike, size = shelf.ranks.total(torch.stack([(here * after).sum(), after.square().sum()])).tolist()
            self.factors[axis] = min(max(round(PARTS * alike / max(size, 1.0)), 0), PARTS) / PARTS
            sample = self._difference(sample, axis)
        self.texture = torch.empty(len(shelf.own), dtype=torch.float64, device=shelf.device)
        norms = torch.zeros(2, dtype=torch.float64, device=shelf.device)
        for rows in shelf.rows(None, max(1, VALUES // shelf.bank.d)):
            x = rows.q.float().view(-1, *self.shape)
            size = self._size(x)
            size = torch.maximum(size, self._size(x.flip(-1))) if shelf.bank.flips else size
            self.texture[rows.index - shelf.own.start] = size
            norms += torch.stack([size.square().sum(), rows.square.sum()])
        norms = shelf.ranks.total(norms)
        self.worth = bool(norms[0] <= PLAIN**2 * norms[1])
        self.most = float(shelf.ranks.largest(self.texture.max() if len(self.texture) else self.texture.new_zeros(())))
        # One rounding error is handed on by so much to the place whose axes in `bits` are one further each.
        subsets = [bits for bits in range(1, 1 << len(self.shape)) if all(self.factors[k] for k in self._axes(bits))]
        strides = [math.prod(self.shape[k + 1 :]) for k in range(len(self.shape))]
        self.bits = torch.tensor(subsets, dtype=torch.int64)
        self.back = torch.tensor([sum(strides[k] for k in self._axes(bits)) for bits in subsets], dtype=torch.int64)
        self.share = torch.tensor([math.prod(-self.factors[k] for k in self._axes(bits)) for bits in subsets], dtype=torch.float64)
        # Along which axes a place has one before it.
        place = torch.arange(shelf.bank.d)
        before = [(place // strides[k] % n > 0).long() << k for k, n in enumerate(self.shape)]
        self.inside = torch.stack(before).sum(0)

    def _axes(self, bits: int) -> list[int]:
        return [k for k in range(len(self.shape)) if bits >> k & 1]

    def _difference(self, x: Tensor, axis: int) -> Tensor:
        """Differences x − a·(x of the next place) along an axis, in units of 1/PARTS: whole numbers stay whole."""
        found, count = PARTS * x, self.shape[axis] - 1
        part = found.narrow(1 + axis, 0, count)
        part.sub_(x.narrow(1 + axis, 1, count), alpha=PARTS * self.factors[axis])
        return found

    def _size(self, x: Tensor) -> Tensor:
        """(n,) ‖Hᵀx‖ of digits x (n, *shape), never too small."""
        used = [axis for axis in range(len(self.shape)) if self.factors[axis]]
        for axis in used:
            x = self._difference(x, axis)
        flat = x.flatten(1)
        return torch.linalg.vector_norm(flat, dim=1).double() * ((1 + flat.shape[1] * 2.0**-23) * self.shelf.step / PARTS ** len(used))

    def states(self, states: States) -> tuple[Family, Tensor]:
        """States (B, 1, d) as groups of one with one plane of digits (B, 1, d) int8, whose errors are shaped."""
        centred = states.centred[:, 0]
        room = 126.0 - float(self.share.abs().sum())
        unit = (centred.abs().amax(1) / room).clamp(min=torch.finfo(torch.float64).tiny)
        lot = lots(torch.arange(states.d)).double()
        digits, left = compiled.shape(centred, unit, lot, self.bits, self.back, self.share, self.inside)
        stack = digits[:, None]
        certain = ((CERTAIN + math.log(2 * self.shelf.count)) / 2) ** 0.5 * (1 + 1e-9)
        grain = Grain(certain * unit[:, None], self.texture, self.most)
        left = left[:, None]
        place = torch.arange(len(stack))
        return Family(states, norms_of(stack), unit[:, None, None], left, place, left, grain), stack


def suits(bank: Bank) -> bool:
    """Whether states may be shaped for rows of this shape, whose values have neighbours."""
    return len(bank.shape) <= AXES and max(bank.shape) > 1
