"""Spread: σ of every leaf or of every weight, how far candidates go from the centre."""

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from qiaso_jax import _arguments
from qiaso_jax._arguments import PyTree, ScalarOrSchedule
from qiaso_jax._trees import broadcast, name_of

_LADDER = (0, *(10**n for n in range(10)))
"""Steps at which it is looked whether a schedule vanishes."""

_UNDERFLOWS = 1e-30
"""From below this size an exponential decay, which never ends, falls to 0."""


@dataclasses.dataclass(frozen=True)
class Relative:
    """A spread in units of a leaf's own root mean square, made by ``relative``."""

    factor: ScalarOrSchedule


def relative(factor: ScalarOrSchedule) -> Relative:
    r"""A spread in units of the root mean square of the leaf it is for.

    .. math:: σ = r \sqrt{\tfrac1n \sum_i μ_i^2}

    For layers whose weights differ in size. A leaf that is zero, as new biases are, has
    no size of its own and would never move: give it a number.

    Args:
      factor: r > 0, without a unit; a float or an optax schedule over updates.

    Returns:
      What ``sigma`` of ``qiaso`` and ``factorised_qiaso`` takes, or a leaf of it.

    Raises:
      TypeError: if ``factor`` is no number.
      ValueError: if it is not above 0.

    Examples:
      >>> import qiaso_jax
      >>> tx = qiaso_jax.qiaso(
      ...     sigma={"kernel": qiaso_jax.relative(0.1), "bias": 0.02})
    """
    _arguments.scalar_or_schedule("factor", factor, above=0)
    return Relative(factor)


def check_sigma(sigma: Any) -> None:
    """Checks numbers, arrays, schedules and ``Relative``, or a pytree of these.

    Raises:
      TypeError: if a leaf is neither.
      ValueError: if a number is not above 0.
    """
    leaves = jax.tree_util.tree_flatten_with_path(sigma)[0]
    if not leaves:
        raise TypeError(f"sigma must be a real number, got {sigma!r}.")
    for path, leaf in leaves:
        name = name_of(path, "sigma")
        size = leaf.factor if isinstance(leaf, Relative) else leaf
        if callable(size):
            _warn_where_it_vanishes(name, size)
        elif isinstance(size, Tracer):
            continue
        elif jnp.ndim(size):
            _arguments.scalar(name, jnp.min(jnp.asarray(size)), above=0)
            _arguments.scalar(name, jnp.max(jnp.asarray(size)), above=0)
        else:
            _arguments.scalar(name, size, above=0)


def _warn_where_it_vanishes(name: str, schedule: Any) -> None:
    with jax.ensure_compile_time_eval():
        step = _first_zero(lambda t: _least(schedule(jnp.asarray(t, jnp.int32))))
    if step is not None:
        warnings.warn(
            f"{name} is 0 at step {step}: where the spread is 0 all candidates are "
            "equal, and nothing moves. Let the schedule end at a small positive value, "
            "unless training ends before.",
            stacklevel=4,
        )


def _least(sizes: Any) -> float | None:
    leaves = jax.tree.leaves(sizes)
    if any(isinstance(leaf, Tracer | Relative) for leaf in leaves):
        return None
    return min(float(jnp.min(jnp.asarray(leaf))) for leaf in leaves)


def _first_zero(size_at: Callable[[int], float | None]) -> int | None:
    """The first step at which a schedule has fallen to 0, other than by underflow."""
    positive, zero = -1, None
    for step in _LADDER:
        size = size_at(step)
        if size is None:
            return None
        if size <= 0:
            zero = step
            break
        positive = step
    while zero is not None and zero - positive > 1:
        middle = (positive + zero) // 2
        if (size_at(middle) or 0) > 0:
            positive = middle
        else:
            zero = middle
    underflows = positive >= 0 and (size_at(positive) or 0) < _UNDERFLOWS
    return None if underflows else zero


def spread(sigma: Any, step: jax.Array, centre: PyTree) -> PyTree:
    """σ of every leaf of ``centre``, each a scalar or of the leaf's shape.

    Args:
      sigma: as checked by ``check_sigma``; a schedule may return a pytree too.
      step: of the schedules.
      centre: μ.

    Raises:
      ValueError: if ``sigma`` is no prefix of ``centre``, or an array in it does not
        broadcast to its leaf.
    """
    sigma = _arguments.at_step(sigma, step)
    each = broadcast(
        "sigma", "a number, an array or a schedule", sigma, centre, "params"
    )
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf, s: _of_leaf(name_of(path), leaf, s, step), centre, each
    )


def _of_leaf(name: str, leaf: Any, sigma: Any, step: jax.Array) -> jax.Array:
    dtype = jnp.finfo(leaf.dtype).dtype
    if isinstance(sigma, Relative):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise ValueError(
                "sigma must not be relative(...) where init gets shapes alone, as a "
                f"spread relative to {name} needs its values; got {leaf}."
            )
        precise = jnp.promote_types(dtype, jnp.float32)
        square = jnp.mean(jnp.abs(leaf).astype(precise) ** 2) if leaf.size else 0
        return (_arguments.at_step(sigma.factor, step) * jnp.sqrt(square)).astype(dtype)
    array = jnp.asarray(_arguments.at_step(sigma, step))
    fits = array.ndim <= leaf.ndim and all(
        n in (1, m)
        for n, m in zip(reversed(array.shape), reversed(leaf.shape), strict=False)
    )
    if not fits:
        raise ValueError(
            f"sigma must be a number or an array that broadcasts to {leaf.shape}, the "
            f"shape of {name}; got shape {array.shape}."
        )
    return jnp.broadcast_to(array, leaf.shape) if array.ndim else array


def unresolved(centre: PyTree, sigma: PyTree) -> jax.Array:
    """The share of weights that an offset of σ leaves as they are, by rounding.

    σ is at most half of the distance from the weight to the next number of its dtype:
    most offsets round to nothing.

    Args:
      centre: μ.
      sigma: by ``spread``.

    Returns:
      From 0 to 1, float32.
    """
    lost, total = jnp.zeros((), jnp.float32), 0
    for leaf, s in zip(jax.tree.leaves(centre), jax.tree.leaves(sigma), strict=True):
        precise = jnp.promote_types(jnp.finfo(leaf.dtype).dtype, jnp.float32)
        _, exponent = jnp.frexp(jnp.abs(leaf).astype(precise))
        eps = float(jnp.finfo(leaf.dtype).eps)
        half_spacing = jnp.ldexp(jnp.asarray(eps / 4, precise), exponent)
        half_spacing = jnp.where(leaf == 0, 0, half_spacing)
        below = jnp.asarray(s).astype(precise) <= half_spacing
        of_rows = jnp.sum(jnp.atleast_1d(below), axis=-1, dtype=jnp.uint32)
        lost += jnp.sum(of_rows.astype(jnp.float32))
        total += leaf.size
    return lost / max(total, 1)
