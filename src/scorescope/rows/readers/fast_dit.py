"""fast-DiT's latents: folders NAME_features and NAME_labels beside each other, with N.npy of row N in each, (1, 4, 32, 32) and (1,).

Latents are scaled already.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from scorescope.errors import InputError
from scorescope.rows.members import array_files
from scorescope.rows.options import Options
from scorescope.rows.raw import npy, raw_array
from scorescope.rows.readers.folder import folder_members
from scorescope.rows.storage import Progress, Source
from scorescope.rows.tags import Said, read_tags

FEATURES, LABELS = "_features", "_labels"


def accepts(path: Path) -> bool:
    """A folder with one NAME_features and NAME_labels in it, or a NAME_features that has them beside it."""
    return path.is_dir() and _folders(path) is not None


def _folders(path: Path) -> tuple[Path, Path] | None:
    found = [path] if path.name.endswith(FEATURES) else [one for one in path.glob(f"*{FEATURES}") if one.is_dir()]
    pairs = [(one, one.with_name(one.name.removesuffix(FEATURES) + LABELS)) for one in found]
    pairs = [pair for pair in pairs if pair[1].is_dir()]
    return pairs[0] if len(pairs) == 1 else None


def source(path: Path, options: Options, progress: Progress) -> Source:
    """The rows in the order of their numbers."""
    folders = _folders(path)
    assert folders is not None
    features, labels = folders
    options.refuse(str(path), "files of one array", "array", "columns")
    names = sorted((file.name for file in features.glob("*.npy")), key=lambda name: (len(name), name))
    if not names:
        raise InputError(f"{features} has no .npy files", "a folder of N.npy")
    kept = names[: options.limit or len(names)]
    said = Said({}, names=kept)
    if options.labels is None:
        values = []
        for k, name in enumerate(kept, 1):
            if not (labels / name).is_file():
                raise InputError(f"{labels} has no {name}, which {features} has", "--labels none")
            label = next(npy(labels / name).batches(1, 1), np.zeros(0))
            if label.size != 1:
                raise InputError(f"{labels / name} holds {label.size} numbers, not one label", "--labels none")
            values.append(label.reshape(()))
            if k % 1000 == 0:
                progress("labels", k, len(kept))
        said = Said({}, raw_array(np.array(values), str(labels)), names=kept)
    whole = replace(options, limit=None)
    return array_files(folder_members(features, kept), whole, read_tags(str(path), len(kept), whole, said), drop_first=True)
