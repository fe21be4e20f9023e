"""Systematic draws: each as often as its probability says, rounded up or down."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def systematic_draws(
    shift: Float[Array, ""], weights: Float[Array, " n"], count: int
) -> Int[Array, " count"]:
    """Draws ``count`` times, of i ``count · w_i / Σw`` times but for rounding.

    The quantiles (j + u) / count, j = 0 … count − 1, with one uniform shift u, are
    looked up in the cumulated weights; in expectation over u the numbers are exact.

    Args:
      shift: u in [0, 1), a scalar.
      weights: w ≥ 0, shape ``[n]``, not all zero. One of weight 0 is never drawn.
      count: how many to draw.

    Returns:
      Indices, int32, shape ``[count]``, in ascending order.
    """
    edges = jnp.cumsum(weights)
    quantiles = (jnp.arange(count) + shift) * (edges[-1] / count)
    # Below the end, lest rounding draw what lies behind it.
    below = edges[-1] * (1 - jnp.finfo(edges.dtype).epsneg)
    quantiles = jnp.minimum(quantiles, below)
    return jnp.searchsorted(edges, quantiles, side="right").astype(jnp.int32)
