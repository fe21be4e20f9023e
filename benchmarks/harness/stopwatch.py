"""What a computation costs beside its result."""

from __future__ import annotations

import time


class Stopwatch:
    """Seconds since it was made, of the wall clock and of all CPU cores together."""

    def __init__(self):
        self._began = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        wall, cpu = self._began
        return time.perf_counter() - wall, time.process_time() - cpu
