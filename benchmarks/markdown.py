"""Markdown of the reports: tables, and a mean with its spread."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np


def table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: bool = False
) -> str:
    """A Markdown table; with ``numbers``, all columns but the first end flush right."""
    ruler = ["---", *["---:" if numbers else "---"] * (len(columns) - 1)]
    lines = [columns, ruler, *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def spread(
    values: Sequence[float] | np.ndarray, digits: int = 2, notation: str = "f"
) -> str:
    """Mean ± standard deviation; a single value stands alone."""
    values = np.asarray(values, float)
    if len(values) == 1:
        return f"{values[0]:.{digits}{notation}}"
    mean, deviation = values.mean(), values.std(ddof=1)
    return f"{mean:.{digits}{notation}} ± {deviation:.{digits}{notation}}"
