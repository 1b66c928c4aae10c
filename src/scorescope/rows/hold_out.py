"""Two banks of one: rows to train on, and rows of the same kind that training never sees."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scorescope import seeds
from scorescope.errors import InputError
from scorescope.rows.bank import Bank
from scorescope.rows.content import fingerprint_of
from scorescope.rows.storage import Progress, Source, batch_rows, name_of, quiet, refuse_existing, write_bank

RANGES_APART = 1.6  # the span of values of one bank over that of another, beyond which they were prepared differently


def split(bank: Bank, share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Stored rows (kept, held out), each in ascending order: of every class the same share, drawn by `seed`.

    Rows of one group are on one side: what is drawn are groups, and a row is a group of its own where the bank has none. A group belongs
    to the class that most of its rows have (the least of several).

    Args:
        bank: Whose rows.
        share: Of the groups of each class (of all, without labels), rounded to whole ones.
        seed: Of the draw; a class's draw depends on no other class. Drawn groups with a row that repeats a kept row exactly are kept, too.

    Raises:
        InputError: A share outside (0, 1), or one that leaves either side of a class empty.
    """
    if not 0 < share < 1:
        raise InputError(f"a held-out share of {share:g} is not between 0 and 1", "--hold-out 0.1")
    n, what = len(bank.rows), "rows" if bank.groups is None else "groups"
    group = np.arange(n) if bank.groups is None else np.unique(np.array(bank.groups), return_inverse=True)[1]
    home = _classes_of(group, bank.labels)
    held = np.zeros(group.max() + 1, bool)
    for label in np.unique(home).tolist():
        members = np.flatnonzero(home == label)
        count = round(share * len(members))
        if not 0 < count < len(members):
            where = f"class {bank.class_name(label)}" if bank.labels is not None else bank.name
            raise InputError(
                f"holding out {share:g} of the {len(members)} {what} of {where} leaves one side empty", f"another share, or more {what}"
            )
        held[members[seeds.generator(seed, "hold-out", label).permutation(len(members))[:count]]] = True
    digests = np.unique(np.array(_digests(bank, bank.flips)), return_inverse=True)[1]
    while (repeats := held[group] & np.isin(digests, digests[~held[group]])).any():  # a group that is kept may repeat another's rows
        held[group[repeats]] = False
    if not held.any():
        raise InputError(f"every held-out row of {bank.name} repeats a kept one", "a bank without that many duplicates")
    return np.flatnonzero(~held[group]), np.flatnonzero(held[group])


