"""Commands that measure, ``python -m benchmarks.<name>``."""

import os
import signal
import sys


def end_in_a_line(*_):
    """Ends the process as an interrupt does, in a line and not in a trace.

    An exception would do neither at any time: it is lost within a callback, as JAX has
    one in the garbage collector, and then waits for what the device still computes.
    """
    # Progress that is shown on a terminal hides the cursor, and ends no line.
    shown = b"\x1b[?25h\n" if os.isatty(2) else b""
    os.write(2, shown + b"interrupted\n")
    os._exit(128 + signal.SIGINT)


# Called so, this is the first that a command imports.
_handler = signal.getsignal(signal.SIGINT)
if sys.argv[0] == "-m" and _handler is signal.default_int_handler:
    signal.signal(signal.SIGINT, end_in_a_line)
