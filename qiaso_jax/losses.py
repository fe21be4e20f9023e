"""Losses as they are compared, without the digits that all of them have in common.

What tells candidates apart may be far below the losses themselves. On the device that
is as it is; losses that are told are compared on the host, before they become float32.
"""

import math
import operator
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_EQUAL = 4
"""Rounding errors, in units of eps · max |L|, that do not tell candidates apart."""


class Losses(NamedTuple):
    """The losses of the candidates of a superposition, along the first axis.

    Attributes:
      value: L, in the precision of the amplitudes; finite exactly where the loss is.
      excess: L less the lowest of all, likewise.
      relative: the same in a unit of its own.
      order: numbers in the same order.
      resolution: eps |L|, in the unit of ``relative``.
    """

    value: jax.Array
    excess: jax.Array
    relative: jax.Array
    order: jax.Array
    resolution: jax.Array

    @property
    def equal(self) -> jax.Array:
        """Whether the finite ones differ by less than rounding may make of equals."""
        finite = jnp.isfinite(self.value)
        most = jnp.max(self.relative, axis=0, where=finite, initial=-jnp.inf)
        least = jnp.min(self.relative, axis=0, where=finite, initial=jnp.inf)
        resolution = jnp.max(self.resolution, axis=0, where=finite, initial=0)
        # Halves of these do not overflow.
        return most / 2 - least / 2 <= _EQUAL / 2 * resolution


def measured(losses: Any, dtype: Any) -> Losses:
    """What has been evaluated on the device, for amplitudes of ``dtype``.

    Args:
      losses: an array with the candidates along its first axis, or ``Losses`` already.
      dtype: of the amplitudes.
    """
    if isinstance(losses, Losses):
        return losses
    precise = jnp.promote_types(losses.dtype, dtype)
    resolution = jnp.abs(losses) * jnp.finfo(losses.dtype).eps
    value = _saturated(losses, dtype)
    losses = losses.astype(precise)
    finite = jnp.isfinite(losses)
    lowest = jnp.min(losses, axis=0, where=finite, initial=jnp.inf)
    excess = jnp.where(finite, losses, 0) - jnp.where(finite, lowest[None], 0)
    largest = jnp.finfo(dtype).max
    return Losses(
        value,
        jnp.where(finite, jnp.minimum(excess, largest), jnp.inf).astype(dtype),
        losses,
        losses,
        resolution.astype(precise),
    )


def _saturated(losses: jax.Array, dtype: Any) -> jax.Array:
    largest = float(jnp.finfo(dtype).max)
    clipped = jnp.clip(losses, -largest, largest)
    return jnp.where(jnp.isfinite(losses), clipped, losses).astype(dtype)


def told(losses: Any, dtype: Any) -> Losses:
    """What the host knows: Python numbers, or an array, compared in full precision.

    Args:
      losses: a sequence of real numbers, NaN where one is missing.
      dtype: of the amplitudes.

    Raises:
      TypeError: if they are no real numbers.
      ValueError: if they are no sequence of numbers.
    """
    numbers = real_numbers(losses)
    finite = np.array([is_finite(x) for x in numbers], bool)
    known = [Fraction(x) for x in numbers if is_finite(x)]
    lowest = min(known, default=Fraction(0))
    spread = max(known, default=lowest) - lowest
    rounding = _relative_error(losses, numbers) * max(map(abs, known), default=lowest)
    ranks = {x: rank for rank, x in enumerate(sorted(set(known)))}
    largest = Fraction(float(jnp.finfo(dtype).max))

    def placed(values: Any, elsewhere: Any = math.inf) -> jax.Array:
        array = np.full(len(numbers), elsewhere)
        array[finite] = values
        return jnp.asarray(array.astype(dtype))

    def in_range(x):
        return float(max(-largest, min(largest, x)))

    not_finite = [0.0 if is_finite(x) else x for x in numbers]
    equal = spread <= _EQUAL * rounding
    return Losses(
        value=placed([in_range(x) for x in known], not_finite),
        excess=placed([in_range(x - lowest) for x in known]),
        relative=placed([float((x - lowest) / (spread or 1)) for x in known]),
        order=placed([ranks[x] for x in known]),
        resolution=placed(1.0 if equal else float(rounding / spread)),
    )


def is_finite(x: int | float) -> bool:
    """``math.isfinite``, for integers beyond the largest float too."""
    return isinstance(x, int) or math.isfinite(x)


def real_numbers(losses: Any) -> list[int | float]:
    """Losses as Python numbers, which compare without rounding.

    Raises:
      TypeError: if they are no real numbers.
      ValueError: if one has an axis.
    """
    try:
        # At once: a device hands out an array element by element slowly.
        values = np.asarray(losses) if isinstance(losses, jax.Array) else losses
        return [_number(x) for x in values]
    except TypeError as error:
        raise TypeError(
            "losses must be a sequence of real numbers, NaN where a candidate has no "
            f"result; got {losses!r}."
        ) from error


def _relative_error(losses: Any, numbers: list[int | float]) -> Fraction:
    """Of the dtype that they came in; 0 if all are integers."""
    if all(isinstance(x, int) for x in numbers if is_finite(x)):
        return Fraction(0)
    dtype = getattr(losses, "dtype", np.float64)
    is_float = jnp.issubdtype(dtype, jnp.floating)
    return Fraction(float(jnp.finfo(dtype if is_float else np.float64).eps))


def _number(x: Any) -> int | float:
    if np.ndim(x):
        raise ValueError(
            f"losses must have one number for each candidate, got one of shape "
            f"{np.shape(x)}."
        )
    if hasattr(x, "dtype"):
        x = np.asarray(x).item()
    if isinstance(x, bool) or not hasattr(x, "__float__"):
        raise TypeError
    return operator.index(x) if hasattr(x, "__index__") else float(x)
