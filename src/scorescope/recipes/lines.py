"""Straight lines through a few points, and what they can and can't tell.

    y = h + b (x − x̄)                 x̄ the mean of the x

Intervals are quantiles of draws. A draw is the line refitted through points that are drawn again: each as it was measured on other states
and samples (x_draw, y_draw), and moved by scatter about the line, normal with variance max(σ² − τ², 0). Here σ² = s² ν/χ²_ν is drawn
anew each time, s² = RSS/ν with ν = n − 2 is the variance about the line, and τ² the part of it that measuring explains. So nothing is
counted twice; without x_draw and y_draw the quantiles are those of Student's t, and three points, whose ν is 1, say little.

A line is fitted through three points or more, and is never asked beyond its points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scorescope.errors import InputError
from scorescope.statistics import Estimate

Values = NDArray[np.float64]
LEAST = 3
DRAWS = 4000
"""Where the points bring none of their own."""
LEVEL = 0.95


@dataclass(frozen=True)
class Line:
    """A line through points.

    Attributes:
        x, y: (n,) the points.
        centre: x̄.
        height, slope: h and b.
        heights, slopes: (draws,) drawn again.
        bend: c of y = … + c ((x − x̄)/half the range)²; NaN for three points, through which a curve always fits.
    """

    x: Values
    y: Values
    centre: float
    height: float
    slope: float
    heights: Values
    slopes: Values
    bend: Estimate

    @property
    def low(self) -> float:
        """Smallest x."""
        return float(self.x.min())

    @property
    def high(self) -> float:
        """Largest x."""
        return float(self.x.max())

    @property
    def about(self) -> float:
        """Sum of squares about the line."""
        return float(np.square(self.y - self.height - self.slope * (self.x - self.centre)).sum())

    def estimate(self, drawn: Values, value: float) -> Estimate:
        """A value with the interval of its draws."""
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Estimate(value, float(low), float(high))

    def per(self, step: float) -> Estimate:
        """Rise over a step of x."""
        return self.estimate(step * self.slopes, step * self.slope)

    def drawn(self, x: float) -> Values:
        """(draws,) heights at x.

        Raises:
            InputError: x lies beyond the points.
        """
        if not self.low <= x <= self.high:
            raise InputError(f"{x:.4g} lies beyond the points of the line, {self.low:.4g} to {self.high:.4g}", "a value between them")
        return self.heights + self.slopes * (x - self.centre)

    def at(self, x: float) -> Estimate:
        """Height at x; raises as `drawn`."""
        return self.estimate(self.drawn(x), self.height + self.slope * (x - self.centre))


def fit(x: Values, y: Values, x_draw: Values | None = None, y_draw: Values | None = None, seed: int = 0) -> Line:
    """The line through points.

    Args:
        x, y: (n,)
        x_draw, y_draw: (n, draws) the same measured on other states; both or neither.
        seed: Of the scatter.

    Raises:
        InputError: Fewer than three points, or fewer than three different x.
    """
    if len(np.unique(x)) < LEAST:
        raise InputError(f"a line through {len(np.unique(x))} points says nothing of its own error", f"{LEAST} or more, each at another x")
    xd = np.tile(x[:, None], DRAWS) if x_draw is None or y_draw is None else x_draw
    yd = np.tile(y[:, None], DRAWS) if x_draw is None or y_draw is None else y_draw
    centre, half = float(x.mean()), float(np.ptp(x)) / 2
    u, ud = (x - centre) / half, (xd - centre) / half
    coefficients, drawn = _refitted(u, y, ud, yd, 1, np.random.default_rng(seed))
    bend = Estimate(math.nan, math.nan, math.nan)
    if len(np.unique(x)) > LEAST:
        curved, bends = _refitted(u, y, ud, yd, 2, np.random.default_rng(seed))
        bend = Estimate(float(curved[2]), *(float(v) for v in np.quantile(bends[2], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])))
    return Line(x, y, centre, float(coefficients[0]), float(coefficients[1]) / half, drawn[0], drawn[1] / half, bend)


def _refitted(u: Values, y: Values, ud: Values, yd: Values, degree: int, rng: np.random.Generator) -> tuple[Values, Values]:
    """Coefficients (degree + 1,) of a polynomial, and those of draws (degree + 1, draws)."""
    n, draws = ud.shape
    design = np.vander(u, degree + 1, increasing=True)
    solve = np.linalg.pinv(design)
    coefficients, left = solve @ y, np.eye(n) - design @ solve
    freedom = n - degree - 1
    moved = yd - y[:, None] - (np.polynomial.polynomial.polyval(ud, coefficients) - (design @ coefficients)[:, None])
    measured = float(np.square(left @ moved).sum(0).mean()) / freedom
    whole = float(np.square(left @ y).sum()) / rng.chisquare(freedom, draws)  # s² ν/χ²
    scattered = yd + np.sqrt(np.clip(whole - measured, 0, None)) * rng.standard_normal((n, draws))
    powers = np.stack([ud**k for k in range(degree + 1)])
    normal, right = np.einsum("knd,lnd->dkl", powers, powers), np.einsum("knd,nd->dk", powers, scattered)
    return coefficients, np.linalg.solve(normal, right[..., None])[..., 0].T


@dataclass(frozen=True)
class Shift:
    """One line over another on the range that both have points on.

    Attributes:
        low, high: The common range.
        middle: The second's height over the first's, averaged over the range.
        ends: The same at either end.
    """

    low: float
    high: float
    middle: Estimate
    ends: tuple[Estimate, Estimate]


def shift(first: Line, second: Line) -> Shift:
    """The vertical shift from a line to another, at equal x.

    Raises:
        InputError: The ranges of their points have nothing in common: that would be extrapolation.
    """
    low, high = max(first.low, second.low), min(first.high, second.high)
    if not low < high:
        raise InputError(
            f"the ranges of the points, {first.low:.4g} to {first.high:.4g} and {second.low:.4g} to {second.high:.4g}, do not overlap, "
            "and a line says nothing beyond its points",
            "runs of other sizes or lengths",
        )

    def over(x: float) -> Estimate:
        return first.estimate(second.drawn(x) - first.drawn(x), second.at(x).value - first.at(x).value)

    return Shift(low, high, over((low + high) / 2), (over(low), over(high)))


@dataclass(frozen=True)
class Straightness:
    """Whether y or ln y is the straighter line of x, by residuals in one unit (Box & Cox 1964): those of ln y times y's geometric mean.

    Attributes:
        ratio: Root of the residuals' sum of squares of y over that of ln y: above 1, ln y is the straighter. Its interval is that of
            measuring alone; NaN where the points bring no draws.
        without: Smallest and largest ratio with any one point left out; NaN for three points.
        plain, log: Bends of y and ln y.
    """

    ratio: Estimate
    without: tuple[float, float]
    plain: Estimate
    log: Estimate


def ratio_of_residuals(x: Values, y: Values) -> float:
    """That ratio; 1 where both lines are exact."""
    logs = np.log(y)
    scale = float(np.exp(logs.mean()))

    def about(values: Values) -> float:
        away, across = values - values.mean(), x - x.mean()
        least = 1e-24 * float(away @ away + values.mean() ** 2)
        return max(float(away @ away - (across @ away) ** 2 / (across @ across)), least)

    return math.sqrt(about(y) / about(scale * logs))