def _classes_of(group: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
    """The class (G,) that most rows of each group have, the least of several; 0 without labels."""
    home = np.zeros(group.max() + 1, np.int64)
    if labels is not None:
        pairs, counts = np.unique(np.stack([group, labels], 1), axis=0, return_counts=True)
        order = np.lexsort((-pairs[:, 1], counts))  # the largest count last, and of equal ones the least label
        home[pairs[order, 0]] = pairs[order, 1]
    return home


def hold_out(bank: Bank, share: float, seed: int = 0) -> tuple[Bank, Bank]:
    """The bank without a share of its rows, and those rows, as two banks in memory that name each other; see `split`."""
    parts = [_Part(bank, index) for index in split(bank, share, seed)]
    links = _links(parts, ("", ""), share, seed)
    kept, held = (
        Bank(
            part[0 : len(part)], part.labels, bank.meaning._replace(name=name), class_names=bank.class_names,
            manifest=link, names=part.names, groups=part.groups,
        )
        for part, link, name in zip(parts, links, (bank.name, f"{bank.name}-held-out"), strict=True)
    )  # fmt: skip
    return kept, held


def held_out_path(out: Path) -> Path:
    """Where the held-out rows of a bank are kept: photos.bank has photos-held-out.bank beside it."""
    return out.with_name(f"{out.stem}-held-out.bank" if out.suffix == ".bank" else f"{out.name}-held-out")


def build(source: Any, out: str | Path, share: float, seed: int = 0, **options: Any) -> Bank:
    """Build a bank in two parts, folders that name each other: `out`, which is opened, and `held_out_path(out)`.

    Args:
        source: As `Bank.build` takes it; it is read once.
        out: The folder of the rows to train on.
        share: Of each class; see `split`.
        seed: Of the draw.
        **options: Of `Bank.build`, `force` and `progress` included.

    Raises:
        InputError: Bad input of any kind; nothing is left behind then.
    """
    target, force, progress = Path(out), bool(options.pop("force", False)), options.pop("progress", quiet)
    for path in (target, held_out_path(target)):
        refuse_existing(path, force)
    whole = target.with_name(f".{target.name}.whole")  # what a killed build leaves is replaced
    try:
        named = {**options, "name": options.get("name") or name_of(target)}
        save_split(Bank.build(source, whole, force=True, progress=progress, **named), target, share, seed, force=force, progress=progress)
    finally:
        shutil.rmtree(whole, ignore_errors=True)
    return Bank.open(target)


def save_split(whole: Bank, out: Path, share: float, seed: int = 0, *, force: bool = False, progress: Progress = quiet) -> None:
    """Write both parts of a bank as folders that name each other: `out`, and `held_out_path(out)`."""
    parts, paths = [_Part(whole, index) for index in split(whole, share, seed)], (out, held_out_path(out))
    links = _links(parts, (paths[0].name, paths[1].name), share, seed)
    names = (whole.name, f"{whole.name}-held-out")
    # The held-out rows first: who finds the training bank finds them, too.
    for part, path, link, called in list(zip(parts, paths, links, names, strict=True))[::-1]:
        source = Source(
            where=str(whole.manifest["source"]),
            shape=(len(part), *whole.shape),
            dtype=whole.rows.dtype,
            batches=part.batches,
            labels=part.labels,
            class_names=whole.class_names,
            transform=(*whole.manifest["transform"], f"{'held out' if 'held_out_of' in link else 'kept'}: {share:g} held out, seed {seed}"),
            extra=link,
            names=part.names,
            groups=part.groups,
        )
        write_bank(source, path, whole.meaning._replace(name=called), force=force, progress=progress)


def partner(bank: Bank) -> str:
    """Fingerprint of the bank that a bank was split from or that was split from it; empty where it was not split."""
    return str(bank.manifest.get("held_out", bank.manifest.get("held_out_of", {})).get("fingerprint", ""))


def check_held_out(bank: Bank, held: Bank, classes: Sequence[int] = ()) -> None:
    """Whether rows can stand beside a training set as rows that training never saw.

    Args:
        bank: The training set.
        held: The other rows.
        classes: Those that must have held-out rows.

    Raises:
        InputError: Another shape, type or range of values; a class without rows; rows that are in both banks.
    """
    one = f"the held-out bank {held.name}"
    if held.shape != bank.shape:
        raise InputError(f"{one} has rows of shape {held.shape}, {bank.name} of {bank.shape}", "rows of the same kind")
    for label in classes:
        if held.labels is None or not (held.labels == label).any():
            missing = f"no row of class {bank.class_name(label)}" if held.labels is not None else "no labels"
            raise InputError(f"{one} has {missing}", "scorescope bank build … --hold-out, which splits by class")
    (low, high), (least, most) = (value_range_of(one) for one in (bank, held))
    if not high - low <= RANGES_APART * (most - least) or not most - least <= RANGES_APART * (high - low):
        raise InputError(
            f"the values of {one} go from {least:.3g} to {most:.3g}, those of {bank.name} from {low:.3g} to {high:.3g}",
            "rows that were prepared in the same way (bank build --range, --scale)",
        )
    shared = shared_rows(bank, held)
    if len(shared):
        some = ", ".join(map(str, shared[:5])) + (", …" if len(shared) > 5 else "")
        raise InputError(f"{len(shared):,} rows of {one} are in {bank.name}, too ({some})", "rows that training never saw")


def value_range_of(bank: Bank) -> tuple[float, float]:
    """The least and the largest value of a bank, as its manifest has them, else by one pass."""
    if "minimum" in bank.manifest:
        return float(bank.manifest["minimum"]), float(bank.manifest["maximum"])
    ends = [(float(block.x.min()), float(block.x.max())) for block in bank.blocks(4096, mirrored=False)]
    return min(end[0] for end in ends), max(end[1] for end in ends)


def shared_rows(bank: Bank, held: Bank) -> list[int]:
    """Rows of `held` that equal a row of `bank`, or a mirror image where it has flips."""
    known = set(_digests(bank, bank.flips))
    return [index for index, digest in enumerate(_digests(held, bank.flips)) if digest in known]


def _digests(bank: Bank, flips: bool) -> list[bytes]:
    """A hash of each stored row, the same for equal rows, and for mirror images where `flips`."""

    def digest(row: np.ndarray) -> bytes:
        return hashlib.blake2b(row.tobytes(), digest_size=16).digest()

    found = []
    for block in bank.blocks(1024, mirrored=False):
        for row in block.x.numpy().reshape(-1, *bank.shape) + 0.0:  # −0 and 0 are the same number
            found.append(min(digest(row), digest(np.ascontiguousarray(row[..., ::-1]))) if flips else digest(row))
    return found


class _Part:
    """Some rows of a bank, read as they are asked for."""

    def __init__(self, bank: Bank, index: np.ndarray) -> None:
        self.bank, self.index = bank, index
        self.labels = None if bank.labels is None else bank.labels[index]

    @property
    def names(self) -> tuple[str, ...] | None:
        return self._of(self.bank.names)

    @property
    def groups(self) -> tuple[str, ...] | None:
        return self._of(self.bank.groups)

    def _of(self, known: tuple[str, ...] | None) -> tuple[str, ...] | None:
        return None if known is None else tuple(known[k] for k in self.index)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: slice) -> np.ndarray:
        return self.bank.stored_at(self.index[rows])

    def batches(self) -> Iterator[np.ndarray]:
        step = batch_rows(self.bank.rows[0].nbytes)
        return (self[start : start + step] for start in range(0, len(self), step))

    def fingerprint(self) -> str:
        return fingerprint_of({**self.bank.description(), "shape": [len(self), *self.bank.shape]}, self, self.labels)


def _links(parts: list[_Part], folders: tuple[str, str], share: float, seed: int) -> list[dict[str, Any]]:
    """What each part says of the other in its manifest."""
    told = [
        {"fingerprint": part.fingerprint(), "rows": len(part), "folder": folder, "share": share, "seed": seed}
        for part, folder in zip(parts, folders, strict=True)
    ]
    return [{"held_out": told[1]}, {"held_out_of": told[0]}]
