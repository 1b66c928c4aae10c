"""Rows as 8-bit integers on a uniform grid, with a proven bound on what that leaves out.

x = centre + scale·(code + rest), so that | ‖x − y‖ − scale·‖code_x − code_y‖ | ≤ slack_x + slack_y with slack = scale·‖rest‖.
Rows that are stored in 8 bits lie on the grid: their codes are the stored numbers minus 128.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scorescope.rows.bank import Bank
from scorescope.search.products import U32, U64, integer_squares

SAMPLE = 256  # rows that place the grid of a bank of floats
ROWS = 128  # rows of floats that are rounded at a time


@dataclass(frozen=True)
class Codes:
    """Integers `code` (n, d) int8 of some rows, their squared norms, and how far a row can be from its own, in model space."""

    code: Tensor
    square: Tensor
    slack: float


@dataclass(frozen=True)
class Grid:
    """The points centre + scale·code of model space; `centre` (d,) float64 is its own mirror image where the bank has flips."""

    bank: Bank
    centre: Tensor
    scale: float

    @staticmethod
    def of(bank: Bank, device: torch.device) -> Grid:
        """The grid of stored 8-bit rows; for floats one that fits rows drawn evenly, beyond which codes saturate."""
        if stored_in_8_bits(bank):
            scale = (bank.high - bank.low) / 255
            return Grid(bank, torch.full((bank.d,), bank.low + 128 * scale, dtype=torch.float64, device=device), scale)
        centre, drawn = centred_sample(bank, SAMPLE, device)
        widest = float(drawn.abs().max())
        # Clipping the few largest values may leave less out than a coarse grid for all.
        scales = [widest / 127 / 2 ** (k / 2) for k in range(12)] if widest > 0 else [1.0]
        return Grid(bank, centre, min(scales, key=lambda scale: scale * float((drawn / scale - _nearest(drawn / scale)).norm())))

    def codes(self, stored: np.ndarray) -> Codes:
        """The codes of stored rows (n, *shape)."""
        device = self.centre.device
        if stored_in_8_bits(self.bank):
            code = torch.from_numpy(stored.reshape(len(stored), -1) ^ np.uint8(0x80)).view(torch.int8).to(device)
            return Codes(code, integer_squares(code), self.off_grid)
        x = torch.from_numpy(stored.reshape(len(stored), -1)).to(device)
        code, off = torch.empty(x.shape, dtype=torch.int8, device=device), 0.0
        for part, found in zip(x.split(ROWS), code.split(ROWS), strict=True):
            away = part.float().sub_(self.centre.float())
            ratio = away / self.scale
            found.copy_(_nearest(ratio))
            # Norms of float32 vectors are off by a factor below 1 + (d + 8)·U32, x and its quotient by 4·U32·‖x‖ together.
            rest = self.scale * (ratio - found).norm(dim=1).double() + 4 * U32 * away.norm(dim=1).double()
            off = max(off, float(rest.max()) * (1 + (self.bank.d + 8) * U32))
        return Codes(code, integer_squares(code), off)

    def mirror(self, codes: Codes) -> Codes:
        """The codes of the same rows mirrored along their last axis."""
        return Codes(codes.code.reshape(-1, *self.bank.shape).flip(-1).reshape(codes.code.shape), codes.square, codes.slack)

    @property
    def off_grid(self) -> float:
        """How far a stored 8-bit row can be from its code: model space is float32."""
        return 2 * U32 * max(abs(self.bank.low), abs(self.bank.high)) * self.bank.d**0.5

    def digits(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Points (B, d) float64 as centre + scale·unit·(high + low/256 + rest): high and low (B, d) int8, unit (B,), slack (B,)."""
        away = (x - self.centre) / self.scale
        unit = (away.abs().amax(1) / 127).clamp(min=1)
        ratio = away / unit[:, None]
        high = ratio.round()
        low = ((ratio - high) * 256).round().clamp(-128, 127)
        rest = ratio - high - low / 256
        entering = 8 * U64 * (x.norm(dim=1) + self.centre.norm())
        return high.to(torch.int8), low.to(torch.int8), unit, self.scale * unit * rest.norm(dim=1) + entering


def _nearest(ratio: Tensor) -> Tensor:
    return ratio.clamp(-127, 127).round_()


def stored_in_8_bits(bank: Bank) -> bool:
    """Whether the rows lie on a grid of 256 steps."""
    return bool(bank.rows.dtype == np.uint8 and bank.high > bank.low)


def centred_sample(bank: Bank, n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """A centre (d,) float64, exact in float32, and rows drawn evenly relative to it (n, d) float32, with mirror images if there are any."""
    x = bank[np.unique(np.linspace(0, len(bank.rows) - 1, n).astype(np.int64))].to(device)
    centre = x.double().mean(0)
    if bank.flips:
        x, centre = torch.cat([x, x.flip(-1)]), (centre + centre.flip(-1)) / 2
    centre = centre.float().flatten()
    return centre.double(), x.flatten(1) - centre
