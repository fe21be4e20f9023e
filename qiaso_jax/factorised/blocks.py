"""Blocks: the parts of the parameters that have a superposition each (Eq 1).

The offsets of all values lie as in ``qiaso``, a pytree like the parameters with a
leading axis K. A block is a whole leaf or one weight; the blocks of all leaves are
numbered through, leaf by leaf, and a *configuration* says which value each one takes.
"""

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from qiaso_jax._arguments import PyTree
from qiaso_jax.resampling import systematic_draws

GRANULARITIES = ("element", "leaf")


def block_shape(leaf: Any, granularity: str) -> tuple[int, int]:
    """How many blocks a leaf has, and of how many weights."""
    size = math.prod(leaf.shape)
    return (size, 1) if granularity == "element" else (1, size)


def count_blocks(tree: PyTree, granularity: str) -> int:
    """The number of blocks of all leaves together."""
    return sum(block_shape(leaf, granularity)[0] for leaf in jax.tree.leaves(tree))


def by_leaf(per_block: jax.Array, like: PyTree, granularity: str) -> PyTree:
    """Rows of ``per_block``, one for each block, as a pytree of those of each leaf."""
    leaves, treedef = jax.tree.flatten(like)
    rows, start = [], 0
    for leaf in leaves:
        stop = start + block_shape(leaf, granularity)[0]
        rows.append(per_block[start:stop])
        start = stop
    return jax.tree.unflatten(treedef, rows)


def mean_offset(
    weights: jax.Array, offsets: PyTree, centre: PyTree, granularity: str
) -> PyTree:
    """Σ_k w_ik δ_i^(k) of every block, a pytree like ``centre`` (Eq 2).

    Args:
      weights: shape ``[blocks, K]``.
      offsets: as prepared, with a leading axis K.
      centre: gives the shapes and dtypes of the leaves.
      granularity: one of ``GRANULARITIES``.
    """

    def of_leaf(leaf, offsets, weights):
        dtype = jnp.promote_types(leaf.dtype, weights.dtype)
        values = offsets.reshape(offsets.shape[0], *block_shape(leaf, granularity))
        total = jnp.sum(weights.T[:, :, None].astype(dtype) * values, axis=0)
        return total.astype(leaf.dtype).reshape(leaf.shape)

    return jax.tree.map(of_leaf, centre, offsets, by_leaf(weights, centre, granularity))


def configured_offset(
    configuration: jax.Array, offsets: PyTree, centre: PyTree, granularity: str
) -> PyTree:
    """The offset of a configuration, a pytree like ``centre``.

    Args:
      configuration: the number of the value that each block takes, shape ``[blocks]``.
      offsets: as prepared; their leading axis may have more than K entries.
      centre: gives the shapes of the leaves.
      granularity: one of ``GRANULARITIES``.
    """

    def of_leaf(leaf, offsets, chosen):
        values = offsets.reshape(offsets.shape[0], *block_shape(leaf, granularity))
        taken = jnp.take_along_axis(values, chosen[None, :, None], axis=0)
        return taken.reshape(leaf.shape)

    chosen = by_leaf(configuration, centre, granularity)
    return jax.tree.map(of_leaf, centre, offsets, chosen)


def stratified_draws(
    key: jax.Array, log_amplitudes: Float[Array, "blocks K"], num_draws: int
) -> Int[Array, "num_draws blocks"]:
    """Configurations from the product of the blocks' distributions.

    Value k of block i is drawn S p_ik times, rounded up or down (systematic sampling),
    and in an order that is random and independent between blocks (a Latin hypercube).
    So each configuration has the product distribution, and all of them together have
    less variance than independent ones.

    Args:
      key: PRNG key.
      log_amplitudes: log p_ik, shape ``[blocks, K]``.
      num_draws: S.

    Returns:
      Numbers of values, int32, shape ``[S, blocks]``.
    """
    num_blocks = log_amplitudes.shape[0]
    order_key, shift_key = jax.random.split(key)
    shifts = jax.random.uniform(shift_key, (num_blocks,), log_amplitudes.dtype)
    systematic = jax.vmap(partial(systematic_draws, count=num_draws))
    drawn = systematic(shifts, jnp.exp(log_amplitudes))
    # Half the time of jax.random.permutation; equal bits are too rare to matter.
    order = jnp.argsort(jax.random.bits(order_key, (num_blocks, num_draws)), axis=1)
    return jnp.take_along_axis(drawn, order, axis=1).T


def credited_losses(
    losses: Float[Array, " S"], draws: Int[Array, "S blocks"], num_candidates: int
) -> Float[Array, "blocks num_candidates"]:
    """The mean loss of the configurations in which a block took a value.

    Args:
      losses: of S configurations, shape ``[S]``.
      draws: the configurations, shape ``[S, blocks]``.
      num_candidates: K.

    Returns:
      Shape ``[blocks, K]``. Losses that are not finite do not count; a value with no
      other ones gets ``inf``, and a value that was not drawn the mean of all.
    """
    finite = jnp.isfinite(losses)
    count = jnp.maximum(jnp.sum(finite), 1)
    # Centred, or the losses' common part would take the digits of what differs.
    mean = jnp.sum(jnp.where(finite, losses / count, 0))
    deviations = jnp.where(finite, losses - mean, 0) / count

    def sums(chosen, values):
        return jnp.zeros(num_candidates, values.dtype).at[chosen].add(values)

    of_blocks = jax.vmap(sums, in_axes=(1, None))
    total = of_blocks(draws, deviations)
    num_finite = of_blocks(draws, finite.astype(jnp.int32))
    num_drawn = of_blocks(draws, jnp.ones_like(finite, jnp.int32))
    scale = count / jnp.maximum(num_finite, 1).astype(losses.dtype)
    return jnp.where((num_drawn > 0) & (num_finite == 0), jnp.inf, mean + total * scale)
