"""How good samples are, and what a network costs.

    ss.evaluate.compare(samples, bank)       Fréchet distance, precision and recall of samples against a bank
    ss.evaluate.generate(model, sampling, out)   samples of a model, in a folder that a killed run continues
    ss.evaluate.flops(model)                 floating-point operations of one forward pass

A Fréchet distance is called what it is: "FID" only with the published Inception weights, "FD-lite0", "FD-pixels" or "FD-…" otherwise.
Names are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "compare": "comparison",
    "Comparison": "comparison",
    "Extractor": "extractors",
    "extractor": "extractors",
    "flops": "operations",
    "Flops": "operations",
    "frechet_distance": "frechet",
    "Moments": "frechet",
    "precision_recall": "manifold",
    "generate": "drawing",
    "Sampling": "options",
    "open_samples": "samples",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'scorescope.evaluate' has no attribute {name!r}")
    return getattr(importlib.import_module(f"scorescope.evaluate.{_HOME[name]}"), name)
