"""What is minimised, and how its evaluations are counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Instance(NamedTuple):
    """A problem of one seed, about a box.

    Attributes:
      values: ``[K, N] -> [K]``, least is best.
      start: shape ``[N]``.
      lower: of the box, shape ``[N]``.
      upper: likewise.
      is_bounded: whether nothing beyond the box may be evaluated.
      integers: which coordinates are whole numbers, which ``values`` rounds, ``[N]``.
      measures: what is reported of a point: the problem's own units, without noise.
    """

    values: Callable[[np.ndarray], np.ndarray]
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    is_bounded: bool
    integers: np.ndarray
    measures: Callable[[np.ndarray], dict[str, float]]


class Problem(NamedTuple):
    """Instances of one kind.

    Attributes:
      name: of it.
      make: the instance of a seed.
      evaluations: that a search may have.
      sign: 1 where less is better of the first measure, −1 where more is.
    """

    name: str
    make: Callable[[int], Instance]
    evaluations: int
    sign: int = 1


class Search:
    """An instance with a budget: counts evaluations, and notes the best point.

    Beyond the budget every value is infinite, and nothing is evaluated.
    """

    def __init__(self, instance: Instance, budget: int) -> None:
        self.instance = instance
        self.budget = budget
        self.number = 0
        self.best = instance.start
        self.least = np.inf

    @property
    def left(self) -> int:
        """Evaluations."""
        return self.budget - self.number

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """The box, if points must be in it."""
        instance = self.instance
        return (instance.lower, instance.upper) if instance.is_bounded else None

    @property
    def width(self) -> np.ndarray:
        """Of the box, shape ``[N]``."""
        return self.instance.upper - self.instance.lower

    def values(self, points: np.ndarray) -> np.ndarray:
        """Of points ``[K, N]``, shape ``[K]``."""
        found = np.full(len(points), np.inf)
        points = np.asarray(points, float)[: self.left]
        if len(points) == 0:
            return found
        found[: len(points)] = self.instance.values(points)
        self.number += len(points)
        index = np.argmin(found)
        if found[index] < self.least:
            self.least, self.best = float(found[index]), points[index].copy()
        return found

    def anywhere(self, rng: np.random.Generator, *shape: int) -> np.ndarray:
        """Points of the box, uniformly, ``[*shape, N]``."""
        lower, upper = self.instance.lower, self.instance.upper
        return rng.uniform(lower, upper, (*shape, lower.size))
