"""Bounds of a search: a box, reflection into it, and the spread within it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from qiaso_jax._arguments import PyTree
from qiaso_jax._trees import is_inexact
from qiaso_jax.search.start import coordinatewise


class Box(NamedTuple):
    """Bounds of every coordinate: pytrees like x0, of numbers or arrays; ±inf for none.

    To XLA a subnormal bound is 0.

    Attributes:
      lower: the least value.
      upper: the greatest; a coordinate for which it equals ``lower`` is fixed.
    """

    lower: PyTree
    upper: PyTree

    @property
    def free(self) -> PyTree:
        """Which coordinates may move."""
        return jax.tree.map(lambda low, high: low < high, self.lower, self.upper)


def box(bounds: Any, x0: PyTree) -> Box:
    """The argument ``bounds``, checked as far as it and ``x0`` are concrete."""
    if bounds is None:
        bounds = (-np.inf, np.inf)
    elif any(jnp.issubdtype(x.dtype, jnp.complexfloating) for x in jax.tree.leaves(x0)):
        raise TypeError("bounds need real x0, and one leaf is complex.")
    if not isinstance(bounds, tuple) or len(bounds) != 2:
        raise TypeError(f"bounds must be a tuple (lower, upper), got {bounds!r}.")
    lower = coordinatewise("The lower bound", bounds[0], x0)
    upper = coordinatewise("The upper bound", bounds[1], x0)
    jax.tree.map(_check, lower, upper, x0)
    return Box(lower, upper)


def _check(low: Any, high: Any, x: jax.Array) -> None:
    if not is_inexact(x) or isinstance(low, Tracer) or isinstance(high, Tracer):
        return
    if not np.all((low <= high) & (low < np.inf) & (high > -np.inf)):
        raise ValueError(
            "bounds must have lower <= upper everywhere, and numbers between them; "
            f"got {low} and {high}."
        )
    if isinstance(x, Tracer) or not _bound_anything(low, high):
        return
    within = (low <= np.asarray(x)) & (np.asarray(x) <= high)
    if not np.all(within | (low == high)):
        raise ValueError(f"x0 must lie within bounds, got {x}.")


def _bound_anything(low: Any, high: Any) -> bool:
    traced = isinstance(low, Tracer) or isinstance(high, Tracer)
    return traced or bool(np.any(np.isfinite(low) | np.isfinite(high)))


def num_free(box: Box, x0: PyTree) -> int:
    """How many coordinates may move; all of a leaf whose bounds are traced."""

    def count(free, x):
        if not is_inexact(x):
            return 0
        if isinstance(free, Tracer):
            return x.size
        return int(np.sum(np.broadcast_to(free, x.shape)))

    number = sum(jax.tree.leaves(jax.tree.map(count, box.free, x0)))
    if not number:
        raise ValueError(
            "bounds must leave a coordinate of x0 free, and lower equals upper in all."
        )
    return number


def into(box: Box, x: PyTree) -> PyTree:
    """``x`` reflected into the box; what is inside stays, bit for bit."""
    return _where_bounded(_reflected, box, x)


def projected(box: Box, x: PyTree) -> PyTree:
    """The point of the box next to ``x``."""
    return _where_bounded(jnp.clip, box, x)


def _where_bounded(fun: Callable[..., jax.Array], box: Box, x: PyTree) -> PyTree:
    def on_leaf(x, low, high):
        if is_inexact(x) and _bound_anything(low, high):
            return fun(x, jnp.asarray(low), jnp.asarray(high))
        return x

    return jax.tree.map(on_leaf, x, *box)


def _reflected(x: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
    """A triangle wave between two bounds, a mirror at one."""
    width = high - low
    # Infinite where there is nothing to fold: one bound, or two that all but touch.
    period = jnp.where(width > 0, 2 * width, jnp.inf)
    beyond = jnp.fmod(jnp.maximum(jnp.maximum(low - x, x - high), 0), period)
    distance = jnp.minimum(beyond, period - beyond)
    folded = jnp.where(x < low, low + distance, high - distance)
    folded = jnp.where(jnp.isfinite(folded), folded, x)
    inside = (low <= x) & (x <= high)
    return jnp.where(inside, x, jnp.clip(folded, low, high))


def spread(sigma: Any, box: Box, x0: PyTree) -> PyTree:
    """σ of each coordinate, a pytree like ``x0``; 0 where a coordinate is fixed.

    Args:
      sigma: the argument of ``minimize``; ``None`` for a third of the widths.
      box: the bounds.
      x0: the start.
    """
    if sigma is None:
        # Divided first, as the width may be beyond the largest float.
        spreads = jax.tree.map(lambda low, high: high / 3 - low / 3, *box)
        rule = "given, or bounds finite everywhere; got None."
    else:
        spreads = coordinatewise("sigma", sigma, x0)
        rule = f"finite and above 0, got {sigma}."

    def on_leaf(spread, free, x):
        if is_inexact(x) and not isinstance(spread, Tracer):
            accepted = (spread > 0) & (spread < np.inf)
            if not np.all(accepted | (not isinstance(free, Tracer) and ~free)):
                raise ValueError(f"sigma must be {rule}")
        return jnp.where(free, spread, 0)

    return jax.tree.map(on_leaf, spreads, box.free, x0)
