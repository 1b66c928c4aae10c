"""What several test files set up alike."""

from __future__ import annotations

import pytest

from scorescope.empirical import engine, score


@pytest.fixture(scope="module", params=["floats", "integers", "floats at once", "integers at once"])
def each_arithmetic(request):
    """Scores that are not told which products to make take each kind in turn, whatever is faster on this machine.

    Few states of small banks are asked of all rows at once, or as others are.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score, "costs_of", lambda *given: score.COSTS[request.param.split()[0]])
        if "at once" not in request.param:
            patch.setattr(engine, "AT_ONCE", 0)
        yield request.param
