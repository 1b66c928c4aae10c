"""Relative distance r* (Eq. 4, Fig. 1b): is a state on a training shell? 1 on a shell, above 1 outside of all, below 1 inside."""

from __future__ import annotations

from scorescope.probes.base import Arrays, StateProbe, Variable, View


def measure(view: View) -> Arrays:
    """r* among all rows of the bank, and what the exact posterior looks like there."""
    post = view.truth.conditional
    return {
        "r_star": view.truth.whole.r_star,
        "ess": post.ess,
        "entropy": post.entropy,
        "top_weight": post.top_weight,
        "top_index": post.top_index,
    }


PROBE = StateProbe(
    "relative-distance",
    "distance from the training shells",
    {
        "r_star": Variable("relative distance r*", "1"),
        "ess": Variable("effective number of rows in the exact posterior", "rows"),
        "entropy": Variable("entropy of the exact posterior", "nats"),
        "top_weight": Variable("weight of the nearest row", "1"),
        "top_index": Variable("index of the nearest row", "row", dtype="int64"),
    },
    measure,
    of_states=True,
)
