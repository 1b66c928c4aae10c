"""The heap of the command line keeps what is freed."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from scorescope import heap
if sys.argv[1] == "keep":
    heap.keep()
def touch():
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc, whose heap this is about")
def test_blocks_that_were_freed_are_not_made_of_fresh_pages_again():
    def faults(how):
        return int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < faults("leave") / 10
