"""Rows from images: encoded ones, wherever they are kept.

Pixels are taken as a training loader's `convert("RGB")` takes them: palettes are looked up, transparency is dropped (and said
so), the first frame counts, EXIF rotation is not applied. If every image is grey the rows have one channel, otherwise three.
Two passes: the first looks at every image's head, so that mixed sizes and unreadable files are named before anything is
written; the second decodes, with as many threads as there are cores. (The library datasets reads folders too, but ends at the first
unreadable file, names no other, and says nothing of sizes or of files that it leaves out.)
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from scorescope.errors import InputError
from scorescope.rows.options import Options
from scorescope.rows.storage import Progress, Source, batch_rows
from scorescope.rows.tags import Tags

PHOTOS = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".jp2", ".gif", ".bmp"}
SUFFIXES = frozenset(PHOTOS | {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"})
GREY_MODES = frozenset({"1", "L", "LA", "La"})
NAMED = 3
PILLOW = (OSError, SyntaxError, ValueError, EOFError, TypeError, LookupError, ArithmeticError, RuntimeError)
BROKEN = (*PILLOW, struct.error, zlib.error, Image.DecompressionBombError)
"""What Pillow's readers raise for files that are cut, garbled, or no images at all."""

Item = tuple[str, Path | bytes]
"""The name of an image, and where its encoded bytes are."""


def fit(pixels: np.ndarray, *, gray: bool, size: int | None) -> np.ndarray:
    """One 8-bit image (H, W, C) in grey if asked, its centre square resized to `size` if asked; (H, W, C) again."""
    return _pixels(Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels), "L" if gray else None, size)


def _pixels(image: Image.Image, mode: str | None, size: int | None) -> np.ndarray:
    image.info.pop("transparency", None)
    if mode is not None and image.mode != mode:
        image = image.convert(mode)
    if size is not None and image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


@dataclass
class Survey:
    """What the heads of all images tell."""

    sizes: dict[tuple[int, int], tuple[int, str]] = field(default_factory=dict)
    colour: bool = False
    transparent: int = 0
    n: int = 0


def survey(items: Iterable[Item], n: int, where: str, progress: Progress) -> Survey:
    """Look at the head of every image.

    Raises:
        InputError: Files that can't be read, or pixels of more than 8 bits.
    """
    found, unreadable, reason = Survey(), [], ""
    for name, data in items:
        try:
            with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
                size, mode, transparent = image.size, image.mode, image.has_transparency_data
        except BROKEN as problem:
            unreadable.append(name)
            reason = reason or _reason(problem)
            continue
        if mode.startswith(("I", "F")):
            raise InputError(f"{where}: {name} has more than 8 bits a pixel ({mode})", "8-bit images, or an .npy file of numbers")
        count, first = found.sizes.get(size, (0, name))
        found.sizes[size] = count + 1, first
        found.colour |= mode not in GREY_MODES
        found.transparent += transparent
        found.n += 1
        if found.n % 1000 == 0:
            progress("looking at images", found.n, n)
    if unreadable:
        named = ", ".join(unreadable[:NAMED]) + (f" and {len(unreadable) - NAMED} more" if len(unreadable) > NAMED else "")
        raise InputError(f"{where}: {named} can't be read as image{'s' * (len(unreadable) > 1)} ({reason})", "repair or remove")
    return found


def _reason(problem: BaseException) -> str:
    if "cannot identify" in str(problem):
        return "not an image that Pillow knows"
    return getattr(problem, "strerror", None) or str(problem) or type(problem).__name__


def image_source(
    where: str,
    items: Callable[[], Iterator[Item]],
    n: int,
    options: Options,
    tags: Tags,
    progress: Progress,
    cautions: tuple[str, ...] = (),
) -> Source:
    """The rows of encoded images; `items` can be gone through twice."""
    options.refuse(where, "images", "scale", "layout", "rate", "seconds", "log_mel")
    seen = survey(items(), n, where, progress)
    (width, height), (_, name) = max(seen.sizes.items(), key=lambda entry: entry[1][0])
    if options.size is None and len(seen.sizes) > 1:
        other = next((size, first) for size, (_, first) in seen.sizes.items() if size != (width, height))
        problem = f"{where}: images of mixed shape: {name} is {width}×{height}, {other[1]} is {other[0][0]}×{other[0][1]}"
        raise InputError(f"{problem} ({len(seen.sizes)} sizes among {n:,})", f"--size {min(width, height)}")
    grey = options.gray or not seen.colour
    mode = "L" if grey else "RGB"
    side = (options.size, options.size) if options.size else (height, width)
    words = [f"8-bit {'grey' if grey else 'RGB'}"]
    if options.size:
        words.append(f"shorter side resized to {options.size} (bicubic), centre cut out")
    if seen.transparent:
        note = f'{seen.transparent:,} of {n:,} images have transparency, which was dropped as convert("RGB") of training loaders does'
        cautions = (*cautions, note)
        words.append("transparency dropped")

    def row(item: Item) -> np.ndarray:
        name, data = item
        try:
            with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
                return np.moveaxis(_pixels(image, mode, options.size), -1, 0)
        except BROKEN as problem:
            raise InputError(f"{where}: {name} can't be read as image ({_reason(problem)})", "repair or remove it") from problem

    def batches() -> Iterator[np.ndarray]:
        stream, size = items(), batch_rows(3 * width * height)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            while batch := list(islice(stream, min(size, 256))):
                yield np.stack(list(pool.map(row, batch)))

    shape, dtype = (n, 1 if grey else 3, *side), np.dtype(np.uint8)
    return Source(where, shape, dtype, batches, transform=tuple(words), cautions=cautions, **vars(tags))
