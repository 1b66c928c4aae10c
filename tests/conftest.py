"""What several test files set up alike."""

from __future__ import annotations

import pytest

from scorescope.empirical import score


@pytest.fixture(scope="module", params=["floats", "integers"])
def each_arithmetic(request):
    """Scores that are not told which products to make take each kind in turn, whatever is faster on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "costs_of", lambda *given: score.COSTS[request.param])
        yield request.param
