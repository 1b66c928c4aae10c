"""Rows from arrays: the one that is asked for, or the only one that could hold them, turned into what is stored.

8-bit arrays are images unless they say otherwise: (N, H, W) becomes (N, 1, H, W), channels last becomes channels first. Every
other type is stored as numbers, as they are: float16 kept, the rest as float32.

The mirror image of a latent is not the latent of the mirror image. Who stores both calls the second like the first and `_flip`: its rows
follow those of the first, with their labels, and a row and its mirrored one are a group.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from scorescope.errors import InputError, unknown
from scorescope.rows.images import fit
from scorescope.rows.options import Options
from scorescope.rows.raw import Raw, python_objects
from scorescope.rows.storage import Source, batch_rows
from scorescope.rows.tags import LABEL_NAMES, Said, Tags, read_tags

CHANNELS = (1, 3, 4)
ROW_NAMES = ("x", "images", "data", "latents", "arr_0")
MIRRORED = "_flip"
SOUND = ("rate", "seconds", "log_mel")
NO_TAGS = Tags()


def choose_rows(arrays: Mapping[str, Raw], where: str, options: Options) -> str:
    """The array that holds the rows: the one asked for, one of the usual names, or the only one with more than one axis."""
    if options.array is not None:
        if options.array not in arrays:
            raise unknown(f"array of {where}:", options.array, arrays)
        return options.array
    several = [name for name, raw in arrays.items() if len(raw.shape) > 1 and not is_mirrored(name, arrays)]
    candidates = [name for name in several if name in ROW_NAMES] or several
    if len(candidates) == 1:
        return candidates[0]
    listed = ", ".join(f"{name} {raw.shape}" for name, raw in arrays.items()) or "none"
    if not candidates:
        raise InputError(f"{where} has no array with rows (arrays: {listed})", "an array (N, *shape)")
    raise InputError(f"{where} has several arrays that could hold the rows ({listed})", f"--array {candidates[0]}")


def is_mirrored(name: str, names: Mapping[str, Any]) -> bool:
    """Whether an array holds the mirrored rows of another one."""
    return name.endswith(MIRRORED) and name.removesuffix(MIRRORED) in names


def container_source(arrays: Mapping[str, Raw], where: str, options: Options) -> Source:
    """The rows of a file of named arrays, with the labels that are beside them."""
    name = choose_rows(arrays, where, options)
    rows = arrays[name]
    group = name[: name.rfind("/") + 1]  # of HDF5: "train/images" has its labels in "train/labels"
    beside = [*(f"{group}{one}" for one in LABEL_NAMES), *LABEL_NAMES]
    labels = next((arrays[one] for one in beside if one in arrays and one != name), None)
    second = arrays.get("arr_1")  # what numpy.savez(file, images, labels) calls the labels
    if labels is None and name == "arr_0" and second is not None and second.shape == rows.shape[:1] and second.dtype.kind in "iu":
        labels = second
    tags = read_tags(where, rows.shape[0] if rows.shape else 0, options, Said(arrays, labels))
    found = array_source(rows, options, tags)
    if options.array is None and name + MIRRORED in arrays:
        return with_mirrored(found, array_source(arrays[name + MIRRORED], options))
    return found


def with_mirrored(rows: Source, mirrored: Source) -> Source:
    """Rows, then the latents of their mirror images.

    Raises:
        InputError: They are not as many, or of another shape.
    """
    if rows.shape != mirrored.shape:
        said = f"{mirrored.where} has {mirrored.shape[0]:,} rows {mirrored.shape[1:]}, {rows.where} has {rows.shape[0]:,} {rows.shape[1:]}"
        raise InputError(said, "--array with the name of the one to take")
    n = rows.shape[0]
    named = rows.names is not None and len(set(rows.names)) == n
    groups = rows.groups or (rows.names if named and rows.names else tuple(map(str, range(n))))
    return replace(
        rows,
        shape=(2 * n, *rows.shape[1:]),
        batches=lambda: chain(rows.batches(), mirrored.batches()),
        labels=None if rows.labels is None else np.tile(rows.labels, 2),
        names=None if rows.names is None else (*rows.names, *(f"{name} (mirrored)" for name in rows.names)),
        groups=(*groups, *groups),
        transform=(*rows.transform, f"rows {n} to {2 * n - 1} are the latents of the mirror images of rows 0 to {n - 1}"),
    )


def array_source(raw: Raw, options: Options, tags: Tags = NO_TAGS) -> Source:
    """The rows of an array, turned into what is stored."""
    options.refuse(raw.where, "an array", *SOUND)
    if raw.dtype.hasobject:
        raise python_objects(raw.where)
    if raw.dtype.kind not in "fiub":
        raise InputError(f"{raw.where} has type {raw.dtype}, not numbers", "uint8, float16, float32 or other real numbers")
    if len(raw.shape) < 2 or math.prod(raw.shape[1:]) == 0:
        raise InputError(f"{raw.where} has shape {raw.shape}, which are no rows", "an array (N, *shape)")
    if raw.shape[0] == 0:
        raise InputError(f"{raw.where} is empty: it has no rows", "a source with rows")
    n = min(raw.shape[0], options.limit or raw.shape[0])
    turn, row, dtype, words = (_as_images if raw.dtype == np.uint8 else _as_numbers)(raw, options)
    transform = (*words, *((f"first {n} of {raw.shape[0]} rows",) if n < raw.shape[0] else ()))
    size = batch_rows(math.prod(raw.shape[1:]) * max(4, raw.dtype.itemsize))
    return Source(raw.where, (n, *row), dtype, lambda: map(turn, raw.batches(n, size)), transform=transform, **vars(tags))


Turning = tuple[Callable[[np.ndarray], np.ndarray], tuple[int, ...], np.dtype[Any], list[str]]


def _as_images(raw: Raw, options: Options) -> Turning:
    """8-bit rows: how to turn a batch, the shape of a stored row, its type, and that in words."""
    if options.scale is not None:
        raise InputError(f"--scale does not apply to 8-bit rows ({raw.where})", "--range LOW HIGH")
    shape, edited = raw.shape[1:], options.gray or options.size is not None
    grey, last = len(shape) == 2 and options.layout == "auto", _channels_last(raw, options)
    height, width, channels = (*shape, 1) if grey else shape if last else (*shape[1:], shape[0]) if len(shape) == 3 else (0, 0, 0)
    if edited and channels not in CHANNELS:
        raise InputError(f"--size and --gray work on images; {raw.where} has rows {shape}", "--layout, or rows (H, W, 1 or 3)")
    words = ["channels last to channels first"] * last + ["one channel added"] * grey
    words += ["colour to grey"] * (options.gray and channels > 1)
    words += [] if options.size is None else [f"shorter side resized to {options.size} (bicubic), centre cut out"]

    def turn(rows: np.ndarray) -> np.ndarray:
        rows = rows[:, None] if grey else np.moveaxis(rows, -1, 1) if last else rows
        if edited:
            rows = np.stack([np.moveaxis(fit(np.moveaxis(row, 0, -1), gray=options.gray, size=options.size), -1, 0) for row in rows])
        return np.ascontiguousarray(rows)

    stored = (channels, height, width) if channels else shape
    if edited:
        stored = (1 if options.gray else channels, *((options.size, options.size) if options.size else (height, width)))
    return turn, stored, np.dtype(np.uint8), words


def _as_numbers(raw: Raw, options: Options) -> Turning:
    """Rows of any other type: the same."""
    refused = [f"--{name}" for name in ("size", "gray", "range") if getattr(options, name)]
    if refused:
        raise InputError(f"{refused[0]} is for 8-bit images; {raw.where} has type {raw.dtype}", "8-bit rows, or leaving it out")
    last = options.layout == "hwc" and _channels_last(raw, options)
    if options.flips:
        said = f"--flips mirrors pixels, and {raw.where} has type {raw.dtype}: the mirror image of a latent is not the latent of the mirror"
        raise InputError(f"{said} image", "8-bit images, or the mirrored rows in an array called like the first and _flip")
    dtype = np.dtype(np.float16) if raw.dtype == np.float16 else np.dtype(np.float32)
    words = [] if options.scale is None else [f"multiplied by {options.scale:g}"]
    words += ["channels last to channels first"] * last

    def turn(rows: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # What the storage can't hold becomes Inf, and is refused by row.
            if options.scale is not None:
                rows = rows.astype(np.float64) * options.scale
            rows = rows.astype(dtype)
        return np.ascontiguousarray(np.moveaxis(rows, -1, 1)) if last else rows

    shape = raw.shape[1:]
    return turn, (shape[-1], *shape[:-1]) if last else shape, dtype, words


def _channels_last(raw: Raw, options: Options) -> bool:
    shape = raw.shape[1:]
    if options.layout != "auto":
        if options.layout == "hwc" and len(shape) != 3:
            raise InputError(f"--layout hwc needs rows with three axes; {raw.where} has rows {shape}", "leaving --layout out")
        return options.layout == "hwc"
    if len(shape) != 3 or shape[-1] not in CHANNELS:
        return False
    if shape[0] in CHANNELS:
        raise InputError(f"{raw.where} has rows {shape}: the channels could be the first axis or the last", "--layout chw or --layout hwc")
    return True
