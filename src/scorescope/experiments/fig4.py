"""Fig. 4 (Experiment 4.2, C.4, B.2): return to the origin from the shells, and where the shells begin to overlap."""

from __future__ import annotations

from scorescope.experiments.examined import caption, cell, figure, only, reading
from scorescope.experiments.experiment import Cell, Experiment
from scorescope.experiments.shipped import LOOKS, SETTING, about, make, trainings

KEPT = (
    *("returned", "returned_held_out", "return_last", "return_lost", "return_last_held_out", "return_lost_held_out"),
    *("overlap", "overlap_distinct", "overlap_class", "overlap_class_distinct", "duplicates", "closest_pair", "closest_distance"),
    *("origin_row", "label"),
)


def cells(scale: str) -> list[Cell]:
    """One examination."""
    return [cell(LOOKS[scale](("return-to-origin", "shell-overlap")), make, KEPT, about(scale))]


EXPERIMENT = Experiment(
    "fig4",
    40,
    "Memorization inside the region (Fig. 4, C.4, B.2)",
    "Does a model that draws new images give training rows back where it was trained, and up to which noise?",
    "On the shells it learned the empirical score, which leads back to the row; that ends where shells begin to overlap. Rows that it "
    "never saw are the control: any denoiser gives those back from little noise.",
    SETTING,
    cells,
    only,
    figure("return_to_origin"),
    caption("return_to_origin"),
    (
        reading(
            "returns", "training images come back from t up to about 0.8 (ImageNet, one class; Fig. 4). It has no control of unseen images"
        ),
        reading("overlap", "the shells of a class stay apart for most of the time (B.2, Fig. 4 right)"),
    ),
    {
        "desk": "Rows that the networks never saw come back as far as training rows do: here the return is what any good denoiser does, "
        "not memory. Among 4,500 digits two ones are 2.5 apart, so that their shells meet early."
    },
    trainings=trainings,
)
