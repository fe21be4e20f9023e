"""What does not change in a search."""

import math
from typing import Any, NamedTuple

from qiaso_jax.search.covariance import Kind


class Plan(NamedTuple):
    """Known beforehand, and not traced.

    Attributes:
      kind: of covariance.
      size: N.
      dtype: of points and values.
      least: K of the first run; all others have multiples of it.
      most: what K may be.
      budget: evaluations.
      restarts: how many there may be at most.
      target: a value that is good enough.
      noisy: whether values of one point differ.
    """

    kind: Kind
    size: int
    dtype: Any
    least: int
    most: int
    budget: int
    restarts: float
    target: Any
    noisy: bool = False


def default_candidates(size: int) -> int:
    """K of the first run: 4 + ⌊3 log N⌋."""
    return 4 + math.floor(3 * math.log(size))


def largest(least: int, budget: int) -> int:
    """What K may be: ``least`` doubled as long as 15 steps could be made of it."""
    most = least
    while 30 * most <= budget:
        most *= 2
    return most
