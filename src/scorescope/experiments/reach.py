"""How far from the shells a model's error stays low: the statistic of `dynamics`.

Errors e(g, p) = ‖x̂_θ(z) − x̂*(z)‖²/d of states p at places g, from the shells outward. The curve is their median over states; its reach is
the place at which it first exceeds a level, log e taken as linear between places. The level is a multiple of the median on the shells, of
the model itself (`own`) or of another (the same for all models that are compared with it).
"""

from __future__ import annotations

import numpy as np
import xarray as xr

from scorescope.statistics import Estimate, Values

MULTIPLE = 2.0  # of the error on the shells: the rules' level
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


class Reaches:
    """How far each network's error stays low, on the same resamples of the states.

    Args:
        results: The experiment's dataset.
    """

    def __init__(self, results: xr.Dataset) -> None:
        self.results, self.known = results, dict[tuple[str, str], Values]()
        sized = [str(name) for name in results["network"].values if "@" in str(name)]
        self.steps = sorted({int(name.split("@")[1]) for name in sized})
        self.parameters = {str(n): int(c) for n, c in zip(results["network"].values, results["parameters"].values, strict=True)}
        self.sizes = sorted({name.split("@")[0] for name in sized}, key=lambda size: self.parameters[f"{size}@{self.steps[-1]}"])
        self.smallest, self.largest = (f"{size}@{self.steps[-1]}" for size in (self.sizes[0], self.sizes[-1]))
        self.factors, self.times = results["factor"].values, results["time"].values
        self.one = int(abs(self.factors - 1).argmin())

    def medians(self, network: str, kind: str) -> Values:
        """Median error (T, G, 1 + draws)."""
        if (network, kind) not in self.known:
            self.known[network, kind] = medians(self.results[kind].sel(network=network).values.astype(float))
        return self.known[network, kind]

    def on_shells(self, network: str, kind: str = "thick") -> Values:
        """Median error on the shells, (T, 1 + draws)."""
        return self.medians(network, kind)[:, self.one if kind == "thick" else 0]

    def noise(self, network: str, level: str = "", multiple: float = MULTIPLE, inward: bool = False) -> Values:
        """Log k, (T, 1 + draws): up to which factor of the noise (`inward`: down to which) the error stays below a level.

        That is a multiple of the error of the network `level` on the shells; of its own unless one is named.
        """
        place = slice(self.one, None, -1) if inward else slice(self.one, None)
        curve = np.moveaxis(self.medians(network, "thick")[:, place], 1, -1)
        return reach(curve, np.log(self.factors[place]), multiple * self.on_shells(level or network))

    def way(self, network: str, level: str = "", multiple: float = MULTIPLE) -> Values:
        """λ, (T, 1 + draws): likewise along the way to sampling."""
        curve = np.moveaxis(self.medians(network, "way"), 1, -1)
        return reach(curve, self.results["share"].values, multiple * self.on_shells(level or network, "way"))

    def fit(self, network: str) -> str:
        """Error on the shells over that of the Gaussian denoiser, by time, in words."""
        gaussian = "gaussian" if "@" in network else "gaussian of few"
        ratio = self.on_shells(network)[:, 0] / self.on_shells(gaussian)[:, 0]
        return f"{', '.join(f'{value:.2g}' for value in ratio)} (t = {', '.join(f'{t:g}' for t in self.times)})"

    def mean_noise(self, network: str, level: str = "", multiple: float = MULTIPLE) -> Estimate:
        """k, geometric mean over times."""
        return Estimate(*np.exp(estimate(self.noise(network, level, multiple).mean(0))))
