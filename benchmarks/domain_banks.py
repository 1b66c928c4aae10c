"""Banks of spoken digits and of a text, for `scorescope reproduce domains`.

python benchmarks/domain_banks.py --audio spoken_digits.npz --text kjv.txt --out runs/banks
scorescope reproduce domains --banks runs/banks/*.bank

spoken_digits.npz: the Free Spoken Digit Dataset (Jakobovski, CC BY-SA 4.0) as `samples` (int16, end to end), `offsets` (N + 1,), `digit`
and `speaker` (N,), at 8 kHz. Any plain text will do; the King James Bible, which is in the public domain, is had on Debian by

apt-get install bible-kjv && bible -f gen1:1-rev22:21 | cut -d' ' -f2- > kjv.txt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from scorescope.experiments import domain_banks
from scorescope.rows import Bank


def main() -> None:
    """Write the banks, and say what is in them."""
    told = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    told.add_argument("--audio", type=Path, help="recordings, an .npz file")
    told.add_argument("--text", type=Path, help="a plain text")
    told.add_argument("--out", type=Path, required=True, help="folder of the banks")
    asked = told.parse_args()
    found: dict[str, Bank] = {}
    if asked.audio:
        with np.load(asked.audio) as packed:
            waves = np.split(packed["samples"].astype(np.float64), packed["offsets"][1:-1])
            found |= domain_banks.of_recordings(domain_banks.Recordings(waves, packed["speaker"], packed["digit"]))
    if asked.text:
        found |= domain_banks.of_text(asked.text.read_text(encoding="utf-8"))
    for name, bank in found.items():
        bank.save(asked.out / f"{name}.bank", force=True)
        print(f"{name:<20}{len(bank):>7,} rows {bank.shape}, {np.abs(bank.rows).max():.2f} the largest value")


if __name__ == "__main__":
    main()
