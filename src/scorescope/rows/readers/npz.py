"""Arrays in an .npz file: rows as `x`, `images`, `data`, `latents` or `arr_0`, labels as `y`, `labels`, `label`, or `arr_1` (ADM's)."""

from __future__ import annotations

from pathlib import Path

from scorescope.rows.arrays import container_source
from scorescope.rows.options import Options
from scorescope.rows.raw import npz
from scorescope.rows.storage import Progress, Source


def accepts(path: Path) -> bool:
    """NAME.npz."""
    return path.suffix.lower() == ".npz"


def source(path: Path, options: Options, progress: Progress) -> Source:
    """The rows of one array, the labels of another."""
    options.refuse(str(path), "arrays", "columns")
    return container_source(npz(path), str(path), options)
