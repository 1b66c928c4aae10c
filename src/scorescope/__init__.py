"""scorescope: a microscope for trained diffusion models.

    import scorescope as ss

    bank = ss.Bank.open("photos.bank")
    truth = ss.EmpiricalScore(bank, ss.LinearSchedule())
    run = ss.examine(ss.load("model.safetensors"), bank)
    run.report("report.html")

Names are imported on first use, so that `import scorescope` and the command line's help stay instant.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.2.0"

_HOME = {
    "Bank": "rows",
    "LinearSchedule": "schedule",
    "VPSchedule": "schedule",
    "CosineSchedule": "schedule",
    "DiscreteSchedule": "schedule",
    "SubVPSchedule": "schedule",
    "VESchedule": "schedule",
    "Schedule": "schedule",
    "Denoiser": "denoiser",
    "NetworkDenoiser": "denoiser",
    "Conditioned": "networks",
    "Guided": "denoiser",
    "EmpiricalScore": "empirical",
    "Posterior": "empirical",
    "sharded_score": "distributed",
    "GaussianScore": "theories.gaussian",
    "neighbours": "search",
    "closest_pairs": "search",
    "sample": "sampler",
    "Solver": "sampler",
    "trajectory": "sampler",
    "load": "choice",
    "check": "choice",
    "examine": "examination",
    "Run": "examination",
    "InputError": "errors",
}

_PARTS = ("evaluate",)  # modules whose names are used through the package: ss.evaluate.compare

__all__ = [*_HOME, *_PARTS, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _PARTS:
        return importlib.import_module(f"scorescope.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'scorescope' has no attribute {name!r}")
    return getattr(importlib.import_module(f"scorescope.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
