"""The rows of a shelf along few axes: where a state lies close to one row, a quarter of the axes tells that hardly any other matters.

The axes are orthonormal: of a cosine transform along every axis of a row's shape, the quarter in which the rows have most of their energy
(of natural images, all but one part in a hundred), mixed among each other so that one step suits all. A row is x = x̂ + (what is left),
x̂ = step·Σ_k q_k axis_k with digits q, and what is left is known in norm: ‖x − x̂‖² = ‖x‖² − 2⟨x, x̂⟩ + ‖x̂‖².
Then |⟨z, x⟩ − step·⟨projection of z, q⟩| ≤ ‖z‖·‖x − x̂‖ by Cauchy–Schwarz. Axes are even or odd under mirroring and are mixed with their
like, so that the digits of a mirrored state are those of the state, some with their sign turned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from scorescope.empirical.axes import cosines
from scorescope.empirical.chance import uniform
from scorescope.empirical.digits import compiled
from scorescope.empirical.digits.family import States, alone
from scorescope.empirical.digits.nominate import error_of
from scorescope.empirical.digits.products import Products
from scorescope.empirical.digits.shelf import Rows, Shelf
from scorescope.empirical.partial import LAST
from scorescope.empirical.ranks import Ranks
from scorescope.empirical.settle import squares
from scorescope.rows import Bank
from scorescope.search.products import U32, Workspace
from scorescope.search.quantize import OUTWARD

SHARE = 4  # of the axes, one in so many
LEAST = 1024  # dimensions below which all axes are as fast
LONGEST = 512  # axis of a row's shape that is transformed
SAMPLED = 1 << 22  # values of the rows that tell where the energy is
PLAIN = 0.2  # share of the rows' norm beyond which what is left is too much
STEPS = 24  # steps that are tried
VALUES = 1 << 21  # float64 values of one step


def suits(bank: Bank) -> bool:
    """Whether rows of this shape may be told apart along few axes, which takes a transform that is soon made."""
    return bank.d >= LEAST and len(bank.shape) > 1 < bank.shape[-1] and max(bank.shape) <= LONGEST


class Coarse:
    """Projections of the rows of a shelf, in digits; to `Products` and `error_of` a shelf whose digits are not the rows.

    Attributes:
        q: (n, K) int8 digits of one's own rows, in the order in which the shelf keeps them.
        lost: (n,) float64 ‖x − x̂‖, never too small.
        step: The unit of the digits.
        reach: The largest norm of all rows.
        rounded: The largest ‖x − x̂‖ of all rows.
        worth: Whether the axes hold enough of the rows.
    """

    exact = False

    def __init__(self, shelf: Shelf) -> None:
        self.shelf, self.bank, self.count, self.reach, self.device = shelf, shelf.bank, shelf.count, shelf.reach, shelf.device
        self.transforms = [cosines(n, self.device) for n in self.bank.shape]
        every = max(1, len(shelf.own) * self.bank.d // SAMPLED)
        none = torch.empty(0, self.bank.d, dtype=torch.int8, device=self.device)
        sample = self._transformed(torch.cat([none, *(rows.q[::every] for rows in shelf.rows(None))]).float())
        energy, odd = shelf.ranks.total(sample.double().square().sum(0)), torch.arange(self.bank.d, device=self.device)
        odd, half = odd % self.bank.shape[-1] % 2 == 1, self.bank.d // SHARE // 2
        kinds = (energy.masked_fill(kind, -1.0) for kind in (odd, ~odd))
        self.chosen = torch.stack([kind.argsort(descending=True)[:half] for kind in kinds])
        first = next(n for n in range(math.isqrt(half), 0, -1) if half % n == 0)
        self.mixing = cosines(first, self.device), cosines(half // first, self.device)
        signs = torch.where(uniform(0, torch.arange(half, device=self.device)) < 0.5, -1.0, 1.0)
        self.signs = signs.view(first, half // first).double()
        self.step = self._best_step(self._mixed(sample) * shelf.step)
        self.q = torch.empty(len(shelf.own), 2 * half, dtype=torch.int8, device=self.device)
        self.lost = torch.empty(len(shelf.own), dtype=torch.float64, device=self.device)
        # A product of float32 matrices of n terms is off by no more than n·2⁻²⁴ times that of their magnitudes, whose norm is √n at most.
        off = 2.0**-22 + 1.01 * 2.0**-24 * sum(n**1.5 for n in (*self.bank.shape, first, half // first))
        begin, norms = 0, torch.zeros(2, dtype=torch.float64, device=self.device)
        for rows in shelf.rows(None, max(1, VALUES // self.bank.d)):
            part = slice(begin, begin + len(rows.q))
            begin = part.stop
            y = self.project(rows.q.float()).mul_(shelf.step / self.step)
            self.q[part] = y.round().clamp_(-127, 127)
            seen, y = self.q[part].double().mul_(self.step), y.double().mul_(self.step)
            kept, square = torch.linalg.vecdot(seen, seen), (rows.square.sqrt() + shelf.rounded).square()
            # ‖x − x̂‖² = ‖x‖² − 2⟨y, x̂⟩ + ‖x̂‖², with the y that float32 knows.
            left = square - 2 * torch.linalg.vecdot(y, seen) + kept + 2 * off * (square * kept).sqrt() + 1e-12 * square
            self.lost[part] = left.clamp(min=0).sqrt() * OUTWARD + shelf.rounded
            norms += torch.stack([self.lost[part].square().sum(), square.sum()])
        norms = shelf.ranks.total(norms)
        self.worth = bool(norms[0] <= PLAIN**2 * norms[1])
        self.rounded = float(shelf.ranks.largest(self.lost.max() if begin else self.lost.new_zeros(())))

    def _best_step(self, y: Tensor) -> float:
        """The step that loses least of the projections (n, K) of some rows."""
        most = self.shelf.ranks.largest(y.abs().amax() if len(y) else y.new_zeros(()))
        steps = most / 127 * torch.linspace(1 / STEPS, 1, STEPS, device=self.device)
        lost = torch.stack([(y - step * (y / step).round_().clamp_(-127, 127)).square().sum() for step in steps])
        return float(steps[self.shelf.ranks.total(lost.double()).argmin()].clamp(min=1e-30))

    def _transformed(self, x: Tensor) -> Tensor:
        """The cosine transform of vectors (n, d)."""
        width = self.bank.d
        for n, transform in zip(self.bank.shape, self.transforms, strict=True):
            width //= n
            transform = transform.to(x.dtype)
            x = x.view(-1, n) @ transform.T if width == 1 else transform @ x.view(-1, n, width)
        return x.view(-1, self.bank.d)

    def _mixed(self, transformed: Tensor) -> Tensor:
        """The chosen of transformed vectors (n, d), in two halves, each mixed so that every axis has a like part of every other."""
        first, second = (mixing.to(transformed.dtype) for mixing in self.mixing)
        found = transformed[:, self.chosen.flatten()].view(-1, 2, *self.signs.shape) * self.signs.to(transformed.dtype)
        return (first @ (found @ second.T)).flatten(1)

    def project(self, x: Tensor) -> Tensor:
        """Projections (n, K) of vectors (n, d)."""
        return self._mixed(self._transformed(x))

    def mirror(self, y: Tensor) -> Tensor:
        """Projections, or digits, of mirrored vectors."""
        even = self.chosen.shape[1]
        return torch.cat([y[..., :even], -y[..., even:]], -1)

    def kept(self, label: int | None) -> slice:
        """As the shelf's."""
        return self.shelf.kept(label)

    def rows(self, label: int | None, most: int | None = None) -> Iterator[Rows]:
        """One's own rows of one class, or all, in the blocks of the shelf."""
        begin = self.kept(label).start
        for rows in self.shelf.rows(label, most):
            part = slice(begin, begin + len(rows.q))
            begin = part.stop
            yield Rows(self.q[part], rows.square, rows.index)

    def lost_of(self, rows: Rows) -> Tensor:
        """(n,) float32 ‖x − x̂‖ of some rows, never too small."""
        return self.lost[self.shelf.found(rows.index)[0]].float() * (1 + 1e-6)


