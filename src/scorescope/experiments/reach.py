"""How far from the shells a model's error stays low: the statistic of `dynamics`.

Errors e(g, p) = ‖x̂_θ(z) − x̂*(z)‖²/d of states p at places g, from the shells outward. The curve is their median over states; its reach is
the place at which it first exceeds a level, log e taken as linear between places. The level is a multiple of the median on the shells, of
the model itself (`own`) or of another (the same for all models that are compared with it).
"""

from __future__ import annotations

import numpy as np

from scorescope.statistics import Estimate, Values

DRAWS = 400  # resamples of the states, the same ones for every model, so that differences are paired


def reach(curve: Values, places: Values, level: Values) -> Values:
    """The place at which a curve first exceeds a level.

    Args:
        curve: (…, G) errors, 0 or more, from the shells outward.
        places: (G,) of these, in either direction.
        level: (…), what must not be exceeded.

    Returns:
        (…): the first place where the curve is above already there, the last one where it never is.
    """
    over = curve > level[..., None]
    after = np.maximum(over.argmax(-1), 1)[..., None]
    low, high = (np.log(np.maximum(np.take_along_axis(curve, at, -1)[..., 0], 1e-300)) for at in (after - 1, after))
    before, there = places[after[..., 0] - 1], places[after[..., 0]]
    rise = np.where(high > low, high - low, 1.0)
    crossed = before + (np.log(np.maximum(level, 1e-300)) - low) / rise * (there - before)
    return np.where(~over.any(-1), places[-1], np.where(over[..., 0], places[0], crossed))


def medians(errors: Values) -> Values:
    """Medians over the states, the last axis: (…, 1 + DRAWS), of all of them and then of each resample."""
    states = errors.shape[-1]
    drawn = np.random.default_rng(0).integers(states, size=(DRAWS, states))
    resampled = np.median(errors[..., drawn], axis=-1)
    return np.concatenate([np.median(errors, axis=-1)[..., None], resampled], -1)


def estimate(values: Values) -> Estimate:
    """The value and the 95 % percentile interval of (1 + DRAWS,) numbers that were made of `medians`."""
    return Estimate(float(values[0]), *(float(end) for end in np.quantile(values[1:], (0.025, 0.975))))
