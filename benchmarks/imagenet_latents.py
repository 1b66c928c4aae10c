"""A bank of the size and the looks of ImageNet's latents, made of noise: 1,281,167 × (4, 32, 32) float16 with flips, 1,000 classes.

    python benchmarks/imagenet_latents.py --out latents.bank                    10.5 GB, four minutes on one core
    python benchmarks/imagenet_latents.py --out small.bank --rows 10000

Row i is μ_class + c_i f_i. The field f_i is Gaussian with power ∝ 1/(1 + f²), as that of natural images falls, its channels mixed as
those of a latent are; the class mean μ is such a field of a third the size; the contrast c_i is log-normal, so that norms vary as much
as those of photographs. Rows are sorted by class, as a folder of class folders is. The noise of f_i and c_i is drawn from (seed, i)
alone, that of μ from (seed, class).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import fft

from scorescope import seeds
from scorescope.progress import Board
from scorescope.rows import Bank
from scorescope.rows.storage import Meaning, Source, write_bank

ROWS, CLASSES, SHAPE = 1_281_167, 1000, (4, 32, 32)
BATCH = 512
CLASS_SPREAD, CONTRAST_SPREAD = 0.35, 0.4
MIXING = np.linalg.cholesky(0.75 * np.eye(4) + 0.25 * np.ones((4, 4))).astype(np.float32)


def amplitude() -> np.ndarray:
    """What white noise is multiplied by in frequency space (32, 17) so that it gets the spectrum, and variance one."""
    up, across = fft.fftfreq(SHAPE[1], 1 / SHAPE[1])[:, None], fft.rfftfreq(SHAPE[2], 1 / SHAPE[2])[None]
    shaped = (1 + up**2 + across**2) ** -0.5
    both_sides = np.where((across == 0) | (across == SHAPE[2] // 2), 1, 2)
    return (shaped / np.sqrt((both_sides * shaped**2).sum() / np.prod(SHAPE[1:]))).astype(np.float32)


def fields(white: np.ndarray, shaped: np.ndarray) -> np.ndarray:
    """Gaussian fields (B, 4, 32, 32) float32 of white noise (B, 4, 32, 32)."""
    smooth = fft.irfft2(fft.rfft2(white) * shaped, s=SHAPE[1:])
    return (MIXING @ smooth.reshape(len(white), SHAPE[0], -1)).reshape(white.shape)


def batches(rows: int, labels: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """All rows in order, a batch at a time, in float16."""
    shaped = amplitude()
    centres = CLASS_SPREAD * fields(seeds.normal(seed, "latent class", range(CLASSES), SHAPE).numpy(), shaped)
    for start in range(0, rows, BATCH):
        items = range(start, min(start + BATCH, rows))
        drawn = seeds.normal(seed, "latent", items, (math.prod(SHAPE) + 1,)).numpy()
        contrast = np.exp(CONTRAST_SPREAD * drawn[:, -1] - CONTRAST_SPREAD**2)  # of mean square one
        field = fields(drawn[:, :-1].reshape(-1, *SHAPE), shaped)
        yield (centres[labels[items.start : items.stop]] + contrast[:, None, None, None] * field).astype(np.float16)


def main() -> None:
    """Make the bank that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the bank to make")
    parser.add_argument("--rows", type=int, default=ROWS, help="how many rows")
    parser.add_argument("--seed", type=int, default=0, help="of the noise")
    asked = parser.parse_args()
    if asked.rows < 1:
        parser.error("--rows takes a number from 1")
    labels = np.arange(asked.rows) * CLASSES // asked.rows
    source = Source(
        where=f"benchmarks/imagenet_latents.py --rows {asked.rows} --seed {asked.seed}",
        shape=(asked.rows, *SHAPE),
        dtype=np.dtype(np.float16),
        batches=lambda: batches(asked.rows, labels, asked.seed),
        labels=labels,
        transform=("synthetic: Gaussian fields with a natural-image spectrum",),
    )
    with Board() as board, board.row("rows", asked.rows) as row:
        write_bank(source, asked.out, Meaning(flips=True), progress=lambda stage, done, total: row(done - row.done))
    bank = Bank.open(asked.out)
    print(f"{asked.out}: {bank}, radius {bank.radius:.2f}, fingerprint {bank.fingerprint[:12]}")


if __name__ == "__main__":
    main()
