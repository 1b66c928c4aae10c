"""What several test files set up alike."""

from __future__ import annotations

import pytest

from scorescope.empirical import digits


@pytest.fixture(scope="module")
def digits_however_small():
    """Banks as small as those of the tests would be answered by floats; so every path is taken."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digits, "SMALL", 0)
        yield
