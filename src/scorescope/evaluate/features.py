"""Features of rows, kept on disk: for each bank and extractor, parts of 1,024 rows that are written as they are done.

Rows are taken in a shuffled order that belongs to the number of rows, so that any first n of it are a fair draw however the bank is
sorted. The cache lies in `--cache`, else in $SCORESCOPE_CACHE, else in ~/.cache/scorescope. A part that can't be read whole, or whose hash
is wrong, is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scorescope import seeds
from scorescope.errors import InputError
from scorescope.evaluate.extractors import Extractor
from scorescope.evaluate.frechet import Moments
from scorescope.files import write_tensors
from scorescope.rows import Bank
from scorescope.rows.pixels import images, value_range

SCHEMA = 1
PART = 1024
Tick = Callable[[int], None]


class Features:
    """Features of one bank by one extractor.

    Args:
        bank: Whose rows; mirrored ones are left out.
        extractor: How.
        cache: The folder, or None to keep nothing.
        device: Where to compute.
        batch: Rows at a time.
        tick: Called with the number of rows whenever some are done.
        real: The bank whose range of values floats are seen in; their own unless given.

    Raises:
        InputError: Rows that are no images, for an extractor that takes them.
    """

    def __init__(
        self,
        bank: Bank,
        extractor: Extractor,
        cache: Path | None,
        device: str = "cpu",
        batch: int = 64,
        tick: Tick | None = None,
        real: Bank | None = None,
    ) -> None:
        seen = real if real is not None and bank.rows.dtype != np.uint8 else bank
        self.range = value_range(seen, "--extractor pixels") if extractor.takes == "images" else None
        self.bank, self.extractor, self.device, self.batch, self.tick = bank, extractor, device, batch, tick
        self.counted: set[int] = set()  # parts that have been told of: some are asked for twice
        self.order = seeds.generator(0, "evaluate", 0).permutation(len(bank.rows))
        key: dict[str, Any] = {"schema": SCHEMA, "bank": bank.fingerprint, "extractor": extractor.identity, "takes": extractor.takes}
        if self.range is not None and bank.rows.dtype != np.uint8:  # of 8 bits the fingerprint says it
            key["range"] = self.range
        self.key = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        self.folder = cache / "features" / self.key if cache is not None and extractor.cached else None
        self._moments = None if cache is None else cache / "features" / self.key

    def first(self, n: int, start: int = 0) -> Tensor:
        """Features (n − start, d) float32 of rows start … n − 1 in the shuffled order."""
        parts = []
        for begin in range(start - start % PART, n, PART):
            end = min(begin + PART, len(self.order))
            found = self._part(begin, end)
            parts.append(found[max(start - begin, 0) : n - begin])
        return torch.cat(parts)

    def moments(self, n: int) -> Moments:
        """Mean and covariance of the first n."""
        path = None if self._moments is None else self._moments / f"moments-{n}.safetensors"
        found = None if path is None else _read(path)
        if found is not None and {"mean", "factor"} <= found.keys():
            return Moments(n, found["mean"], found["factor"])
        made = Moments.of(self.first(n))
        if path is not None and n > len(made.mean):  # with fewer rows than features they are no smaller than the features
            _write(path, {"mean": made.mean, "factor": made.factor})
        return made

    def _part(self, begin: int, end: int) -> Tensor:
        path = None if self.folder is None else self.folder / f"rows-{begin:08d}.safetensors"
        found = None if path is None else _read(path)
        if found is not None and len(found.get("features", ())) == end - begin:
            made = found["features"]
        else:
            made = self._compute(self.order[begin:end])
            if path is not None:
                _write(path, {"features": made})
        if self.tick and begin not in self.counted:
            self.counted.add(begin)
            self.tick(end - begin)
        return made

    @torch.inference_mode()
    def _compute(self, index: np.ndarray) -> Tensor:
        net, parts = self.extractor.to(self.device), []
        for part in np.array_split(index, range(self.batch, len(index), self.batch)):
            rows = self.bank[part].to(self.device)
            found = net.net(rows if self.range is None else images(rows, *self.range))
            if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(rows):
                said = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise InputError(f"extractor {net.name} answered {len(rows)} rows with {said}", f"features ({len(rows)}, d)")
            broken = (~found.isfinite().all(1)).nonzero().flatten()
            if len(broken):
                raise InputError(
                    f"extractor {net.name} answered row {part[int(broken[0])]} of {self.bank.name} with NaN or Inf", "a sound extractor"
                )
            parts.append(found.float().cpu())
        return torch.cat(parts)


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _write(path: Path, tensors: dict[str, Tensor]) -> None:
    write_tensors(path, tensors, {"sha256": _digest(tensors)})


def _read(path: Path) -> dict[str, Tensor] | None:
    """A file of the cache, or None where it is missing, cut or altered."""
    try:
        with safe_open(path, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            said = (opened.metadata() or {}).get("sha256")
    except (SafetensorError, OSError):
        return None
    return tensors if said == _digest(tensors) else None
