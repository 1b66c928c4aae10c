"""Lower bounds on the squared distances of points to the rows of a block, by products.

⟨x, mirror(y)⟩ = ⟨mirror(x), y⟩, and centres are their own mirror images, so mirrored rows are never made.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scorescope.rows.bank import Bank
from scorescope.search.products import U32, U64, integer_products, integer_squares
from scorescope.search.quantize import BASE, Quantizer, centre_of, planes


class Bounds(Protocol):
    """No row is nearer to point i than √bound − slack_i, with bound from `squares` (0 where it is negative)."""

    slack: Tensor

    def load(self, stored: np.ndarray) -> None:
        """Take the stored rows (n, *shape) of a block."""

    def squares(self, part: slice, mirrored: bool) -> Tensor:
        """Bounds (b, n) float64 for some of the points and the rows of the block, or the rows' mirror images."""


def bounds_for(bank: Bank, flat: Tensor) -> Bounds:
    """The tightest kind that the bank's storage allows, for points (B, d) float64."""
    return (IntegerBounds if bank.rows.dtype == np.uint8 else FloatBounds)(bank, flat)


class IntegerBounds:
    """Rows stored in 8 bits, points rounded to two digit planes: exact integer products."""

    def __init__(self, bank: Bank, flat: Tensor) -> None:
        self.quantizer = Quantizer.of(bank, flat.device)
        centred, step = flat - self.quantizer.centre, self.quantizer.step
        wider = (centred.abs().amax(1) / (127 * step)).clamp(min=1)  # steps of the rows that a step of the point takes
        digits, residual = planes(centred, (step * wider)[:, None], 2)
        self.sides = [digits.transpose(0, 1)]
        if bank.flips:
            self.sides.append(self.sides[0].reshape(len(flat), 2, *bank.shape).flip(-1).reshape(len(flat), 2, bank.d))
        self.slack = residual.norm(dim=1) + self.quantizer.bound + 8 * U64 * (flat.norm(dim=1) + self.quantizer.centre.norm())
        # Bounds are sums of terms, each at most the sum of both squares, that are rounded a few times, and once more for each column.
        self.keep = step**2 * (1 - (bank.d + 32) * U64)
        self.square = self.keep * wider**2 * digits[0].double().add_(digits[1], alpha=1 / BASE).square().sum(1)
        self.slope = -2 * step**2 * wider

    def load(self, stored: np.ndarray) -> None:
        """As integers."""
        self.q = self.quantizer.q(stored)
        self.row_square = self.keep * integer_squares(self.q).double()

    def squares(self, part: slice, mirrored: bool) -> Tensor:
        """From the products with both planes."""
        digits = self.sides[mirrored][part]
        both = integer_products(digits.transpose(0, 1).flatten(0, 1), self.q)
        total = both[: len(digits)].double().add_(both[len(digits) :], alpha=1 / BASE)
        return total.mul_(self.slope[part, None]).add_(self.row_square).add_(self.square[part, None])


class FloatBounds:
    """float32 products of the directions of rows and points from the centre; their error is below (d + 8)·2⁻²⁴ for any order of summation.

    Directions have norm 1, so that no product overflows or loses its digits near zero, however large or small the rows are.
    """

    def __init__(self, bank: Bank, flat: Tensor) -> None:
        self.bank, self.centre = bank, centre_of(bank, flat.device)
        self.norm, direction = _direction(flat - self.centre)
        self.sides = [direction] + ([direction.reshape(-1, *bank.shape).flip(-1).flatten(1)] if bank.flips else [])
        terms = (bank.d + 8) * U32
        self.relative = terms / (1 - terms)
        self.square = self.norm**2 * (1 - (bank.d + 32) * U64)
        self.slack = 8 * U64 * (flat.norm(dim=1) + self.centre.norm())

    def load(self, stored: np.ndarray) -> None:
        """As norms and directions."""
        x = torch.from_numpy(self.bank.decode(stored).reshape(len(stored), -1)).to(self.centre.device)
        norms, directions = zip(*(_direction(some.double() - self.centre) for some in x.split(64)), strict=True)
        self.row_norm, self.x = torch.cat(norms), torch.cat(directions)
        self.row_square = self.row_norm**2 * (1 - (self.bank.d + 32) * U64)

    def squares(self, part: slice, mirrored: bool) -> Tensor:
        """‖x‖² − 2⟨x, y⟩ + ‖y‖², with as large a product as there can be."""
        total = (self.sides[mirrored][part] @ self.x.T).double().add_(self.relative).mul_(-2 * self.norm[part, None]).mul_(self.row_norm)
        return total.add_(self.row_square).add_(self.square[part, None])


def _direction(x: Tensor) -> tuple[Tensor, Tensor]:
    """Norms (n,) float64 of x (n, d), and x divided by them in float32."""
    norm = x.norm(dim=1)
    return norm, x.div_(norm.clamp(min=torch.finfo(torch.float64).tiny)[:, None]).float()
