"""Supervision loss (C.8) and the loss that training sees: DSM loss = supervision loss + an optimum that no model can beat.

In the x parameterization the optimum is J*_t = E‖x‖² − E‖E[x | z_t]‖², so the mean of `dsm_loss − dsm_optimum` over the supervision
region must agree with that of `score_error`: two ways to measure one quantity, the second without the cross term.
"""

from __future__ import annotations

import torch

from scorescope.probes.base import Arrays, StateProbe, Variable, View, squared


def measure(view: View) -> Arrays:
    """Both per dimension and in units of the velocity, as the score error."""
    assert view.source is not None
    scale = view.t**2 * view.d
    optimum = squared(view.source.x) - squared(view.truth.conditional.mean)
    if view.region != "supervision":  # for rows outside of the bank the exact posterior is no optimum
        optimum = torch.full_like(optimum, torch.nan)
    found = {"dsm_loss": squared(view.model_mean - view.source.x) / scale, "dsm_optimum": optimum / scale}
    if view.baseline is not None:
        found["gaussian_loss"] = squared(view.baseline_mean - view.source.x) / scale
    return found


PROBE = StateProbe(
    "supervision-loss",
    "DSM loss and its optimum",
    {
        "dsm_loss": Variable("denoising score matching loss per dimension", "squared data units"),
        "gaussian_loss": Variable("the same of the bank's Gaussian denoiser", "squared data units"),
        "dsm_optimum": Variable("its optimum, one state's share", "squared data units"),
    },
    measure,
    regions=("supervision", "held-out"),
)
