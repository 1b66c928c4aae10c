"""The rows themselves, as they are: for anything, also vectors and latents. Says little about what images show."""

from __future__ import annotations

from torch import Tensor

from scorescope.evaluate.extractors import Extractor, Options


def _flat(rows: Tensor) -> Tensor:
    return rows.flatten(1)


def build(options: Options) -> Extractor:
    """Takes no options."""
    return Extractor(_flat, "pixels", "rows", takes="rows", cached=False)
