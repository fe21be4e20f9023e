"""Bounds of a search: a box, and reflection into it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from qiaso_jax._arguments import PyTree
from qiaso_jax._trees import is_inexact


def reflection(bounds: Any, x0: PyTree) -> Callable[[PyTree], PyTree]:
    """The map into the box: a triangle wave between two bounds, a mirror at one."""
    if bounds is None:
        return lambda x: x
    if not isinstance(bounds, tuple) or len(bounds) != 2:
        raise TypeError(f"bounds must be a tuple (lower, upper), got {bounds!r}.")
    lower, upper = (
        _like(name, bound, x0)
        for name, bound in zip(("lower", "upper"), bounds, strict=True)
    )
    for low, high, x in zip(
        jax.tree.leaves(lower), jax.tree.leaves(upper), jax.tree.leaves(x0), strict=True
    ):
        if not is_inexact(x):
            continue
        if jnp.issubdtype(x.dtype, jnp.complexfloating):
            raise TypeError("bounds need real x0, and one leaf is complex.")
        if not bool(jnp.all(low < high)):
            raise ValueError(
                f"bounds must have lower < upper everywhere, got {low} and {high}."
            )
        if not bool(jnp.all((low <= x) & (x <= high))):
            raise ValueError(f"x0 must lie within bounds, got {x}.")

    def reflect_leaf(x, low, high):
        if not is_inexact(x):
            return x
        below = jnp.isfinite(low)
        above = jnp.isfinite(high)
        # Infinities are kept out of the arithmetic, where they would make NaN.
        low, high = jnp.where(below, low, 0), jnp.where(above, high, 0)
        width = jnp.where(below & above, high - low, 1)
        phase = jnp.mod(x - low, 2 * width)
        folded = low + jnp.where(phase > width, 2 * width - phase, phase)
        mirrored = jnp.where(
            below, low + jnp.abs(x - low), jnp.where(above, high - jnp.abs(high - x), x)
        )
        inside = jnp.where(below & above, jnp.clip(folded, low, high), mirrored)
        return inside.astype(x.dtype)

    return lambda x: jax.tree.map(reflect_leaf, x, lower, upper)


def _like(name: str, bound: Any, x0: PyTree) -> PyTree:
    """One bound as a pytree like ``x0``."""
    if jax.tree.structure(bound) == jax.tree.structure(0) and jnp.ndim(bound) == 0:
        return jax.tree.map(lambda x: jnp.full(x.shape, bound, x.dtype), x0)
    if jax.tree.structure(bound) != jax.tree.structure(x0):
        raise ValueError(
            f"The {name} bound must be a number or have the structure of x0, "
            f"{jax.tree.structure(x0)}; got {jax.tree.structure(bound)}."
        )
    return jax.tree.map(
        lambda b, x: jnp.broadcast_to(jnp.asarray(b, x.dtype), x.shape), bound, x0
    )
