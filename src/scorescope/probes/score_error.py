"""Score error (Experiment 4.1, Fig. 3): λ(t)‖s_θ − s*‖² with λ = t²/(1 − t)², which is ‖x̂_θ − x̂*‖²/t², the velocity error."""

from __future__ import annotations

from scorescope.probes.base import Arrays, StateProbe, Variable, View, squared


def measure(view: View) -> Arrays:
    """Per dimension, the error and the Gaussian denoiser's; the distance from the model's mean to the row that the exact one favours."""
    exact = view.truth.conditional
    nearest = view.truth.rows(exact.top_index)
    found = {
        "score_error": squared(view.model_mean - exact.mean) / (view.t**2 * view.d),
        "mean_to_nearest": (squared(view.model_mean - nearest) / view.d).sqrt(),
    }
    if view.baseline is not None:
        found["gaussian_error"] = squared(view.baseline_mean - exact.mean) / (view.t**2 * view.d)
    return found


PROBE = StateProbe(
    "score-error",
    "score error against the exact score",
    {
        "score_error": Variable("weighted score error per dimension", "squared data units"),
        "gaussian_error": Variable("the same of the bank's Gaussian denoiser, at the same states", "squared data units"),
        "mean_to_nearest": Variable("distance from the model's posterior mean to the nearest row, per √dimension", "data units"),
    },
    measure,
)
