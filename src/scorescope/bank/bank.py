"""The training set as rows: in memory or read from disk as they are asked for, in model space, addressed by index.

On disk a bank is a folder: `rows.safetensors` holds the rows as they were stored (8-bit images stay 8-bit) and the labels,
`manifest.json` says what they are. Rows in model space are `low + (high − low)·u/255` for 8-bit storage and the stored
number itself otherwise. Horizontal flips are a flag, not a second copy: index `N + i` is row `i` mirrored along its last axis.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from scorescope.bank.tensors import StoredRows
from scorescope.errors import InputError

if TYPE_CHECKING:
    from scorescope.bank.pairs import ClosestPairs
    from scorescope.bank.shadow import Shadow

SCHEMA = 1


@dataclass(frozen=True)
class Block:
    """Consecutive rows of one pass: `x` (n, d) float32 in model space, `index` (n,) their indices in the bank."""

    x: Tensor
    index: np.ndarray


def fingerprint_of(description: Mapping[str, Any], rows: np.ndarray | StoredRows, labels: np.ndarray | None) -> str:
    """SHA-256 of everything that defines the rows in model space: storage, value range, flips, the rows and the labels."""
    digest = hashlib.sha256(json.dumps(dict(description), sort_keys=True).encode())
    for start in range(0, len(rows), 1024):
        digest.update(np.ascontiguousarray(rows[start : start + 1024]).tobytes())
    if labels is not None:
        digest.update(b"labels" + np.ascontiguousarray(labels, dtype="<i8").tobytes())
    return digest.hexdigest()


def description_of(dtype: np.dtype[Any], shape: Sequence[int], *, flips: bool, low: float, high: float) -> dict[str, Any]:
    """What, beside rows and labels, defines a bank of `shape` (N, *row) in model space; part of the fingerprint."""
    scaled = {"low": low, "high": high} if dtype == np.uint8 else {}
    return {"schema": SCHEMA, "dtype": dtype.name, "shape": list(shape), "flips": flips, **scaled}


def decode(stored: np.ndarray, low: float, high: float) -> np.ndarray:
    """Stored rows to float32 rows in model space."""
    if stored.dtype == np.uint8:
        table = (low + (high - low) * np.arange(256, dtype=np.float64) / 255.0).astype(np.float32)
        return table[stored]
    return stored.astype(np.float32)


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
        *,
        flips: bool = False,
        low: float = -1.0,
        high: float = 1.0,
        class_names: tuple[str, ...] | None = None,
        name: str = "bank",
        manifest: Mapping[str, Any] | None = None,
        mean: np.ndarray | None = None,
    ) -> None:
        if rows.dtype not in (np.uint8, np.float16, np.float32):
            raise InputError(f"rows of type {rows.dtype} can't be stored", "uint8, float16 or float32")
        if rows.ndim < 2 or rows.size == 0:
            raise InputError(f"rows of shape {rows.shape} are not a bank", "an array (N, *shape) with N ≥ 1")
        if flips and rows.ndim < 3:
            raise InputError(f"flips need rows with a width, these have shape {rows.shape[1:]}", "a bank without flips")
        if labels is not None and labels.shape != (len(rows),):
            raise InputError(f"labels of shape {labels.shape} do not match {len(rows)} rows", "one label a row")
        if labels is not None and class_names is not None and labels.max() >= len(class_names):
            raise InputError(f"label {labels.max()} has no name among the {len(class_names)} class names", "one name a class")
        if rows.dtype == np.uint8 and not low < high:
            raise InputError(f"8-bit values from {low} to {high} are not a range", "low below high")
        self.rows, self.flips, self.low, self.high = rows, flips, float(low), float(high)
        self.labels = None if labels is None else np.ascontiguousarray(labels, dtype=np.int64)
        self.class_names, self.name, self.manifest = class_names, name, dict(manifest or {})
        self.shape: tuple[int, ...] = tuple(rows.shape[1:])
        self._recorded_mean = mean
        self._shadow: Shadow | None = None

    @classmethod
    def from_arrays(cls, x: np.ndarray | Tensor, labels: np.ndarray | Tensor | None = None, flips: bool = False, **options: Any) -> Bank:
        """A bank in memory.

        Args:
            x: (N, *shape). uint8 is mapped to [low, high] (−1 and 1 unless given); floats are taken as they are, in float32.
            labels: (N,) integers from 0, or None.
            flips: Let every row also stand for its mirror image along the last axis.
            **options: `low`, `high`, `class_names`, `name` of the constructor.

        Raises:
            InputError: Empty or mixed shapes, NaN or Inf (the rows are named), labels of another length or below 0.
        """
        try:
            rows = x.detach().cpu().numpy() if isinstance(x, Tensor) else np.asarray(x)
        except ValueError as problem:
            raise InputError("rows of mixed shape are not a bank", "rows that all have the shape of row 0") from problem
        if rows.dtype not in (np.uint8, np.float16):
            if rows.dtype.kind not in "fiu":
                raise InputError(f"rows of type {rows.dtype} are not numbers", "a float or uint8 array (N, *shape)")
            with np.errstate(over="ignore"):  # what float32 can't hold becomes Inf, and is refused by row below
                rows = rows.astype(np.float32)
        tags = None
        if labels is not None:
            tags = labels.detach().cpu().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
            if tags.dtype.kind not in "iu":
                raise InputError(f"labels of type {tags.dtype} are not integers", "class numbers from 0")
            if tags.size and tags.min() < 0:
                raise InputError(f"label {tags.min()} is negative", "class numbers from 0")
        bank = cls(np.ascontiguousarray(rows), tags, flips=flips, **options)
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
        from scorescope.bank.storage import open_bank

        return open_bank(Path(path))

    @classmethod
    def build(cls, source: str | Path | np.ndarray, out: str | Path, **options: Any) -> Bank:
        """Build a bank folder from a folder of images, an array file, a dataset or an array: see `scorescope.bank.build.build`."""
        from scorescope.bank.build import build

        return build(source, out, **options)

    def save(self, path: str | Path, *, force: bool = False) -> Bank:
        """Write the bank to a folder and return it opened from there: see `scorescope.bank.storage.save_bank`."""
        from scorescope.bank.storage import save_bank

        return save_bank(self, path, force=force)

    # ---- size ---------------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of rows the empirical distribution has: N, or 2N with flips."""
        return len(self.rows) * (2 if self.flips else 1)

    @property
    def d(self) -> int:
        """Dimensions of a row."""
        return int(np.prod(self.shape))

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

    @property
    def shadow(self) -> Shadow | None:
        """The 8-bit copy that `scorescope bank shadow` made beside the rows; None where there is none.

        Raises:
            InputError: It was cut or altered, or was made of other rows.
        """
        if self._shadow is None:
            from scorescope.bank.shadow import open_shadow

            self._shadow = open_shadow(self)
        return self._shadow

    def __getitem__(self, index: int | np.ndarray | Tensor) -> Tensor:
        """Rows in model space, float32: (*shape) for an integer, (B, *shape) for indices (B,). Index N + i is row i mirrored."""
        if isinstance(index, (int, np.integer)):
            return self[np.array([index])][0]
        wanted = (index.cpu().numpy() if isinstance(index, Tensor) else np.asarray(index)).astype(np.int64)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"row {wanted.max()} of a bank of {len(self)}")
        n = len(self.rows)
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
        found = np.flatnonzero(self.labels == label)
        if not len(found):
            raise InputError(f"no row of the bank has label {label}; it has classes 0 to {self.classes - 1}", "a label with rows")
        return found

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

    # ---- distances ----------------------------------------------------------------------------------------------------------

    def neighbours(self, x: Tensor, k: int, *, without: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The k nearest rows of points x (B, *shape), exact: indices (B, k) and Euclidean distances (B, k) float64, nearest first.

        Computed on the device of x; the rows are read once and in order, whatever B. Mirrored rows count where the bank has flips.
        Distances are those of direct differences in float64, ties go to the smaller index. k is cut to the number of rows there are.

        Args:
            x: Points in model space.
            k: How many rows.
            without: (B,) a stored row that each point must not find (its own, and that row's mirror image).

        Raises:
            InputError: Points of another shape, or not finite (named); k below 1.
        """
        from scorescope.bank.neighbours import nearest_rows

        return nearest_rows(self, x, k, without)

    def closest_pairs(self, *, device: torch.device | str = "cpu", progress: Callable[[str, int, int], None] | None = None) -> ClosestPairs:
        """The closest pair of rows, that of every class, and all exact duplicates, exact: what C(t) needs (B.2).

        With flips a row may also be close to another row's mirror image. 50,000 × 3,072 8-bit rows of ten classes take seconds on two
        cores; see `scorescope.bank.pairs` for what it costs, which grows with N² at worst.

        Args:
            device: Where to compute.
            progress: Told (what is done, how much of it, out of how much) now and then.
        """
        from scorescope.bank.pairs import closest_pairs
        from scorescope.bank.storage import quiet

        return closest_pairs(self, device, progress or quiet)

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


def refuse_non_finite(rows: np.ndarray, source: str) -> None:
    """Raise `InputError` naming the rows (at most five) that contain NaN or Inf."""
    bad = np.concatenate([~np.isfinite(part.reshape(len(part), -1)).all(1) for part in np.array_split(rows, max(1, len(rows) // 4096))])
    if bad.any():
        raise non_finite(source, np.flatnonzero(bad)[:5].tolist(), int(bad.sum()), len(rows))


def non_finite(source: str, named: Sequence[int], count: int, total: int) -> InputError:
    """The error for rows with NaN or Inf, of which the first few are named."""
    rows = f"row {named[0]} contains" if count == 1 else f"rows {', '.join(map(str, named))}{', …' * (count > len(named))} contain"
    return InputError(f"{source}: {rows} NaN or Inf ({count:,} of {total:,})", "drop or repair them")
