"""Exact search among a bank's rows: nearest rows, closest pairs, the 8-bit shadow on disk; built on `rows`, which knows nothing of it.

products → codes → bounds, sketch, copies → neighbours → pairs, groups;  shadow
"""

from scorescope.search.nearest import neighbours
from scorescope.search.pairs import ClosestPairs, closest_pairs
from scorescope.search.shadow import Shadow, build_shadow, shadow_of

__all__ = ["ClosestPairs", "Shadow", "build_shadow", "closest_pairs", "neighbours", "shadow_of"]
