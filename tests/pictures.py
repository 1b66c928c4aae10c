"""Small random images, and a way to write them as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

RNG = np.random.default_rng(5)
COLOUR = RNG.integers(0, 256, (12, 8, 6, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (12, 8, 6), dtype=np.uint8)
LABELS = np.repeat(np.arange(3), 4)


def write_images(root: Path, pixels: np.ndarray, labels: np.ndarray | None = None, suffix: str = ".png") -> Path:
    """Images as files; with labels in class folders, in the order in which a bank reads them."""
    for i, image in enumerate(pixels):
        folder = root if labels is None else root / f"class_{labels[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i:03d}{suffix}")
    return root
