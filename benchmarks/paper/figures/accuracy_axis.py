"""An axis that shows small errors and large."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

ERRORS = (90, 50, 20, 10, 5, 2, 1)
"""Labelled, in %."""


def accuracy_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Labels an axis along which errors in % were drawn by accuracies.

    It is logarithmic in the error, which falls along it.
    """
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log", f"{which}lim": (100, 0.5)})
    axis.set_ticks(ERRORS, labels=[str(100 - error) for error in ERRORS])
    axis.set_minor_locator(NullLocator())
    axis.set_label_text("test accuracy (%)")


def dots(
    axes: Axes, places: Any, accuracies: Any, halves: Any, colour: str, label: str
) -> None:
    """Accuracies in % along the x-axis, with the halves of their intervals."""
    errors = 100 - np.array(accuracies)
    axes.errorbar(
        errors, places, xerr=halves, fmt="o", color=colour, capsize=3, label=label
    )
