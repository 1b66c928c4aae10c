"""Rows from images: a folder of them, or the encoded images of a dataset.

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
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from scorescope.errors import InputError
from scorescope.rows.names import check_names
from scorescope.rows.options import Options
from scorescope.rows.storage import Progress, Source, batch_rows, refuse_special

PHOTOS = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".jp2", ".gif", ".bmp"}
SUFFIXES = frozenset(PHOTOS | {".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"})
CLUTTER = frozenset({"thumbs.db", "desktop.ini"})
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


# ---- any images -------------------------------------------------------------------------------------------------------------


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
    labels: np.ndarray | None,
    class_names: tuple[str, ...] | None,
    progress: Progress,
    cautions: tuple[str, ...] = (),
) -> Source:
    """The rows of encoded images; `items` can be gone through twice."""
    refused = [f"--{option}" for option, given in (("scale", options.scale is not None), ("layout", options.layout != "auto")) if given]
    if refused:
        raise InputError(f"{refused[0]} does not apply to images ({where})", "leaving it out")
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

    return Source(where, (n, 1 if grey else 3, *side), np.dtype(np.uint8), batches, labels, class_names, tuple(words), cautions)


# ---- a folder ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Folder:
    """The images of a folder: `files` in row order, `classes` their class subfolders ("" for none)."""

    files: list[Path]
    classes: list[str]
    ignored: list[str]


def read_folder(root: Path) -> Folder:
    """Find the images below `root`: class by class, by path within a class. Hidden files and file managers' clutter do not count."""
    files: list[tuple[str, str, Path]] = []
    ignored: list[str] = []
    visited: set[str] = set()

    def refuse(problem: OSError) -> None:
        raise InputError(f"{problem.filename} can't be read ({problem.strerror})", "a folder that you may read") from problem

    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        subfolders[:] = [] if real in visited else [name for name in subfolders if not name.startswith(".")]
        if real in visited:
            continue
        visited.add(real)
        for name in names:
            path = Path(folder) / name
            relative = path.relative_to(root)
            if name.startswith(".") or name.lower() in CLUTTER:
                continue
            if path.suffix.lower() in SUFFIXES:
                refuse_special(path)
                files.append((relative.parts[0] if len(relative.parts) > 1 else "", relative.as_posix(), path))
            else:
                ignored.append(relative.as_posix())
    numbered = all(name.isdecimal() for name, _, _ in files)
    files.sort(key=lambda entry: (int(entry[0]) if numbered else 0, entry[0], entry[1]))
    return Folder([path for _, _, path in files], [name for name, _, _ in files], sorted(ignored))


def spread(classes: list[str], limit: int) -> list[int]:
    """Indices of `limit` files, as evenly from each class as there are files, in order."""
    groups: dict[str, list[int]] = {}
    for index, name in enumerate(classes):
        groups.setdefault(name, []).append(index)
    turns = (index for turn in zip_longest(*groups.values()) for index in turn if index is not None)
    return sorted(islice(turns, limit))


def folder_source(
    root: Path, options: Options, given: np.ndarray | None, names: tuple[str, ...] | None, folder: Folder, progress: Progress
) -> Source:
    """The rows of a folder of images; its subfolders are the classes, unless labels are given or left out."""
    kept = list(range(len(folder.files)))
    by_folder = options.labels is None and any(folder.classes)
    if by_folder and not all(folder.classes):
        loose = folder.files[folder.classes.index("")].name
        raise InputError(f"{root} has images beside its class subfolders ({loose})", "moving them into one, or --labels none")
    if options.limit is not None and options.limit < len(kept):
        kept = spread(folder.classes, options.limit) if by_folder else kept[: options.limit]
    files = [folder.files[i] for i in kept]
    labels, class_names = given, names
    if by_folder:
        class_names = tuple(dict.fromkeys(folder.classes))
        number = {name: k for k, name in enumerate(class_names)}
        labels = np.array([number[folder.classes[i]] for i in kept], np.int64)
    cautions: tuple[str, ...] = ()
    if folder.ignored:
        listed = ", ".join(folder.ignored[:NAMED]) + (", …" if len(folder.ignored) > NAMED else "")
        cautions = (f"{len(folder.ignored):,} files that are not images were left out ({listed})",)

    def items() -> Iterator[Item]:
        return ((path.relative_to(root).as_posix(), path) for path in files)

    found = image_source(str(root), items, len(files), options, labels, class_names, progress, cautions)
    return found if options.names == "none" else replace(found, names=check_names((name for name, _ in items()), len(files)))
