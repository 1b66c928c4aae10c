"""Rows from many files, one a row: images, sound, or arrays, in a folder, in a zip or in tars alike.

The first kind counts of which there are files; what else there is, is named and left out. Labels are those of a `dataset.json`
({"labels": [[name, label], …]}, as StyleGAN's and EDM's tools write it), of a file beside each row's (`key.cls`, `key.json`), or the
subfolders.

Of a variational encoder's latents two arrays may be kept in one, mean and spread of a Gaussian, one after the other along the channels:
files with `mean-std` in their names (EDM2, REPA), and arrays called `moments` (MAR: mean and logarithm of the variance, the latter within
[−30, 20]). Rows are the means then; the mean spread of each channel is in the manifest (`latent_std`) and among its cautions.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from scorescope.errors import InputError
from scorescope.rows import images, sound
from scorescope.rows.arrays import MIRRORED, array_source, choose_rows, with_mirrored
from scorescope.rows.images import NAMED, Item
from scorescope.rows.options import Options
from scorescope.rows.raw import BROKEN_ARRAY, Raw, in_words, npz, python_objects, raw_array
from scorescope.rows.storage import Progress, Source
from scorescope.rows.tags import LABEL_NAMES, Said, Tags, read_tags

TABLE = "dataset.json"
ARRAYS = (frozenset({".npz"}), frozenset({".npy"}))
KINDS = (images.SUFFIXES, sound.SUFFIXES, *ARRAYS)
SUFFIXES = frozenset().union(*KINDS)
CLASS_FIELDS = (*LABEL_NAMES, "cls", "class")
MEAN_STD, MOMENTS = "mean-std", "moments"
LOG_VARIANCE = (-30.0, 20.0)  # what the encoder's own code keeps it within


def first_folder(name: str) -> str:
    """The subfolder that a file is in, directly below the root; empty for none."""
    return name.partition("/")[0] if "/" in name else ""


@dataclass(frozen=True)
class Members:
    """The files of a source.

    Attributes:
        where: What messages call the source.
        names: Paths within it, parts joined by "/".
        read: The files of some names, in their order; names are asked for in the order in which they are given.
        class_of: The class that a file's place says; empty for none.
        fields: Values by name of a file, by column: what the source says of its rows.
        ordered: Whether the order of names is that of the rows; otherwise it is class by class, by path within a class.
        aside: Files that belong to rows, but are none.
    """

    where: str
    names: Sequence[str]
    read: Callable[[Sequence[str]], Iterator[Item]]
    class_of: Callable[[str], str] = first_folder
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ordered: bool = False
    aside: frozenset[str] = frozenset()


def suffix_of(name: str) -> str:
    """The suffix of a file's name, in lower case."""
    return PurePosixPath(name).suffix.lower()


def files_of(members: Members) -> tuple[list[str], frozenset[str]]:
    """The files that are rows, in order, and the suffixes of their kind; none where no file is of a known kind."""
    for suffixes in KINDS:
        if found := [name for name in members.names if suffix_of(name) in suffixes]:
            return (found if members.ordered else in_class_order(found, members.class_of)), suffixes
    return [], frozenset()


def in_class_order(names: Iterable[str], class_of: Callable[[str], str] = first_folder) -> list[str]:
    """Names class by class, by path within a class; classes that are all numbers in the order of the numbers."""
    entries = [(class_of(name), name) for name in names]
    numbered = all(place.isdecimal() for place, _ in entries)
    return [name for _, name in sorted(entries, key=lambda entry: (int(entry[0]) if numbered else 0, *entry))]


def members_source(members: Members, options: Options, progress: Progress) -> Source:
    """The rows of files.

    Raises:
        InputError: No file of a known kind, files beside class subfolders, a file without a label, or what a kind's reader refuses.
    """
    files, suffixes = files_of(members)
    if not files:
        held = f"; it holds {listed(members.names)}" if members.names else ", it is empty"
        raise InputError(f"{members.where} has no images{held}", "a folder of images, sound or arrays, one a row")
    options.refuse(members.where, "files", "columns")
    said, classes = _said(members, files, options)
    kept = np.arange(len(files))
    if options.limit is not None and options.limit < len(files):
        kept = np.array(spread(classes, options.limit)) if classes else kept[: options.limit]
    tags = read_tags(members.where, len(files), options, said, kept)
    wanted = [files[k] for k in kept]
    known = {*files, *members.aside, TABLE}
    left = [name for name in members.names if name not in known]
    cautions = (f"{len(left):,} files that are not {_kind(suffixes)} were left out ({listed(sorted(left))})",) if left else ()
    whole = replace(options, limit=None)
    if suffixes in ARRAYS:
        return replace(array_files(replace(members, names=wanted), whole, tags), cautions=cautions)

    def items() -> Iterator[Item]:
        return members.read(wanted)

    if suffixes == sound.SUFFIXES:
        return sound.sound_source(members.where, items, len(wanted), whole, tags, progress, cautions)
    if options.array is not None:
        raise InputError(f"--array does not apply to a folder of images ({members.where})", "leaving it out")
    return images.image_source(members.where, items, len(wanted), whole, tags, progress, cautions)


