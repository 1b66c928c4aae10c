"""Training recipes compared on one bank: every run's supervision loss and the Fréchet distance of its samples, and what follows.

    OUT/run.json                     settings; the same command continues, with other runs, too
    OUT/cells/RUN/time-0003.npz      errors of a run at one time;  OUT/cells/RUN/frechet.npz its distance, and every sample's influence
    OUT/samples/RUN/…                its samples, each folder a run of its own
    OUT/points.csv  compare.json  compare.nc  compare.svg  compare.png

What the numbers say is `scorescope.recipes`, which knows neither models nor files.
"""

from __future__ import annotations

from scorescope import runs

POINTS, RECORD, RESULTS, CHART = "points.csv", "compare.json", "compare.nc", "compare"
KIND = runs.Kind(
    "a comparison of recipes",
    (POINTS, RECORD, RESULTS, f"{CHART}.svg", f"{CHART}.png", "cells/*/time-[0-9]*.npz", "cells/*/frechet.npz"),
)
