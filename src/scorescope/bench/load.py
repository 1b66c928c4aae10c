"""How busy other programs kept the processor while something was timed: what makes a comparison worthless without a trace.

A program beside it slows methods by different factors (threads that wait for each other lose most), so medians don't repair it.
"""

from __future__ import annotations

import os
import time

import psutil

BUSY = ("user", "nice", "system", "irq", "softirq", "steal")


class Stopwatch:
    """Begins when it is made; `stop` gives what has passed since."""

    def __init__(self) -> None:
        self.begun = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        times = psutil.cpu_times()
        return time.perf_counter(), time.process_time(), sum(getattr(times, name, 0.0) for name in BUSY)

    def stop(self) -> tuple[float, float, float]:
        """Seconds, seconds of processors that this program used, and the share (0 to 1) of all processors that others used."""
        seconds, own, busy = (now - then for now, then in zip(self._now(), self.begun, strict=True))
        return seconds, own, min(max((busy - own) / (seconds * (os.cpu_count() or 1)), 0.0), 1.0)
