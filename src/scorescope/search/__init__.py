"""Exact search among a bank's rows: nearest rows, closest pairs; built on `rows`, which knows nothing of it.

products → bounds, units → sketch, copies → nearest → pairs, groups
"""

from scorescope.search.nearest import neighbours
from scorescope.search.pairs import ClosestPairs, closest_pairs

__all__ = ["ClosestPairs", "closest_pairs", "neighbours"]
