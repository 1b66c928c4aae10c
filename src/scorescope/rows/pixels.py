"""Rows as the images that they are, for networks that look at images: in [0, 1], three channels, rounded to 8 bits as a saved file is."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from scorescope.errors import InputError
from scorescope.rows.bank import Bank

RANGES = ((0.0, 1.0), (-1.0, 1.0))  # in which floats are known to be images
SLACK = 1e-3  # beyond them, for roundoff


def value_range(bank: Bank, remedy: str) -> tuple[float, float]:
    """Black and white of a bank of images: as it says for 8 bits; of floats [0, 1] or [−1, 1], the first that holds them all.

    Raises:
        InputError: Rows that are no images of 1 or 3 channels, or floats of another range; `remedy` is the hint.
    """
    if len(bank.shape) != 3 or bank.shape[0] not in (1, 3):
        raise InputError(f"an image network takes images of 1 or 3 channels; the rows of {bank.name} have shape {bank.shape}", remedy)
    if bank.rows.dtype == np.uint8:
        return bank.low, bank.high
    known = bank.manifest
    if "minimum" not in known:
        ends = [(float(block.x.min()), float(block.x.max())) for block in bank.blocks(4096, mirrored=False)]
        known = {"minimum": min(end[0] for end in ends), "maximum": max(end[1] for end in ends)}
    least, most = known["minimum"], known["maximum"]
    for low, high in RANGES:
        if low - SLACK <= least and most <= high + SLACK:
            return low, high
    raise InputError(f"the values of {bank.name} go from {least:.4g} to {most:.4g}; images of floats lie in [0, 1] or [−1, 1]", remedy)


def images(rows: Tensor, low: float, high: float) -> Tensor:
    """Rows (B, C, H, W) of model space as images (B, 3, H, W) in [0, 1], rounded to 8 bits; what lies outside is cut off, grey repeated."""
    unit = (255 * ((rows - low) / (high - low)).clamp(0, 1)).round() / 255
    return unit.expand(-1, 3, -1, -1)
