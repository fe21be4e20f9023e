"""When a search ends before its budget is spent."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax.search.result import MinimizeStatus


class Stretch(NamedTuple):
    """Steps in a row whose values all equal the best one so far, up to rounding.

    Equal is a difference of at most 4 ε |L|, with ε of the values' precision. As the
    highest of all steps is compared, a slow descent leaves the stretch, however little
    it gains in a step; and so does one that stays on a plateau above the best value.

    Attributes:
      highest: value of the stretch.
      length: its steps in which some value was finite.
      differed: whether values ever differed.
    """

    highest: jax.Array
    length: jax.Array
    differed: jax.Array


def empty(dtype: Any) -> Stretch:
    """Before the first step."""
    highest = jnp.asarray(-jnp.inf, dtype)
    return Stretch(highest, jnp.zeros((), jnp.int32), jnp.zeros((), bool))


def extended(
    stretch: Stretch, values: jax.Array, best_value: jax.Array, epsilon: float
) -> Stretch:
    """The stretch with the values of one more step, or an empty one if they differ.

    Args:
      stretch: so far.
      values: of all candidates, shape ``[K]``.
      best_value: the least so far, these included.
      epsilon: of the precision that they were computed in.
    """
    finite = jnp.isfinite(values)
    highest = jnp.max(values, where=finite, initial=-jnp.inf)
    highest = jnp.maximum(stretch.highest, highest)
    equal = highest - best_value <= 4 * epsilon * jnp.abs(best_value)
    return Stretch(
        jnp.where(equal, highest, -jnp.inf),
        jnp.where(equal, stretch.length + jnp.any(finite), 0),
        stretch.differed | ~equal,
    )


def patience(size: int, rate: float) -> int:
    """The length of a stretch that ends the search: σ halves in it; five at least.

    Then the values are equal at every scale below, unless the function has steps that
    are wide compared to all that was tried.

    Args:
      size: N, the number of coordinates.
      rate: c, where σ falls by e^{−c/N} in a step.
    """
    return max(5, math.ceil(math.log(2) / rate * size))


def status(
    best_value: jax.Array,
    stretch: Stretch,
    steps_left: jax.Array,
    target: Any,
    patience: int,
) -> jax.Array:
    """The ``MinimizeStatus`` after a step, int32.

    Args:
      best_value: the least value so far, ``inf`` if none was finite.
      stretch: of equal values.
      steps_left: how many steps the budget still affords.
      target: a value that is good enough.
      patience: length of a stretch that ends the search.
    """
    cases = {
        MinimizeStatus.TARGET_REACHED: best_value <= target,
        MinimizeStatus.CONVERGED: stretch.differed & (stretch.length >= patience),
        MinimizeStatus.RUNNING: steps_left > 0,
        MinimizeStatus.NO_FINITE_VALUE: ~jnp.isfinite(best_value),
        MinimizeStatus.FLAT: ~stretch.differed,
    }
    numbers = [jnp.asarray(int(case), jnp.int32) for case in cases]
    otherwise = jnp.asarray(int(MinimizeStatus.BUDGET_SPENT), jnp.int32)
    return jnp.select(list(cases.values()), numbers, otherwise)
