"""Lower bounds on the squared distances of points to the rows of a block, by products.

⟨x, mirror(y)⟩ = ⟨mirror(x), y⟩, and centres are their own mirror images, so mirrored rows are never made.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scorescope.rows.bank import Bank
from scorescope.search.codes import SAMPLE, Grid, centred_sample, stored_in_8_bits
from scorescope.search.products import U32, U64, integer_products


class Bounds(Protocol):
    """No row is nearer to point i than √bound − slack_i, with bound from `squares` (0 where it is negative)."""

    slack: Tensor

    def load(self, stored: np.ndarray) -> None:
        """Take the stored rows (n, *shape) of a block."""

    def squares(self, part: slice, mirrored: bool) -> Tensor:
        """Bounds (b, n) float64 for some of the points and the rows of the block, or the rows' mirror images."""


def bounds_for(bank: Bank, flat: Tensor) -> Bounds:
    """The tightest kind that the bank's storage allows, for points (B, d) float64."""
    return IntegerBounds(bank, flat) if stored_in_8_bits(bank) else FloatBounds(bank, flat)


class IntegerBounds:
    """Rows that are stored in 8 bits, points rounded to two digits of 8 bits: exact integer products."""

    def __init__(self, bank: Bank, flat: Tensor) -> None:
        self.grid = Grid.of(bank, flat.device)
        high, low, unit, slack = self.grid.digits(flat)
        self.sides = [torch.stack([high, low], 1)]
        if bank.flips:
            self.sides.append(self.sides[0].reshape(len(flat), 2, *bank.shape).flip(-1).reshape(len(flat), 2, bank.d))
        self.slack = slack + self.grid.off_grid
        # Bounds are sums of a few terms, each rounded a few times; every term is at most the sum of both squares.
        self.keep = self.grid.scale**2 * (1 - 32 * U64)
        self.square = self.keep * unit**2 * high.double().add_(low, alpha=1 / 256).square().sum(1)
        self.slope = -2 * self.grid.scale**2 * unit

    def load(self, stored: np.ndarray) -> None:
        """Their codes."""
        codes = self.grid.codes(stored)
        self.code, self.row_square = codes.code, self.keep * codes.square.double()

    def squares(self, part: slice, mirrored: bool) -> Tensor:
        """From the products with both digits."""
        digits = self.sides[mirrored][part]
        both = integer_products(digits.transpose(0, 1).flatten(0, 1), self.code)
        total = both[: len(digits)].double().add_(both[len(digits) :], alpha=1 / 256)
        return total.mul_(self.slope[part, None]).add_(self.row_square).add_(self.square[part, None])


class FloatBounds:
    """float32 products of centred rows and points, whose error Cauchy and Schwarz bound for any order of summation."""

    def __init__(self, bank: Bank, flat: Tensor) -> None:
        self.bank = bank
        self.centre = centred_sample(bank, SAMPLE, flat.device)[0]
        away = flat - self.centre
        self.norm = away.norm(dim=1)
        self.sides = [away.float()] + ([away.reshape(-1, *bank.shape).flip(-1).flatten(1).float()] if bank.flips else [])
        terms = (bank.d + 8) * U32
        self.relative = terms / (1 - terms)
        self.square = self.norm**2 * (1 - (bank.d + 32) * U64)
        self.slack = 8 * U64 * (flat.norm(dim=1) + self.centre.norm())

    def load(self, stored: np.ndarray) -> None:
        """Centred in float32, with norms from float64."""
        self.x = torch.from_numpy(self.bank.decode(stored).reshape(len(stored), -1)).to(self.centre.device)
        square = torch.cat([(part.double() - self.centre).square_().sum(1) for part in self.x.split(64)])
        self.x = self.x - self.centre.float()
        self.row_square, self.row_norm = square * (1 - (self.bank.d + 32) * U64), square.sqrt()

    def squares(self, part: slice, mirrored: bool) -> Tensor:
        """‖x‖² − 2⟨x, y⟩ + ‖y‖², less what the product can be off."""
        total = (self.sides[mirrored][part] @ self.x.T).double().mul_(-2).add_(self.row_square)
        return total.addr_(self.norm[part], self.row_norm, alpha=-2 * self.relative).add_(self.square[part, None])
