"""A process of our own keeps what it frees, and lets idle threads sleep."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from scorescope import process

FAULTS = """
import resource, sys
from scorescope import process
if sys.argv[1] == "keep":
    process.keep_memory()
def touch():
    block = bytearray(64 << 20)
    block[::4096] = b"x" * len(block[::4096])
touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    touch()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc, whose memory this is about")
def test_blocks_that_were_freed_are_not_made_of_fresh_pages_again():
    def faults(how):
        return int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)

    assert faults("keep") < faults("leave") / 10


@pytest.mark.parametrize(("known", "expected"), [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)])
def test_the_environment_says_how_idle_threads_wait(known, expected, monkeypatch):
    environment = dict(known)
    monkeypatch.setattr(process.os, "environ", environment)
    process.wait_asleep()
    assert environment.get("GOMP_SPINCOUNT") == expected


def test_the_command_line_says_so_before_pytorch_is_there():
    code = (
        "import sys; from scorescope import process, cli; process.wait_asleep = lambda: print('torch' in sys.modules); cli.main(['bench'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.startswith("False\n")
