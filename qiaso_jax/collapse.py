"""Collapse: what is read out of the superposition, as weights on the offsets.

The centre moves by Σ_k w_k δ_k, with w a function of the amplitudes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qiaso_jax import _arguments

_Outcome = TypeVar("_Outcome")


class Readout(NamedTuple):
    """How a superposition collapses.

    Attributes:
      weights: ``(key, log_amplitudes) -> w``, both of shape ``[K]``, w on the simplex
        or not.
      keeps_centre: whether candidate 0 stays at the centre, as it should where w falls
        on single candidates: the centre then returns to what was evaluated.
    """

    weights: Callable[[jax.Array, jax.Array], jax.Array]
    keeps_centre: bool = False

    def __call__(self, key: jax.Array, log_amplitudes: jax.Array) -> jax.Array:
        """The weights, or our error if they are not K floats."""
        weights = self.weights(key, log_amplitudes)
        return _arguments.floats_of_shape(
            "collapse", "the log-amplitudes", weights, log_amplitudes.shape
        ).astype(log_amplitudes.dtype)


def best(key: jax.Array, log_amplitudes: Float[Array, " K"]) -> Float[Array, " K"]:
    """The most probable candidate, Eq 39; the first of several."""
    del key
    return _one_hot(jnp.argmax(log_amplitudes), log_amplitudes)


def expectation(
    key: jax.Array, log_amplitudes: Float[Array, " K"]
) -> Float[Array, " K"]:
    """The expected weights, Eq 2 (whose "= 1" is a misprint)."""
    del key
    return jnp.exp(log_amplitudes)


def sample(key: jax.Array, log_amplitudes: Float[Array, " K"]) -> Float[Array, " K"]:
    """A measurement: candidate k with probability p_k."""
    return _one_hot(jax.random.categorical(key, log_amplitudes), log_amplitudes)


def _one_hot(index: jax.Array, like: jax.Array) -> jax.Array:
    return jax.nn.one_hot(index, like.shape[0], dtype=like.dtype)


READOUTS = {
    "expectation": Readout(expectation),
    "best": Readout(best, keeps_centre=True),
    "sample": Readout(sample, keeps_centre=True),
}


def readout(collapse: Any) -> Readout:
    """The readout that the argument ``collapse`` names, or is."""
    if isinstance(collapse, Readout):
        _arguments.function("weights", collapse.weights, "(key, log_amplitudes) -> w")
        return collapse
    if callable(collapse):
        weights: Any = collapse
        return Readout(weights)
    if not isinstance(collapse, str) or collapse not in READOUTS:
        names = ", ".join(map(repr, READOUTS))
        raise ValueError(
            f"collapse must be one of {names}, or a function "
            f"(key, log_amplitudes) -> weights; got {collapse!r}."
        )
    return READOUTS[collapse]


def at_multiples(
    collapse_every: int,
    step: jax.Array,
    collapse_now: Callable[[], _Outcome],
    keep: Callable[[], _Outcome],
) -> tuple[jax.Array, _Outcome]:
    """Whether the update after ``step`` others collapses, and what comes of it."""
    if collapse_every == 1:
        return jnp.asarray(True), collapse_now()
    # At the end of int32, where the count of steps stays, every update collapses.
    last = step == jnp.iinfo(step.dtype).max
    collapses = ((step + 1) % collapse_every == 0) | last
    return collapses, jax.lax.cond(collapses, collapse_now, keep)
