"""What suits a process of our own, and would be no library's to decide: the command line asks for it.

glibc gives every freed block above 32 MB back to the system, and the next one is made of pages that must be cleared before they are
touched, which a sweep would pay for again and again. And the threads of OpenMP, which PyTorch's products use, keep their processors for
milliseconds while they wait for more to do; loops of our own that follow would lack them.
"""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
MOST = (1 << 31) - 1
SPINS = "1000"  # turns of waiting, a few microseconds; 300,000 unless told


def keep_memory() -> None:
    """Keep freed memory for what is allocated next; without effect where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, 1 << 30)
        mallopt(TRIM_THRESHOLD, MOST)


def wait_asleep() -> None:
    """Let GNU OpenMP's idle threads sleep soon; before PyTorch is imported, and unless the environment says how they wait."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
