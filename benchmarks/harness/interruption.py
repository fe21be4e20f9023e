"""SIGINT and SIGTERM as a wish to stop, heard while the device computes."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any


class Interruption:
    """Whether a signal has arrived, and which."""

    signal: signal.Signals | None = None

    def wait(self, array: Any) -> bool:
        """Waits until ``array`` is computed; false if a signal comes first."""
        # Python runs no handler while it blocks in XLA, and an epoch can take minutes.
        while not array.is_ready() and self.signal is None:
            time.sleep(0.002)
        return self.signal is None


@contextlib.contextmanager
def deferred() -> Iterator[Interruption]:
    """Notes the first SIGINT or SIGTERM; a second one acts as it always does."""
    interruption = Interruption()
    signals = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.getsignal(number) for number in signals}

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        interruption.signal = signal.Signals(number)
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    for number in signals:
        signal.signal(number, note)
    try:
        yield interruption
    finally:
        restore()
