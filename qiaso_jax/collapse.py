"""Collapse: what is read out of the superposition, as weights on the offsets.

The centre moves by Σ_k w_k δ_k. Each readout is a function
``(key, log_amplitudes) -> w`` with w on the simplex, shape ``[K]``.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp

_Outcome = TypeVar("_Outcome")


def best(key: jax.Array, log_amplitudes: jax.Array) -> jax.Array:
    """The most probable candidate, Eq 39; the first of several."""
    del key
    return _one_hot(jnp.argmax(log_amplitudes), log_amplitudes)


def expectation(key: jax.Array, log_amplitudes: jax.Array) -> jax.Array:
    """The expected weights, Eq 2 (whose "= 1" is a misprint)."""
    del key
    return jnp.exp(log_amplitudes)


def sample(key: jax.Array, log_amplitudes: jax.Array) -> jax.Array:
    """A measurement: candidate k with probability p_k."""
    return _one_hot(jax.random.categorical(key, log_amplitudes), log_amplitudes)


def _one_hot(index: jax.Array, like: jax.Array) -> jax.Array:
    return jax.nn.one_hot(index, like.shape[0], dtype=like.dtype)


READOUTS = {"expectation": expectation, "best": best, "sample": sample}

# These return to weights that a candidate has had, so one candidate keeps the centre.
KEEPS_CENTRE = ("best", "sample")


def at_multiples(
    collapse_every: int,
    step: jax.Array,
    collapse_now: Callable[[], _Outcome],
    keep: Callable[[], _Outcome],
) -> tuple[jax.Array, _Outcome]:
    """Whether the update after ``step`` others collapses, and what comes of it."""
    if collapse_every == 1:
        return jnp.asarray(True), collapse_now()
    collapses = (step + 1) % collapse_every == 0
    return collapses, jax.lax.cond(collapses, collapse_now, keep)
