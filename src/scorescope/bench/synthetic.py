"""Banks of noise with the looks of real ones, made on the spot: `synthetic:latents` and others of `KINDS`, `synthetic:latents:5000` rows.

Row i is μ_class + c_i f_i. The field f_i is Gaussian with power ∝ 1/(1 + f²), as that of natural images falls, its channels mixed as
those of a latent are; the class mean μ is such a field of a third the size; the contrast c_i is log-normal, so that norms vary as much
as those of photographs. The noise of f_i and c_i is drawn from (seed, i) alone, that of μ from (seed, class).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy import fft

from scorescope import seeds
from scorescope.errors import InputError, unknown
from scorescope.rows import Bank

BATCH = 512
CLASS_SPREAD, CONTRAST_SPREAD = 0.35, 0.4
PREFIX = "synthetic:"
# Rows, shape, whether they are stored in 8 bits.
KINDS = {
    "latents": (50_000, (4, 32, 32), False),
    "photographs": (50_000, (3, 32, 32), True),
    "small": (5_000, (3, 32, 32), True),
    "wide": (5_000, (3, 64, 64), False),
    "huge": (500_000, (1, 28, 28), True),
}
CLASSES = 10


def amplitude(height: int, width: int) -> np.ndarray:
    """What white noise is multiplied by in frequency space (height, width // 2 + 1) so that it gets the spectrum, and variance one."""
    up, across = fft.fftfreq(height, 1 / height)[:, None], fft.rfftfreq(width, 1 / width)[None]
    shaped = (1 + up**2 + across**2) ** -0.5
    both_sides = np.where((across == 0) | (across == width / 2), 1, 2)
    return (shaped / np.sqrt((both_sides * shaped**2).sum() / (height * width))).astype(np.float32)


def fields(white: np.ndarray) -> np.ndarray:
    """Gaussian fields (B, C, H, W) float32 of white noise of that shape."""
    channels, height, width = white.shape[1:]
    mixing = np.linalg.cholesky(0.75 * np.eye(channels) + 0.25 * np.ones((channels, channels))).astype(np.float32)
    smooth = fft.irfft2(fft.rfft2(white) * amplitude(height, width), s=(height, width))
    return (mixing @ smooth.reshape(len(white), channels, -1)).reshape(white.shape)


def batches(rows: int, shape: tuple[int, ...], labels: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """All rows in order, a batch at a time, in float16; `labels` (rows,) are their classes."""
    centres = CLASS_SPREAD * fields(seeds.normal(seed, "latent class", range(int(labels.max()) + 1), shape).numpy())
    for start in range(0, rows, BATCH):
        items = range(start, min(start + BATCH, rows))
        drawn = seeds.normal(seed, "latent", items, (math.prod(shape) + 1,)).numpy()
        contrast = np.exp(CONTRAST_SPREAD * drawn[:, -1] - CONTRAST_SPREAD**2)  # of mean square one
        field = fields(drawn[:, :-1].reshape(-1, *shape))
        yield (centres[labels[items.start : items.stop]] + contrast[:, None, None, None] * field).astype(np.float16)


def looks(name: str) -> tuple[str, int, tuple[int, ...], str]:
    """Name, rows, shape of a row and stored type of the bank that `synthetic:KIND` or `synthetic:KIND:ROWS` names.

    Raises:
        InputError: No such kind, or no number of rows.
    """
    kind, _, count = name.removeprefix(PREFIX).partition(":")
    if kind not in KINDS:
        raise unknown("synthetic bank", kind, KINDS)
    rows, shape, bytes_ = KINDS[kind]
    if count and (not count.isdecimal() or int(count) < 1):
        raise InputError(f"{name}: {count!r} is no number of rows", f"{PREFIX}{kind}:5000")
    return f"synthetic {kind}", int(count or rows), shape, "uint8" if bytes_ else "float16"


def synthetic(name: str, seed: int = 0) -> Bank:
    """The bank of that name, in memory; raised is as by `looks`."""
    called, rows, shape, stored = looks(name)
    labels = np.arange(rows) * CLASSES // rows
    x = np.concatenate(list(batches(rows, shape, labels, seed)))
    if stored == "uint8":
        x = np.clip(128 + 40 * x.astype(np.float32), 0, 255).astype(np.uint8)
    return Bank.from_arrays(x, labels, name=called)
