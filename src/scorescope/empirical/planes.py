"""Vectors and rows as planes of 8-bit integers, whose products are exact; what planes leave out is known by its norm.

    v = unit·(q_0 + q_1/254 + q_2/254² + …) + rest      q_k int8; half a unit of one plane is 127 of the next

A vector has its own unit, its largest value is 127 of it. The rows of a bank share one, around a `base`: rows on a grid of 256 values,
as pictures are whether stored as bytes or as floats, are one plane that leaves nothing but rounding. Of K planes, products of planes a
and b with a + b < K are made; those with the same a + b are one number. What is left of ⟨v, x − base⟩ is, by Cauchy–Schwarz, at most

    Σ_a ‖v_a‖·(what K − a planes leave of the rows) + ‖rest‖·‖x − base‖
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorescope.empirical.integers import integer_products
from scorescope.empirical.products import Known, Products
from scorescope.empirical.shelf import OUTWARD, Block, Shelf
from scorescope.search.products import U32, U64

BASE = 254.0
MOST = 4  # planes: beyond, float64 products are as soon made
STEPS, ON_GRID = 255, 1e-3  # of a grid, and what of a step values on it may be off
TOGETHER = 256  # planes of vectors whose products the caches of a processor hold
PIECE = 1 << 18  # values that are made integers at a time: every step of that reads them from the nearest cache
SAMPLED = 1 << 20  # values that tell whether there is one


def split(x: Tensor, unit: Tensor, count: int) -> tuple[list[Tensor], list[Tensor]]:
    """`count` planes (n, d) int8 of x (n, d) float64 in units (n, 1), and the norms (n,) of what 0, 1, …, `count` planes leave of it."""
    rest, planes = x / unit, list[Tensor]()
    left = [torch.linalg.vector_norm(x, dim=1)]
    for k in range(count):
        whole = rest.round().clamp_(-128, 127)
        planes.append(whole.to(torch.int8))
        rest.sub_(whole)
        left.append(torch.linalg.vector_norm(rest, dim=1) * (unit[:, 0] * OUTWARD * BASE**-k))
        rest.mul_(BASE)
    # Dividing by the unit was rounded, and so were multiplying by the base and what the caller subtracted.
    return planes, [left[0] * OUTWARD, *(some + 2.0**-51 * left[0] for some in left[1:])]


@dataclass(frozen=True)
class Rows:
    """One's own rows, in the order in which the shelf keeps them.

    Attributes:
        base: (d,) float64, relative to the shelf's centre.
        unit: Of the first plane.
        planes: (n, d) int8 each.
        left: Largest norm of what 0, 1, … planes leave of any row − base, of all processes.
    """

    base: Tensor
    unit: float
    planes: list[Tensor]
    left: list[float]

    @staticmethod
    def of(shelf: Shelf, most: int) -> Rows:
        """On their grid, if they have one, else in `most` planes around their mean."""
        grid = _grid(shelf)
        found = None if grid is None else Rows._split(shelf, *grid, 1)
        # A few values may lie beside a grid that all others share.
        lost = torch.tensor(found is None or found.left[1] > ON_GRID * found.unit * shelf.bank.d**0.5, device=shelf.device)
        if found is None or bool(shelf.ranks.any(lost)):
            base = shelf.bank.mean.flatten().double().to(shelf.device) - shelf.centre
            ends = [end - base for block in shelf.blocks(None) for end in torch.aminmax(shelf.single(block), dim=0)]
            widest = max((float(end.abs().amax()) for end in ends), default=0.0)
            # The same in all processes, so that equal rows have equal planes.
            widest = float(shelf.ranks.largest(torch.tensor(widest, dtype=torch.float64, device=shelf.device)))
            found = Rows._split(shelf, base, widest / 127 or 1.0, most)
        left = shelf.ranks.largest(torch.tensor(found.left, dtype=torch.float64, device=shelf.device))
        return Rows(found.base, found.unit, found.planes, left.tolist())

    @staticmethod
    def _split(shelf: Shelf, base: Tensor, unit: float, count: int) -> Rows:
        shape, left = (len(shelf.own), shelf.bank.d), torch.zeros(count + 1, dtype=torch.float64, device=shelf.device)
        kept = [torch.empty(shape, dtype=torch.int8, device=shelf.device) for _ in range(count)]
        for block in shelf.blocks(None):
            for part, x in shelf.doubles(block, PIECE):
                planes, norms = split(x - base, torch.full_like(base[:1, None], unit), count)
                left = torch.maximum(left, torch.stack([norm.amax() for norm in norms]))
                for own, plane in zip(kept, planes, strict=True):
                    own[block.part][part] = plane
        return Rows(base, unit, kept, left.tolist())

    def count(self, levels: Tensor) -> float:
        """Products of planes that so many `levels` (P, R) take; inf where there are not as many planes, and rows do not lie on a grid."""
        takes = [0.0, *(sum(min(n - a, len(self.planes)) for a in range(n)) for n in range(1, MOST + 1))]
        few = 1 < len(self.planes) < int(levels.max())
        return torch.inf if few else sum(n * each for n, each in zip(torch.bincount(levels.flatten()).tolist(), takes, strict=False))


def _grid(shelf: Shelf) -> tuple[Tensor, float] | None:
    """The middle and the step of a grid of 256 values on which a sample of the rows lies; of bytes, 128 is the middle."""
    rows, d = shelf.bank.rows, shelf.bank.d
    if rows.dtype == np.uint8:
        values = shelf.bank.decode(np.arange(STEPS + 1).astype(np.uint8)).astype(np.float64)
        low, step = float(values[0]), float(values[-1] - values[0]) / STEPS
    else:
        some = np.linspace(0, len(rows) - 1, max(1, min(len(rows), SAMPLED // d))).astype(np.int64)
        values = np.unique(shelf.bank.decode(shelf.bank.stored_at(some)).astype(np.float64))
        gaps = np.diff(values)
        gaps = gaps[gaps > 1e-6 * max(np.abs(values).max(initial=0.0), 1e-30)]
        if not len(gaps) or len(values) > 2 * (STEPS + 1):
            return None
        low, step = float(values[0]), float(gaps.min())
        step = float(values[-1] - low) / max(round(float(values[-1] - low) / step), 1)
    away = (values - low) / step
    if away.max() > STEPS + ON_GRID or np.abs(away - np.round(away)).max() > ON_GRID:
        return None
    middle = low + step * (128 if rows.dtype == np.uint8 else (round(float(away.max())) + 1) // 2)
    return torch.full((d,), middle, dtype=torch.float64, device=shelf.device) - shelf.centre, step


def enough(vectors: Tensor, allowed: Tensor, rows: Rows) -> Tensor:
    """(P, R) as how many planes the products of vectors (P, R, d) must be made to miss about as much as is `allowed` (P, R), or MOST."""
    left = [vectors.norm(dim=2), *(vectors.abs().amax(2) * ((vectors.shape[2] / 12) ** 0.5 / 127 * BASE**-k) for k in range(MOST - 1))]
    found = torch.full_like(allowed, MOST, dtype=torch.int64)
    for levels in reversed(range(1, MOST)):
        off = sum(some * rows.left[min(levels - a, len(rows.planes))] for a, some in enumerate(left[: levels + 1]))
        found[off <= allowed] = levels
    return found


class IntegerProducts(Products):
    """Products of as many planes as `levels` (P, R) says, added up to one number for each vector."""

    def __init__(self, vectors: Tensor, levels: Tensor, fine: bool, rows: Rows, shelf: Shelf, label: int | None, memory: int) -> None:
        flat, shape = vectors.flatten(0, 1), vectors.shape[:2]
        unit = flat.abs().amax(1, keepdim=True) / 127
        unit = torch.where(unit > 0, unit, 1.0)
        off, size, rest = (torch.zeros_like(unit[:, 0]) for _ in range(3))
        # Vectors that are multiplied together: which they are, and their L planes (L, m, d), mirrored or not.
        self.fine, self.rows, self._parts = fine, rows, list[tuple[Tensor | slice, list[Tensor]]]()
        for count in levels.unique().tolist():
            which = (levels.flatten() == count).nonzero().flatten()
            planes, left = split(flat[which], unit[which], count)
            rest[which], off[which] = left[count], left[count] * max(0.0, rows.left[0] - shelf.reach)  # of rows that lie far from the base
            size[which] = left[0] * rows.base.norm()
            for a in range(count):
                norm = left[a] + left[a + 1]  # of plane a, at most
                off[which] += norm * rows.left[min(count - a, len(rows.planes))]
                size[which] += norm * (rows.left[0] + 2 * sum(rows.left[1:]))
            for own in torch.arange(len(which), device=which.device).split(max(1, TOGETHER // count)):
                stack = torch.stack([plane[own] for plane in planes])
                place = which[own] if len(which) < len(flat) else slice(int(own[0]), int(own[-1]) + 1)
                self._parts.append((place, [shelf.mirror(stack) if mirrored else stack for mirrored in shelf.sides]))
        self.type = torch.float64 if fine else torch.float32
        off += 8 * (U64 if fine else U32) * size  # what levels are rounded by when they become one number
        known = Known((unit * rows.unit).view(*shape, 1), *(v.view(shape) for v in (flat @ rows.base, size, off, rest)))
        super().__init__(known, self.type.itemsize, shelf, label, memory)

    def _of(self, block: Block, mirrored: bool) -> Tensor:
        rows, room = [plane[block.part] for plane in self.rows.planes], self._room(block)[0]
        for place, sides in self._parts:
            found = self._added(sides[mirrored], rows)
            room[place] = found if isinstance(place, slice) else found.contiguous()
        return room

    def _added(self, vectors: Tensor, rows: list[Tensor]) -> Tensor:
        """Of some vectors (L, m, d) and planes of the rows (n, d) of a block: the levels of a product as one number (m, n)."""
        levels, m, _ = vectors.shape
        total = integer_products(vectors.flatten(0, 1), rows[0]).view(levels, m, -1)
        for b, plane in enumerate(rows[1:levels], 1):
            total[b:] += integer_products(vectors[: levels - b].flatten(0, 1), plane).view(levels - b, m, -1)
        one = total[-1].to(self.type)
        for level in reversed(range(levels - 1)):
            one = torch.add(total[level].to(self.type), one, alpha=1 / BASE)
        return one
