"""Guidance gap (Example 3.1, Fig. 2): ‖s^c − s^∅‖ of the exact scores and of the learned ones, beside the norm of the exact score."""

from __future__ import annotations

from torch import Tensor

from scorescope.probes.base import Arrays, StateProbe, Variable, View, squared


def measure(view: View) -> Arrays:
    """S = (α x̂ − z)/σ², so the gap is α/σ² times that of the posterior means; α/σ² = (1 − t)/t² on the linear path."""
    scale = (1 - view.t) / view.t**2

    def gap(conditional: Tensor, free: Tensor) -> Tensor:
        return scale * squared(conditional - free).sqrt()

    truth = view.truth
    norm = squared((1 - view.t) * truth.conditional.mean - view.z).sqrt() / view.t**2
    return {
        "score_norm": norm,
        "gap_empirical": gap(truth.conditional.mean, truth.whole.mean),
        "gap_learned": gap(view.model_mean, view.model_free),
    }


PROBE = StateProbe(
    "guidance-gap",
    "conditional against unconditional score",
    {
        "gap_empirical": Variable("difference of the exact conditional and unconditional scores", "1 / data units"),
        "score_norm": Variable("norm of the exact conditional score", "1 / data units"),
        "gap_learned": Variable("difference of the learned conditional and unconditional scores", "1 / data units"),
    },
    measure,
    needs_guidance=True,
)
