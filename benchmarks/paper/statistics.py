"""Intervals and tests on the accuracies of seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats


def half_width(values: np.ndarray, confidence: float = 0.95) -> float:
    """Half the width of Student's interval of the mean; NaN of a single value."""
    if len(values) < 2:
        return float("nan")
    quantile = scipy.stats.t.ppf((1 + confidence) / 2, len(values) - 1)
    return float(quantile * values.std(ddof=1) / np.sqrt(len(values)))


def welch(a: np.ndarray, b: np.ndarray) -> float:
    """The two-sided p of Welch's t-test; NaN with fewer than two values on a side."""
    if min(len(a), len(b)) < 2:
        return float("nan")
    result: Any = scipy.stats.ttest_ind(a, b, equal_var=False)
    return float(result.pvalue)


def welch_from_intervals(
    mean_a: float, half_a: float, mean_b: float, half_b: float, runs: int
) -> float:
    """The p of Welch's t-test that printed means and 95 % intervals imply."""
    scale = np.sqrt(runs) / scipy.stats.t.ppf(0.975, runs - 1)
    return float(
        scipy.stats.ttest_ind_from_stats(
            mean_a, half_a * scale, runs, mean_b, half_b * scale, runs, equal_var=False
        ).pvalue
    )


def hedges_g(a: np.ndarray, b: np.ndarray) -> float:
    """Difference of means in pooled standard deviations, corrected for small samples.

    NaN with fewer than two values on a side.

    References:
      Hedges, Distribution theory for Glass's estimator of effect size and related
      estimators, Journal of Educational Statistics 1981.
    """
    if min(len(a), len(b)) < 2:
        return float("nan")
    freedom = len(a) + len(b) - 2
    squares = (len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)
    if squares == 0:
        return float("nan")
    correction = 1 - 3 / (4 * freedom - 1)
    return float((a.mean() - b.mean()) / np.sqrt(squares / freedom) * correction)


def holm(p_values: Sequence[float] | np.ndarray) -> list[float]:
    """Holm's step-down correction: p of each test with the family-wise error held.

    References:
      Holm, A simple sequentially rejective multiple test procedure, Scandinavian
      Journal of Statistics 1979.
    """
    p = np.asarray(p_values, float)
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty_like(adjusted)
    result[order] = np.minimum(adjusted, 1)
    return result.tolist()
