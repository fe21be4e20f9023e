"""SIGINT and SIGTERM as a wish to stop, heard between epochs."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType


class Interruption:
    """Whether a signal has arrived, and which."""

    signal: signal.Signals | None = None


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
