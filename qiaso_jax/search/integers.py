"""Coordinates that are whole numbers: what is searched are reals, which are rounded.

Where all of a superposition rounds to one integer, values tell nothing of that
coordinate any more. Its standard deviation is kept so wide that a candidate leaves the
integer with a probability of at least α = 1/(N K) (the margin of Hamano et al.,
*CMA-ES with Margin*, 2022): about one of all candidates of a step.
"""

from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from qiaso_jax._arguments import PyTree
from qiaso_jax._trees import broadcast, is_inexact
from qiaso_jax.search.bounds import Box


def which(integers: Any, x0: PyTree) -> PyTree:
    """Which coordinates are whole: a pytree like ``x0`` of booleans or arrays of them.

    Args:
      integers: the argument of ``minimize``.
      x0: a pytree of arrays.

    Raises:
      TypeError: if these are no booleans, or of complex numbers.
      ValueError: if they do not fit ``x0``.
    """
    prefix = broadcast("integers", "a boolean or an array", integers, x0, "x0")

    def on_leaf(part, x):
        part = np.asarray(part)
        if part.dtype != bool:
            raise TypeError(f"integers must be booleans, got dtype {part.dtype}.")
        if np.any(part) and jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise TypeError("integers need real x0, and one leaf is complex.")
        try:
            np.broadcast_to(part, x.shape)
        except ValueError as error:
            raise ValueError(
                f"integers must broadcast to the shapes of x0, {x.shape} for one leaf; "
                f"got shape {part.shape}."
            ) from error
        return part

    return jax.tree.map(on_leaf, prefix, x0)


def rounded(integers: PyTree, x: PyTree) -> PyTree:
    """``x`` with whole numbers for its integers."""

    def on_leaf(x, integers):
        if not (is_inexact(x) and np.any(integers)):
            return x
        return jnp.where(integers, jnp.round(x), x)

    return jax.tree.map(on_leaf, x, integers)


def tightened(integers: PyTree, within: Box) -> Box:
    """Bounds that are integers where coordinates are.

    A point that is reflected at an integer rounds to it as long as it is within 1/2, so
    that all integers are left in the same way.

    Raises:
      ValueError: if there is none between known bounds.
    """

    def on_leaf(low, high, integers):
        if not np.any(integers):
            return low, high
        traced = isinstance(low, Tracer) or isinstance(high, Tracer)
        xp: Any = jnp if traced else np
        low = xp.where(integers, xp.ceil(low), low)
        high = xp.where(integers, xp.floor(high), high)
        if not traced and np.any(low > high):
            raise ValueError(
                "bounds must have a whole number between them where integers are "
                f"searched; rounded inwards they are {low} and {high}."
            )
        return low, high

    pairs = jax.tree.map(on_leaf, within.lower, within.upper, integers)
    return Box(*jax.tree.transpose(jax.tree.structure(integers), None, pairs))


def least_spread(size: int, number: int) -> float:
    """The standard deviation that leaves an integer with probability 1/(N K).

    From the middle of its interval, where that is least:
    :math:`2 Φ(-1/2s) = 1/NK`.

    Args:
      size: N, the number of coordinates.
      number: K, the number of candidates.
    """
    return -0.5 / NormalDist().inv_cdf(0.5 / max(2, size * number))
