"""Supervision loss (C.8) and the loss that training sees: DSM loss = supervision loss + an optimum that no model can beat.

In the x parameterization the optimum is J*_t = E‖x‖² − E‖E[x | z_t]‖², so the mean of `dsm_loss − dsm_optimum` over the supervision
region must agree with that of `score_error`: two ways to measure one quantity, the second without the cross term.
"""

from __future__ import annotations

from scorescope.probes.base import Arrays, StateProbe, Variable, View, squared


def measure(view: View) -> Arrays:
    """Both per dimension and in units of the velocity, as the score error."""
    assert view.source is not None
    scale = view.t**2 * view.d
    optimum = squared(view.source.x) - squared(view.truth.conditional.mean)
    return {"dsm_loss": squared(view.model_mean - view.source.x) / scale, "dsm_optimum": optimum / scale}


PROBE = StateProbe(
    "supervision-loss",
    "DSM loss and its optimum",
    {
        "dsm_loss": Variable("denoising score matching loss per dimension", "squared data units"),
        "dsm_optimum": Variable("its optimum, one state's share", "squared data units"),
    },
    measure,
    regions=("supervision",),
)
