"""A bank of the size and the looks of ImageNet's latents, made of noise: 1,281,167 × (4, 32, 32) float16 with flips, 1,000 classes.

    python benchmarks/imagenet_latents.py --out latents.bank                    10.5 GB, four minutes on one core
    python benchmarks/imagenet_latents.py --out small.bank --rows 10000

Rows are those of `scorescope.bench.synthetic`, sorted by class, as a folder of class folders is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from scorescope.bench.synthetic import batches
from scorescope.progress import Board
from scorescope.rows import Bank
from scorescope.rows.storage import Meaning, Source, write_bank

ROWS, CLASSES, SHAPE = 1_281_167, 1000, (4, 32, 32)


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
        batches=lambda: batches(asked.rows, SHAPE, labels, asked.seed),
        labels=labels,
        transform=("synthetic: Gaussian fields with a natural-image spectrum",),
    )
    with Board() as board, board.row("rows", asked.rows) as row:
        write_bank(source, asked.out, Meaning(flips=True), progress=lambda stage, done, total: row(done - row.done))
    bank = Bank.open(asked.out)
    print(f"{asked.out}: {bank}, radius {bank.radius:.2f}, fingerprint {bank.fingerprint[:12]}")


if __name__ == "__main__":
    main()