def _kind(suffixes: frozenset[str]) -> str:
    return "images" if suffixes == images.SUFFIXES else "sound" if suffixes == sound.SUFFIXES else "arrays"


def listed(names: Sequence[str]) -> str:
    """The first few of some names."""
    return ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")


def spread(classes: list[str], limit: int) -> list[int]:
    """Indices of `limit` files, as evenly from each class as there are files, in order."""
    places: dict[str, list[int]] = {}
    for index, name in enumerate(classes):
        places.setdefault(name, []).append(index)
    turns = (index for turn in zip_longest(*places.values()) for index in turn if index is not None)
    return sorted(islice(turns, limit))


# ---- labels -------------------------------------------------------------------------------------------------------------------


def _said(members: Members, files: list[str], options: Options) -> tuple[Said, list[str] | None]:
    """What the files say of themselves, and the class of each where its place tells it."""
    where = members.where
    fields = dict(members.fields)
    if TABLE in members.names:
        fields |= _table(members)
    columns = {
        key: raw_array(np.array([values[name] for name in files]), f"{where}: {key}")
        for key, values in fields.items()
        if all(isinstance(values.get(name), (int, float, str)) for name in files)
    }
    label = next((key for key in CLASS_FIELDS if key in fields), None)
    if label is not None:
        if label not in columns and options.labels in (None, label):
            name = next(name for name in files if not isinstance(fields[label].get(name), (int, float, str)))
            said = f"has a label that is no class: {fields[label][name]!r:.40}" if name in fields[label] else "has no label, unlike others"
            raise InputError(f"{where}: {name} {said}", "--labels none, or a file with a class a row")
        return Said(columns, columns.get(label), names=files, kind="field"), None
    classes = [] if TABLE in members.names else [members.class_of(name) for name in files]
    if options.labels is not None or not any(classes):
        return Said(columns, names=files, kind="field"), None
    if not all(classes):
        loose = PurePosixPath(files[classes.index("")]).name
        raise InputError(f"{where} has images beside its class subfolders ({loose})", "moving them into one, or --labels none")
    order = {members.class_of(name): None for name in in_class_order(files, members.class_of)}
    number = {name: k for k, name in enumerate(order)}
    labels = raw_array(np.array([number[name] for name in classes], np.int64), where)
    return Said(columns, labels, tuple(order), files, "field"), classes


def _table(members: Members) -> dict[str, dict[str, Any]]:
    """The labels of a dataset.json, by name of a file; none where it says that there are none."""
    where = f"{members.where}: {TABLE}"
    data = next(members.read([TABLE]))[1]
    try:
        table = json.loads(data if isinstance(data, bytes) else data.read_bytes())["labels"]
        return {} if table is None else {"labels": {str(name).replace("\\", "/"): label for name, label in table}}
    except (ValueError, KeyError, TypeError, RecursionError, OSError) as problem:
        raise InputError(f'{where} is not {{"labels": [[name, label], …]}}', "writing it again, or --labels") from problem


# ---- arrays -------------------------------------------------------------------------------------------------------------------


