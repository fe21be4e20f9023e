"""What the arguments of all functions have to be, and losses relative to the least."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

# Of the sum of probabilities: they may have been rounded to bfloat16 on the way here.
_SUM_TOLERANCE = 2.0**-8


class Rule(NamedTuple):
    """What is accepted, in words; the number of axes, if that matters; and a test."""

    accepted: str
    ndim: int | None
    holds: Callable[[np.ndarray], bool | np.bool]


_SIMPLEX = Rule(
    "a vector of non-negative numbers that sum to 1",
    1,
    lambda x: np.all(x >= 0) and abs(np.sum(x, dtype=float) - 1) <= _SUM_TOLERANCE,
)
_FINITE = Rule("finite", None, lambda x: np.all(np.isfinite(x)))
_SCALAR = _FINITE._replace(accepted="a finite scalar", ndim=0)
_POSITIVE = Rule("positive and finite", None, lambda x: np.all((x > 0) & (x < np.inf)))
_PROBABILITY = Rule("between 0 and 1", None, lambda x: np.all((x >= 0) & (x <= 1)))
_RULES = {
    **dict.fromkeys(("p", "q", "p_next"), _SIMPLEX),
    "losses": Rule(
        "a non-empty vector of finite numbers",
        1,
        lambda x: x.size > 0 and np.all(np.isfinite(x)),
    ),
    "dual": Rule("a vector of numbers below +inf", 1, lambda x: np.all(x < np.inf)),
    "eta": _POSITIVE._replace(accepted="a positive, finite scalar", ndim=0),
    **dict.fromkeys(("barrier", "epsilon", "sigma", "decay"), _POSITIVE),
    **dict.fromkeys(
        ("initial_probability", "tunnelling_probabilities", "escape"), _PROBABILITY
    ),
    "num_steps": Rule("at least 1", None, lambda x: np.all(x >= 1)),
    "num_weights": Rule(
        "at least 1 and finite", None, lambda x: np.all((x >= 1) & (x < np.inf))
    ),
    **dict.fromkeys(("initial", "final"), _SCALAR),
    **dict.fromkeys(("increases", "noise"), _FINITE),
}


def checked(**arguments: ArrayLike) -> list[Array]:
    """The arguments in one floating dtype, once each is known to obey its rule."""
    lengths = {}
    for name, value in arguments.items():
        accepted, ndim, holds = _RULES[name]
        shape = np.shape(value)
        if ndim is not None and len(shape) != ndim:
            raise ValueError(f"{name} must be {accepted}, got shape {shape}.")
        if ndim == 1:
            lengths[name] = shape[0]
        # NumPy and not jax.numpy, whose result would be traced under an outer jit.
        if not isinstance(value, Tracer) and not holds(np.asarray(value)):
            raise ValueError(f"{name} must be {accepted}, got {value}.")
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"{' and '.join(lengths)} must have the same length, "
            f"got {' and '.join(map(str, lengths.values()))}."
        )
    arrays = [jnp.asarray(value) for value in arguments.values()]
    dtype = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    return [array.astype(dtype) for array in arrays]


def above_least(losses: Array, p: Array) -> Array:
    """By how much each loss exceeds the least of those with a positive probability.

    These differences are exact where products of η with large losses round.
    """
    return losses - jnp.min(losses, where=p > 0, initial=jnp.inf)