def matter(
    states: States, coarse: Coarse, label: int | None, margin: float, ranks: Ranks, few: int, workspace: Workspace
) -> tuple[Tensor, ...]:
    """The rows that can matter to states (B, 1, d), σ > 0: (state, row) pairs, and for which states (B,) they are more than `few`.

    Those whose logit is within `margin` of the largest, and those that may be nearer to the shell than the row that has the largest. The
    row that is the best by its projection is asked exactly; by it all others are judged.
    """
    family, digits = alone(states, seen=coarse.project(states.centred[:, 0]))
    products = Products(coarse, digits, label, coarse.shelf.memory // 8, workspace)
    slope, curve, norm = (value[:, 0] for value in (states.slope, states.curve, states.norm))
    scale = slope * family.coefficients[:, 0, 0] * coarse.step
    columns = torch.stack([scale, -0.5 * curve, slope * (norm + family.rest[:, 0]) * (1 + 1e-5)], 1).float()
    best = torch.full((len(norm),), -torch.inf, dtype=torch.float32, device=norm.device)
    top = torch.full((len(norm),), LAST, dtype=torch.int64, device=norm.device)
    for tile in products:
        compiled.highest(columns, tile.exact[:, 0], tile.rows.square.float(), tile.index, best, top)
    closest = torch.full_like(norm, torch.inf)
    seen = (top < LAST).nonzero().flatten()
    closest[seen] = squares(states.single, coarse.shelf, seen, top[seen])
    closest = ranks.smallest(closest) * (1 + 1e-12)
    # ‖z − αx‖² may be so large, in units of σ²: by the margin, or as far above d as the best row's is from it.
    off = (closest.sqrt() / states.sigma[:, 0] - states.d**0.5).abs()
    furthest = torch.maximum(states.precision[:, 0] * closest + 2 * margin, (states.d**0.5 + off) ** 2)
    floor = 0.5 * (states.precision[:, 0] * norm**2 - furthest)
    floor = (floor - error_of(family, coarse, U32)[:, 0] - 2.0**-20 * floor.abs()).float()
    row, used = torch.empty(len(norm), few, dtype=torch.int64, device=norm.device), torch.zeros_like(top)
    for tile in products:
        known = tile.rows.square.float(), coarse.lost_of(tile.rows)
        compiled.above(columns, tile.exact[:, 0], known, tile.index, floor, row, used)
    left = ranks.total(used) > few
    listed = (torch.arange(few, device=norm.device) < used[:, None]) & ~left[:, None]
    state, place = listed.nonzero(as_tuple=True)
    return state, row[state, place], left
