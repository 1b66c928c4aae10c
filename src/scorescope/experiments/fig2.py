"""Fig. 2 (Example 3.1, C.2): conditional against unconditional score, exact and learned, in both regions."""

from __future__ import annotations

from scorescope.experiments.examined import caption, cell, figure, only, reading
from scorescope.experiments.experiment import Cell, Experiment
from scorescope.experiments.shipped import LOOKS, SETTING, about, make, trainings


def cells(scale: str) -> list[Cell]:
    """One examination."""
    return [cell(LOOKS[scale](("guidance-gap",)), make, ("gap_empirical", "gap_learned", "score_norm", "label"), about(scale))]


EXPERIMENT = Experiment(
    "fig2",
    20,
    "The guidance paradox (Fig. 2, C.2)",
    "Why does guidance change samples, although the two scores that it sets apart are the same where the model was trained?",
    "On the shells one row has all the weight, with its class or without, so that the exact scores agree. Sampling runs where the learned "
    "ones are free to differ.",
    SETTING,
    cells,
    only,
    figure("guidance_gap"),
    caption("guidance_gap"),
    (reading("guidance", "on the shells the two empirical scores coincide; along sampling the learned ones differ at all t (Fig. 2)"),),
    {
        "desk": "The paper shows two of these four curves. The learned gap is as large on the shells as along sampling: networks of this "
        "size do not fit the empirical score closely enough for it to vanish there, so that this alone does not show what makes guidance "
        "work.",
    },
    trainings=trainings,
)
