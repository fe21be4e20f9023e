"""Where a search starts, and what is said of each of its coordinates."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.tree_util import keystr

from qiaso_jax._arguments import PyTree
from qiaso_jax._trees import broadcast, is_inexact


def start(x0: PyTree) -> PyTree:
    """``x0`` as arrays: Python numbers become floats, arrays keep their dtype.

    Raises:
      TypeError: if a leaf is neither a number nor an array, or no leaf would move.

    Warns:
      UserWarning: of arrays of integers, which stay as they are.
    """
    x0 = jax.tree_util.tree_map_with_path(_array, x0)
    leaves = jax.tree_util.tree_leaves_with_path(x0)
    if not any(is_inexact(leaf) and leaf.size for _, leaf in leaves):
        raise TypeError(
            "x0 must have at least one floating or complex number to move, got leaves "
            f"of dtypes {[str(leaf.dtype) for _, leaf in leaves]}."
        )
    integers = [
        f"x0{keystr(path)}"
        for path, leaf in leaves
        if jnp.issubdtype(leaf.dtype, jnp.integer)
    ]
    if integers:
        warnings.warn(
            f"arrays of integers stay as they are: {', '.join(integers)}; give "
            "floating numbers for what is to be searched.",
            stacklevel=3,
        )
    return x0


def _array(path: Any, leaf: Any) -> jax.Array:
    if isinstance(leaf, int | float | complex) and not isinstance(leaf, bool):
        return jnp.asarray(leaf, jnp.result_type(leaf, float))
    try:
        array = jnp.asarray(leaf)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"x0{keystr(path)} must be a number or an array, got {leaf!r}."
        ) from error
    # Weakly typed leaves would turn strong in the first step.
    return jnp.asarray(array, array.dtype)


def coordinatewise(name: str, value: Any, x0: PyTree) -> PyTree:
    """What ``value`` is for each leaf of ``x0``: a number, or an array of its shape.

    Args:
      name: of the argument.
      value: a real number, an array, or a pytree of these that is a prefix of ``x0``.
      x0: a pytree of arrays.

    Returns:
      A pytree like ``x0``, in the real precision of each leaf; 0 for leaves that stay.
      Of NumPy, unless traced: what was given is then concrete under ``jax.jit`` too.
    """
    value = broadcast(name, "a number or an array", value, x0, "x0")

    def on_leaf(part, x):
        xp: Any = jnp if isinstance(part, Tracer) else np
        if not is_inexact(x):
            return np.zeros(())
        part = xp.asarray(part)
        if part.dtype.kind not in "iuf" and not jnp.issubdtype(
            part.dtype, jnp.floating
        ):
            raise TypeError(f"{name} must be real numbers, got dtype {part.dtype}.")
        with np.errstate(over="ignore"):  # beyond the largest float is infinity
            part = part.astype(jnp.finfo(x.dtype).dtype)
        try:
            return xp.broadcast_to(part, x.shape) if part.ndim else part
        except ValueError as error:
            raise ValueError(
                f"{name} must broadcast to the shapes of x0, {x.shape} for one leaf; "
                f"got shape {part.shape}."
            ) from error

    return jax.tree.map(on_leaf, value, x0)
