"""Tensors in safetensors files, one or several shards: LightningDiT's {latents, latents_flip, labels} and whatever else has rows.

Shards follow each other by name, as `latents_rank00_shard000.safetensors`; tensors are read in slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import safetensors

from scorescope.errors import InputError
from scorescope.rows.arrays import container_source
from scorescope.rows.content import as_array
from scorescope.rows.options import Options
from scorescope.rows.raw import Raw, in_words, joined
from scorescope.rows.storage import Progress, Source
from scorescope.rows.tensors import TYPES

SUFFIXES = frozenset({".safetensors"})
OTHERS = {"BF16": "f4", "I32": "i4", "I16": "i2", "U16": "u2", "U32": "u4", "U64": "u8", "BOOL": "?"}


def accepts(path: Path) -> bool:
    """NAME.safetensors."""
    return path.suffix.lower() in SUFFIXES


def source(path: Path, options: Options, progress: Progress) -> Source:
    """The rows of one tensor, the labels of another."""
    return several([path], str(path), options, progress)


def several(files: list[Path], where: str, options: Options, progress: Progress) -> Source:
    """The same of shards."""
    options.refuse(where, "arrays", "columns")
    shards = [_arrays(file) for file in sorted(files)]
    for file, shard in zip(sorted(files), shards, strict=True):
        if shard.keys() != shards[0].keys():
            said = f"{file} has the tensors {', '.join(sorted(shard))}, {sorted(files)[0]} has {', '.join(sorted(shards[0]))}"
            raise InputError(said, "shards of one data set")
    arrays = {name: joined([shard[name] for shard in shards], f"{where}: array {name!r}") for name in shards[0]}
    return container_source(arrays, where, options)


def _arrays(path: Path) -> dict[str, Raw]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: _raw(path, name, file.get_slice(name)) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError) as problem:
        raise InputError(f"{path} can't be read as safetensors ({in_words(problem)})", "writing it again") from problem


def _raw(path: Path, name: str, piece: object) -> Raw:
    code, shape = piece.get_dtype(), tuple(piece.get_shape())  # type: ignore[attr-defined]
    dtype = TYPES[code] if code in TYPES else np.dtype(OTHERS.get(code, object))

    def batches(n: int, size: int) -> Iterator[np.ndarray]:
        try:
            with safetensors.safe_open(path, "pt") as file:
                tensor = file.get_slice(name)
                for start in range(0, n, size):
                    yield as_array(tensor[start : min(n, start + size)])
        except (safetensors.SafetensorError, OSError) as problem:
            raise InputError(f"{path} was cut or altered ({in_words(problem)})", "writing it again") from problem

    return Raw(f"{path}: array {name!r}", shape, dtype, batches)
