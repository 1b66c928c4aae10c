"""The exact empirical score of a whole training set (Eq. 2), and the float64 definition that it is tested against."""

from scorescope.empirical.posterior import Posterior
from scorescope.empirical.reference import reference_posterior
from scorescope.empirical.score import EmpiricalScore

__all__ = ["EmpiricalScore", "Posterior", "reference_posterior"]
