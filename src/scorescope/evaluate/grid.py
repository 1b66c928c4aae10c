"""Samples as one picture: a line a class where there are classes, each sample with its number, and what was drawn above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from scorescope.files import replacing

COLUMNS, LINES = 10, 10
CLASSES = 20  # lines of a picture with classes
LEAST, MOST = 56, 256  # pixels of a tile's longer side: small images are enlarged by a whole factor, large ones shrunk
GAP, NUMBER, TEXT = 6, 12, 15
INK, FAINT = (20, 20, 20), (110, 110, 110)


def drawable(shape: Sequence[int]) -> bool:
    """Whether rows are images of one or three channels."""
    return len(shape) == 3 and shape[0] in (1, 3) and min(shape[1:]) > 1


def tile(row: np.ndarray, low: float, high: float) -> Image.Image:
    """One row (C, H, W) over the value range, at a size that can be seen."""
    pixels = (np.clip((row - low) / (high - low), 0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert("RGB")
    long = max(image.size)
    if long < LEAST:
        factor = -(-LEAST // long)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    if long > MOST:
        return image.resize((image.width * MOST // long, image.height * MOST // long), Image.Resampling.LANCZOS)
    return image


def lines_of(items: Sequence[int], names: Sequence[str] | None) -> list[tuple[str, list[int]]]:
    """The heading of each line and the places of its samples: a line a class in order of appearance, or ten in a row."""
    if names is None:
        return [("", list(range(k, min(k + COLUMNS, len(items))))) for k in range(0, min(len(items), COLUMNS * LINES), COLUMNS)]
    found: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        found.setdefault(name, []).append(place)
    return [(name, places[:COLUMNS]) for name, places in sorted(found.items(), key=lambda pair: pair[1][0])][:CLASSES]


def save(
    path: Path,
    rows: np.ndarray,
    items: Sequence[int] | np.ndarray,
    names: Sequence[str] | None,
    low: float,
    high: float,
    caption: Sequence[str],
) -> None:
    """Write the picture of rows (n, C, H, W) with numbers `items` and class names, or None, to `path`."""
    heading, number, lines = ImageFont.load_default(TEXT), ImageFont.load_default(NUMBER), lines_of(list(items), names)
    width, height = tile(rows[0], low, high).size
    shown = sum(len(places) for _, places in lines)
    said = [*caption, f"{shown:,} of {len(rows):,} samples"]
    left = round(max((heading.getlength(name) for name, _ in lines), default=0)) + (2 * GAP if names is not None else 0)
    across = left + max(len(places) for _, places in lines) * (width + GAP)
    above = len(said) * (TEXT + GAP) + GAP
    page = Image.new(
        "RGB", (max(across, *(round(heading.getlength(line)) for line in said)) + 2 * GAP, above + len(lines) * (height + NUMBER + GAP))
    )
    page.paste((255, 255, 255), (0, 0, *page.size))
    pen = ImageDraw.Draw(page)
    for k, line in enumerate(said):
        pen.text((GAP, GAP + k * (TEXT + GAP)), line, fill=INK, font=heading)
    for k, (name, places) in enumerate(lines):
        top = above + k * (height + NUMBER + GAP)
        pen.text((GAP, top + height / 2), name, fill=INK, font=heading, anchor="lm")
        for column, place in enumerate(places):
            x = GAP + left + column * (width + GAP)
            page.paste(tile(rows[place], low, high), (x, top))
            pen.text((x, top + height + 1), str(items[place]), fill=FAINT, font=number)
    with replacing(path) as temporary:
        page.save(temporary, format="PNG")