def array_files(members: Members, options: Options, tags: Tags, *, drop_first: bool = False) -> Source:
    """The rows of .npy files, or of .npz files with one row each.

    Args:
        members: Its names are the files, in order.
        options: How rows are made; `array` names the array of an .npz, as it is: no means are taken, no mirrored rows added.
        tags: Of the rows.
        drop_first: Whether files have a first axis of length 1 that is no part of a row.
    """
    if suffix_of(members.names[0]) == ".npy":
        options.refuse(members.where, "files of one array", "array")
        spread_of = _deviation if options.array is None and all(MEAN_STD in PurePosixPath(name).name for name in members.names) else None
        return _rows_of(members, None, options, tags, spread_of, drop_first)
    name, data = next(members.read(members.names[:1]))
    arrays = npz(data if isinstance(data, Path) else io.BytesIO(data), f"{members.where}: {name}")
    if not arrays:
        raise InputError(f"{members.where}: {name} holds no array", "an array in each file")
    plain = [key for key in arrays if not (key.endswith(MIRRORED) and key.removesuffix(MIRRORED) in arrays)]
    one = options.array is None and len(plain) == 1
    key = plain[0] if one else MOMENTS if options.array is None and MOMENTS in arrays else choose_rows(arrays, members.where, options)
    spread_of = _from_log_variance if key == MOMENTS and options.array is None else None
    found = _rows_of(members, key, options, tags, spread_of, drop_first)
    if options.array is None and key + MIRRORED in arrays:
        return with_mirrored(found, _rows_of(members, key + MIRRORED, options, Tags(), spread_of, drop_first))
    return found


def _deviation(second: np.ndarray) -> np.ndarray:
    return second.astype(np.float64)


def _from_log_variance(second: np.ndarray) -> np.ndarray:
    return np.exp(0.5 * np.clip(second.astype(np.float64), *LOG_VARIANCE))


def _rows_of(
    members: Members,
    key: str | None,
    options: Options,
    tags: Tags,
    spread_of: Callable[[np.ndarray], np.ndarray] | None,
    drop_first: bool,
) -> Source:
    """One array of each file as a row; with `spread_of`, the first half of its channels, and what the second half says in the manifest."""
    where, names = members.where, members.names
    first = _load(next(members.read(names[:1])), key, where)
    if drop_first and first.shape[:1] != (1,):
        raise InputError(f"{where}: {names[0]} has shape {first.shape}", "files of one row, (1, *shape)")
    if spread_of is not None and (first.ndim < 2 or first.shape[0] % 2):
        raise InputError(f"{where}: {names[0]} has shape {first.shape}, which is not mean and spread", "--array, or files of another name")
    row = first.shape[drop_first:]
    total = np.zeros(row[0] // 2 if spread_of is not None else 0)

    def batches(n: int, size: int) -> Iterator[np.ndarray]:
        total[...] = 0
        stream = members.read(names[:n])
        while batch := [_alike(item, key, where, names[0], first) for item in islice(stream, size)]:
            rows = np.stack(batch).reshape(len(batch), *row)
            if spread_of is not None:
                rows, second = np.split(rows, 2, axis=1)
                total[...] += spread_of(second).reshape(*second.shape[:2], -1).mean(2).sum(0)
            yield rows

    shape = row if spread_of is None else (row[0] // 2, *row[1:])
    found = array_source(Raw(where, (len(names), *shape), first.dtype, batches), options, tags)
    if spread_of is None:
        return found

    def spreads() -> dict[str, Any]:
        stds = (total / len(names) * abs(options.scale or 1.0)).tolist()
        channels = ", ".join(f"{one:.3g}" for one in stds[:8]) + (", …" if len(stds) > 8 else "")
        said = f"rows are the means of the encoder's Gaussians, whose standard deviation by channel is {channels}"
        return {"latent_std": stds, "cautions": (said,)}

    return replace(found, transform=("means of mean and spread", *found.transform), known_at_the_end=spreads)


def _alike(item: Item, key: str | None, where: str, name: str, first: np.ndarray) -> np.ndarray:
    found = _load(item, key, where)
    if found.shape != first.shape or found.dtype != first.dtype:
        said = f"{where}: {item[0]} has shape {found.shape} of {found.dtype}, {name} has {first.shape} of {first.dtype}"
        raise InputError(said, "files of one shape")
    return found


def _load(item: Item, key: str | None, where: str) -> np.ndarray:
    """The array of an .npy file, or the one called `key` of an .npz."""
    name, data = item
    try:
        found = np.load(io.BytesIO(data) if isinstance(data, bytes) else data)
        if key is None:
            return np.asarray(found)
        with found:
            if key not in found.files:
                raise InputError(f"{where}: {name} has no array {key!r}, unlike others", "files of one kind")
            return np.asarray(found[key])
    except InputError:
        raise
    except BROKEN_ARRAY as problem:
        if "allow_pickle" in str(problem):
            raise python_objects(f"{where}: {name}") from problem
        raise InputError(f"{where}: {name} can't be read as an array ({in_words(problem)})", "repair or remove it") from problem
