"""A function that takes its time, hangs or kills its process."""

from __future__ import annotations

import os
import signal
import time
import zlib
from pathlib import Path

import numpy as np

SLOW = 10
"""One evaluation in so many takes so many times as long."""

CONDITION = 100.0
"""Of the ellipsoid."""

KILL, HANG = "kill", "hang"
"""Files whose finder dies, or hangs."""

LOG = "values"
"""The file that each value is written to before it is returned."""


def ellipsoid(x: np.ndarray, seconds: float) -> float:
    """Its value, after ``seconds``, or ten times as many: x says which."""
    slow = zlib.crc32(x.tobytes()) % SLOW == 0
    time.sleep(SLOW * seconds if slow else seconds)
    return float(np.logspace(0, np.log10(CONDITION), x.size) @ x**2)


def faulty(x: np.ndarray, seconds: float, folder: str, hanging: float) -> float:
    """The same, for which a file in ``folder`` may lie ready.

    Args:
      x: the point.
      seconds: of an evaluation.
      folder: of the files.
      hanging: seconds of an evaluation that hangs.
    """
    if _found(folder, KILL):
        os.kill(os.getpid(), signal.SIGKILL)
    if _found(folder, HANG):
        time.sleep(hanging)
    value = ellipsoid(x, seconds)
    with (Path(folder) / LOG).open("a") as file:
        file.write(f"{value!r}\n")
    return value


def _found(folder: str, name: str) -> bool:
    """Whether it was there; to one process only."""
    try:
        (Path(folder) / name).unlink()
    except FileNotFoundError:
        return False
    return True
