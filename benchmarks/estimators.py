"""Do the numbers of a report depend on how they were asked for? The demo's middle network at 25 to 200 times, and by four solvers.

    python benchmarks/estimators.py        about ten minutes

Printed are the score errors, averaged over t from 0.1 to 1, in all regions, and the largest relative difference from the first line.
"""

from __future__ import annotations

import numpy as np

import scorescope as ss
from scorescope import demo
from scorescope.claims import fit

REGIONS = ("supervision", "extrapolation", "renoised", "held-out")
TIMES = [{"times": n, "solver": "heun", "steps": 40} for n in (25, 50, 100, 200)]
STEPS = {"heun": 60, "euler": 200, "dopri5": 50, "ancestral": 200}
SOLVERS = [{"times": 50, "solver": name, "steps": steps} for name, steps in STEPS.items()]


def errors(options: dict[str, object]) -> np.ndarray:
    """The mean error in each region."""
    model = ss.load(demo.model_path("demo-m"))
    probes = ["score-error", "relative-distance"]
    run = ss.examine(model, demo.digits(), probes, held_out=demo.held_out_digits(), paths=48, quiet=True, **options)
    return np.array([np.nanmean(fit.errors(run.results, model.name, region)) for region in REGIONS])


if __name__ == "__main__":
    for several in (TIMES, SOLVERS):
        first: np.ndarray | None = None
        for options in several:
            found = errors(options)
            first = found if first is None else first
            apart = 100 * np.abs(found / first - 1).max()
            told = ", ".join(f"{region} {value:.4f}" for region, value in zip(REGIONS, found, strict=True))
            print(f"{options}: {told}; {apart:.2f} % from the first", flush=True)
