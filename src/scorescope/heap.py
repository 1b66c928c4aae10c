"""The heap of a process of our own: glibc's, told to keep what is freed.

By default every block above 32 MB is given back to the system when it is freed, and the next one is made of pages that must be cleared
before they are touched, which a sweep would pay for again and again. A library leaves its user's allocator alone; the command line is its
own program.
"""

from __future__ import annotations

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # of mallopt(3)
MOST = (1 << 31) - 1


def keep() -> None:
    """Keep freed memory for what is allocated next; without effect where the C library is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, 1 << 30)
        mallopt(TRIM_THRESHOLD, MOST)
