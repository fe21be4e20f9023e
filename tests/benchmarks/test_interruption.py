import os
import signal
import time

import pytest

from benchmarks.harness import interruption


class Never:
    """An array that is not computed before the test is over."""

    def is_ready(self):
        return False


class Now:
    """An array that is there."""

    def is_ready(self):
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_wait(number):
    with interruption.deferred() as heard:
        assert heard.wait(Now())
        os.kill(os.getpid(), number)
        start = time.monotonic()
        assert not heard.wait(Never())
        assert time.monotonic() - start < 1
        assert heard.signal is number


def test_second_signal_acts_as_always():
    before = signal.getsignal(signal.SIGINT)
    with interruption.deferred() as heard:
        os.kill(os.getpid(), signal.SIGINT)
        heard.wait(Never())
        assert signal.getsignal(signal.SIGINT) is before
    assert signal.getsignal(signal.SIGINT) is before


def test_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with interruption.deferred():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
