"""The training set as rows: in memory or read from disk as they are asked for, in model space, addressed by index.

On disk a bank is a folder: `rows.safetensors` holds the rows as they were stored (8-bit images stay 8-bit) and the labels,
`manifest.json` says what they are. Rows in model space are `low + (high − low)·u/255` for 8-bit storage and the stored
number itself otherwise. Horizontal flips are a flag, not a second copy: index `N + i` is row `i` mirrored along its last axis.
"""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorescope.errors import InputError
from scorescope.rows.content import as_array, check_labels, check_range, decode, description_of, fingerprint_of, refuse_non_finite
from scorescope.rows.names import check_names
from scorescope.rows.options import Options
from scorescope.rows.storage import Meaning, Progress, Source, batch_rows, quiet, read_bank, refuse_existing, write_bank
from scorescope.rows.tensors import StoredRows

NEAR_NAMES = 10_000  # names among which a near one is looked for, in less than a second


@dataclass(frozen=True)
class Block:
    """Consecutive rows of one pass: `x` (n, d) float32 in model space, `index` (n,) their indices in the bank."""

    x: Tensor
    index: np.ndarray


class Bank:
    """The training set.

    Attributes:
        rows: (N, *shape) as stored: uint8, float16 or float32. An array, or `StoredRows` on disk, which read just what an index names.
        labels: (N,) int64 in [0, classes), or None.
        shape: Shape of one row.
        flips: Whether every row also stands for its mirror image.
        low, high: Model-space values of the stored 0 and 255 (8-bit storage only).
        class_names: A name for each class, or None.
        name: A short name for reports.
        manifest: Source, transform and counts as recorded by the build; empty for arrays.
    """

    def __init__(
        self,
        rows: np.ndarray | StoredRows,
        labels: np.ndarray | None = None,
        meaning: Meaning | None = None,
        *,
        class_names: Sequence[str] | None = None,
        manifest: Mapping[str, Any] | None = None,
        mean: np.ndarray | None = None,
        names: Sequence[str] | Callable[[], tuple[str, ...]] | None = None,
        groups: Sequence[str] | Callable[[], tuple[str, ...]] | None = None,
    ) -> None:
        flips, low, high, name = meaning or Meaning()
        if rows.dtype not in (np.uint8, np.float16, np.float32):
            raise InputError(f"rows of type {rows.dtype} can't be stored", "uint8, float16 or float32")
        if rows.ndim < 2 or rows.size == 0:
            raise InputError(f"rows of shape {rows.shape} are not a bank", "an array (N, *shape) with N ≥ 1")
        if flips and rows.ndim < 3:
            raise InputError(f"flips need rows with a width, these have shape {rows.shape[1:]}", "a bank without flips")
        if labels is not None and labels.shape != (len(rows),):
            raise InputError(f"labels of shape {labels.shape} do not match {len(rows)} rows", "one label a row")
        if isinstance(class_names, str):
            raise InputError(f"class names {class_names!r} are one word", "a tuple with a name for each class")
        self.class_names = tuple(map(str, class_names)) if class_names and labels is not None else None
        self.labels = None if labels is None else check_labels(labels, self.class_names)
        self.rows, self.flips, (self.low, self.high) = rows, bool(flips), check_range(low, high)
        self.name, self.manifest = "bank" if name is None else str(name), dict(manifest or {})
        self.shape: tuple[int, ...] = tuple(rows.shape[1:])
        self._recorded_mean = mean
        self._names = names if names is None or callable(names) else check_names(names, len(rows))
        self._groups = groups if groups is None or callable(groups) else check_names(groups, len(rows), "groups")

    @classmethod
    def from_arrays(
        cls,
        x: np.ndarray | Tensor,
        labels: np.ndarray | Tensor | None = None,
        flips: bool = False,
        *,
        low: float = -1.0,
        high: float = 1.0,
        name: str = "bank",
        **words: Any,
    ) -> Bank:
        """A bank in memory.

        Args:
            x: (N, *shape). uint8 is mapped to [low, high]; floats are taken as they are, in float32.
            labels: (N,) integers from 0, or None.
            flips: Let every row also stand for its mirror image along the last axis.
            low, high: Model-space values of 8-bit 0 and 255.
            name: A short name for reports.
            **words: `class_names`, `names` and `groups` (one a row) of the constructor.

        Raises:
            InputError: Empty or mixed shapes, NaN or Inf (the rows are named), labels that are no class numbers, one a row.
        """
        rows = as_array(x)
        if rows.dtype not in (np.uint8, np.float16):
            if rows.dtype.kind not in "fiu":
                raise InputError(
                    f"rows of type {rows.dtype} are not numbers",
                    "a float or uint8 array (N, *shape), whole numbers beyond 64 bits as floats",
                )
            with np.errstate(over="ignore"):  # what float32 can't hold becomes Inf, and is refused by row below
                rows = rows.astype(np.float32)
        tags = None if labels is None else as_array(labels)
        bank = cls(np.ascontiguousarray(rows), tags, Meaning(flips, low, high, name), **words)
        if rows.dtype != np.uint8:
            refuse_non_finite(rows, "array")
        return bank

    @classmethod
    def open(cls, path: str | Path) -> Bank:
        """Open a bank folder: the manifest, the labels and the mean are read; rows are read from the disk whenever they are asked for.

        Raises:
            InputError: The folder is missing, is no bank, or its files were cut. Later reads raise it when the file was cut, changed
                or replaced meanwhile.
        """
        found = read_bank(Path(path))
        manifest, names = found.manifest, found.manifest["class_names"]
        low, high = (manifest["low"], manifest["high"]) if found.rows.dtype == np.uint8 else (-1.0, 1.0)
        return cls(
            found.rows, found.labels, Meaning(manifest["flips"], low, high, manifest["name"]), class_names=names,
            manifest=manifest, mean=found.mean, names=found.names, groups=found.groups,
        )  # fmt: skip

    @classmethod
    def build(
        cls, source: str | Path | np.ndarray | Tensor, out: str | Path, *, force: bool = False, progress: Progress = quiet, **options: Any
    ) -> Bank:
        """Build a bank folder in one pass that keeps memory flat, and open it; killed at any moment, it is simply run again.

        Args:
            source: A path in any of the layouts of `scorescope.rows.readers`, FILE.py:FUNCTION that yields rows, or an array
                (N, *shape).
            out: The folder to make, by custom NAME.bank.
            force: Replace a bank that is already there, once the new one is whole.
            progress: Told (what is done, rows done, rows in all) now and then.
            **options: The fields of `scorescope.rows.options.Options`.

        Raises:
            InputError: Bad input of any kind; nothing is left behind then.
        """
        from scorescope.rows.sources import read_source

        chosen, target = Options(**options), Path(out)
        chosen.validate()
        refuse_existing(target, force)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # Remarks about odd files; what can't be read is an error by name.
            rows = read_source(source if isinstance(source, (str, Path)) else as_array(source), chosen, progress)
            write_bank(rows, target, Meaning(chosen.flips, *chosen.low_high, chosen.name), force=force, progress=progress)
        return cls.open(target)

    def save(self, path: str | Path, *, force: bool = False) -> Bank:
        """Write a bank that is in memory (or elsewhere on disk) to a folder, and return it opened from there."""
        step = batch_rows(self.rows[0].nbytes)
        source = Source(
            where=str(self.manifest.get("source", "arrays")),
            shape=self.rows.shape,
            dtype=self.rows.dtype,
            batches=lambda: (self.stored(start, start + step) for start in range(0, len(self.rows), step)),
            labels=self.labels,
            class_names=self.class_names,
            transform=tuple(self.manifest.get("transform", ())),
            names=self.names,
            groups=self.groups,
        )
        write_bank(source, Path(path), self.meaning, force=force)
        return Bank.open(path)

    @property
    def meaning(self) -> Meaning:
        """What the stored rows stand for."""
        return Meaning(self.flips, self.low, self.high, self.name)

    # ---- size ---------------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of rows the empirical distribution has: N, or 2N with flips."""
        return len(self.rows) * (2 if self.flips else 1)

    @property
    def d(self) -> int:
        """Dimensions of a row."""
        return math.prod(self.shape)

    @cached_property
    def classes(self) -> int:
        """Number of classes: one more than the largest label; 0 without labels."""
        if self.labels is None:
            return 0
        return max(int(self.labels.max()) + 1, len(self.class_names or ()))

    def class_name(self, label: int) -> str:
        """What to call a class in a report."""
        return self.class_names[label] if self.class_names else str(label)

    @cached_property
    def fingerprint(self) -> str:
        """Content hash of the bank; two banks with the same fingerprint have the same empirical score."""
        if "fingerprint" in self.manifest:
            return str(self.manifest["fingerprint"])
        return fingerprint_of(self.description(), self.rows, self.labels)

    def identity(self) -> str:
        """The fingerprint: what else a bank has changes no answer."""
        return self.fingerprint

    def description(self) -> dict[str, Any]:
        """What, beside rows and labels, defines the bank in model space; part of the fingerprint."""
        return description_of(self.rows.dtype, self.rows.shape, flips=self.flips, low=self.low, high=self.high)

    # ---- rows ---------------------------------------------------------------------------------------------------------------

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Stored rows to float32 rows in model space."""
        return decode(stored, self.low, self.high)

    def stored(self, start: int, stop: int) -> np.ndarray:
        """Rows start … stop − 1 as stored (n, *shape), not decoded; from disk by one read, in order."""
        return np.asarray(self.rows[start:stop])

    def stored_at(self, index: np.ndarray) -> np.ndarray:
        """Rows as stored (B, *shape), not decoded, by stored indices (B,) in [0, N) in any order; from disk each is read once."""
        return np.asarray(self.rows[np.asarray(index)])

    def __getitem__(self, index: int | np.ndarray | Tensor) -> Tensor:
        """Rows in model space, float32: (*shape) for an integer, (B, *shape) for indices (B,). Index N + i is row i mirrored."""
        if isinstance(index, (int, np.integer)):
            return self[np.array([index])][0]
        wanted = index.cpu().numpy() if isinstance(index, Tensor) else np.asarray(index)
        if wanted.size and (wanted.dtype.kind not in "iu" or wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"rows {wanted.reshape(-1)[:5].tolist()} … of a bank of {len(self)}")
        n, wanted = len(self.rows), wanted.astype(np.int64)
        x = self.decode(self.stored_at(wanted % n))
        mirrored = wanted >= n
        x[mirrored] = x[mirrored][..., ::-1]
        return torch.from_numpy(x)

    def indices(self, label: int | None = None) -> np.ndarray:
        """Indices of the stored rows of one class (all rows for None), in order; mirrored ones not listed."""
        if label is None:
            return np.arange(len(self.rows))
        if self.labels is None:
            raise InputError("the bank has no labels, so it has no classes", "label=None, or a bank built with labels")
        order, tags = self._by_class
        first, last = np.searchsorted(tags, [label, label + 1])
        if first == last:
            raise InputError(f"no row of the bank has label {label}; it has classes 0 to {self.classes - 1}", "a label with rows")
        return order[first:last].copy()

    @cached_property
    def _by_class(self) -> tuple[np.ndarray, np.ndarray]:
        """Stored rows sorted by class, in order within each, and their labels."""
        assert self.labels is not None, "asked of banks with labels alone"
        order = np.argsort(self.labels, kind="stable")
        return order, self.labels[order]

    def blocks(self, size: int, label: int | None = None, mirrored: bool = True) -> Iterator[Block]:
        """All rows once and in order, `size` stored rows at a time, then their mirror images if `mirrored`; of one class, or all."""
        n, wanted = len(self.rows), self.indices(label)
        for flip in (False, True) if self.flips and mirrored else (False,):
            for start in range(0, len(wanted), size):
                index = wanted[start : start + size]
                contiguous = len(index) == index[-1] - index[0] + 1
                x = self.decode(self.stored(int(index[0]), int(index[-1]) + 1) if contiguous else self.stored_at(index))
                if flip:
                    x = np.ascontiguousarray(x[..., ::-1])
                yield Block(torch.from_numpy(x.reshape(len(index), -1)), index + n if flip else index)

    # ---- names ----------------------------------------------------------------------------------------------------------------

    @cached_property
    def names(self) -> tuple[str, ...] | None:
        """A name for each stored row, or None; read from the disk when first asked for."""
        return self._names() if callable(self._names) else self._names

    @cached_property
    def groups(self) -> tuple[str, ...] | None:
        """What rows that belong together share (a patient, a video), a word for each stored row, or None; read when first asked for."""
        return self._groups() if callable(self._groups) else self._groups

    def row_name(self, index: int) -> str:
        """What to call row `index`: its name, or its number where rows have none; N + i is row i mirrored, and says so."""
        n = len(self.rows)
        if not 0 <= index < len(self):
            raise InputError(f"bank {self.name} has no row {index}", f"0 to {len(self) - 1}")
        name = self.names[index % n] if self.names is not None else str(index % n)
        return f"{name} (mirrored)" if index >= n else name

    def row_named(self, name: str) -> int:
        """The index of the row of this name, or of this number.

        Raises:
            InputError: There is none, or there are several; the line names what is near.
        """
        names = self.names or ()
        found = [index for index, known in enumerate(names) if known == name]
        if len(found) == 1:
            return found[0]
        if found:
            listed = f"{', '.join(map(str, found[:5]))}{', …' if len(found) > 5 else ''}"
            raise InputError(f"bank {self.name} has {len(found)} rows named {name!r} ({listed})", f"the row's number, e.g. {found[0]}")
        if name.isascii() and name.isdigit() and int(name) < len(self):
            return int(name)
        near = difflib.get_close_matches(name, names[:NEAR_NAMES], n=1, cutoff=0.4)
        hint = repr(near[0]) if near else f"a number from 0 to {len(self) - 1:,}"
        raise InputError(f"bank {self.name} has no row {name!r}{'' if names else ', and its rows have no names'}", hint)

    # ---- statistics -----------------------------------------------------------------------------------------------------------

    @cached_property
    def mean(self) -> Tensor:
        """Mean of all rows (*shape), float64."""
        return self._moments[0]

    @cached_property
    def radius(self) -> float:
        """Root mean square distance of the rows from their mean: the scale against which errors are stated."""
        return self._moments[1]

    @cached_property
    def _moments(self) -> tuple[Tensor, float]:
        """As the build recorded them, else by one pass."""
        if self._recorded_mean is not None:
            return torch.from_numpy(self._recorded_mean), float(self.manifest["radius"])
        total = torch.zeros(self.d, dtype=torch.float64)
        square = 0.0
        shift: Tensor | None = None
        for block in self.blocks(4096):
            x = block.x.double()
            shift = x[0].clone() if shift is None else shift
            x = x - shift
            total += x.sum(0)
            square += float(x.square().sum())
        assert shift is not None
        offset = total / len(self)
        variance = max(square / len(self) - float(offset.square().sum()), 0.0)
        mean = (shift + offset).reshape(self.shape)
        # The mean of rows and their mirror images is its own mirror image, to the last bit.
        return (mean + mean.flip(-1)) / 2 if self.flips else mean, variance**0.5

    def __repr__(self) -> str:
        extra = f", {self.classes} classes" if self.classes else ""
        return f"Bank({self.name!r}, {len(self.rows):,} × {self.shape}{extra}{', flips' if self.flips else ''})"
