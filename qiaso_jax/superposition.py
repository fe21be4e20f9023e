"""Superposition: preparing K candidates around a centre, θ_k = μ + δ_k (Eq 1).

A candidate is known by its index. Antithetic candidates share a direction z_u and
differ in sign, and a superposition may keep its candidate 0 at the centre:

    δ_k = sign(k) · σ · z_{unit(k)},

with a spread σ of every leaf, or of every weight, by ``spread``.

Hence any candidate can be drawn again from the key, without the others.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qiaso_jax._arguments import PyTree
from qiaso_jax.directions import direction_like


class Candidates(NamedTuple):
    """Candidates around a centre, as what each is known by.

    Attributes:
      each: a pytree of arrays with a leading axis of the candidates: their indices,
        and whatever is stored of them.
      offset_of: the offset δ of one, from its part of ``each``.
      batch_size: how many offsets may exist at a time; ``None`` for all.
    """

    each: PyTree
    offset_of: Callable[[Any], PyTree]
    batch_size: int | None

    @property
    def number(self) -> int:
        """How many there are."""
        return jax.tree.leaves(self.each)[0].shape[0]

    def arrays(self, centre: PyTree) -> PyTree:
        """μ + δ of all, a pytree like ``centre`` with a leading axis."""

        def candidate(one):
            return displaced(centre, self.offset_of(one))

        return jax.vmap(candidate)(self.each)

    def weighted_offset(self, weights: Float[Array, " K"], centre: PyTree) -> PyTree:
        """Σ_k w_k δ_k, a pytree like ``centre``, summed in the weights' precision."""
        number = weights.shape[0]
        size = number if self.batch_size is None else min(self.batch_size, number)
        num_chunks = -(-number // size)
        missing = num_chunks * size - number

        def chunked(x):
            # The last candidate fills the last chunk up, with weight 0.
            x = jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)])
            return x.reshape(num_chunks, size, *x.shape[1:])

        def zeros(leaf):
            return jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, weights.dtype))

        def add(sums, chunk):
            weights, each = chunk
            offsets = jax.vmap(self.offset_of)(each)
            return jax.tree.map(partial(_added, weights), sums, offsets), None

        weights = jnp.pad(weights, (0, missing)).reshape(num_chunks, size)
        each = jax.tree.map(chunked, self.each)
        sums, _ = jax.lax.scan(add, jax.tree.map(zeros, centre), (weights, each))
        return jax.tree.map(lambda m, s: s.astype(m.dtype), centre, sums)


def _added(weights: jax.Array, total: jax.Array, offsets: jax.Array) -> jax.Array:
    return total + jnp.tensordot(
        weights.astype(total.dtype),
        offsets.astype(total.dtype),
        axes=1,
        precision=jax.lax.Precision.HIGHEST,
    )


def stored(offsets: PyTree, number: int, batch_size: int | None = None) -> Candidates:
    """Candidates whose offsets exist, with a leading axis."""
    return Candidates((jnp.arange(number), offsets), lambda one: one[1], batch_size)


def displaced(centre: PyTree, offset: PyTree) -> PyTree:
    """The candidate μ + δ."""
    return jax.tree.map(jnp.add, centre, offset)


class Superposition(NamedTuple):
    """The shape of a superposition.

    Attributes:
      num_candidates: K.
      antithetic: whether candidates come in pairs ±z; one of an odd number is alone.
      keeps_centre: whether candidate 0 has offset 0.
      directions: the kind of z, a key of ``directions.REACH``.
    """

    num_candidates: int
    antithetic: bool
    keeps_centre: bool
    directions: str = "gaussian"

    @property
    def num_drawn(self) -> int:
        """Number of independent directions."""
        moving = self.num_candidates - self.keeps_centre
        return -(-moving // 2) if self.antithetic else moving

    def candidates(
        self,
        key: jax.Array,
        like: PyTree,
        sigma: PyTree,
        batch_size: int | None,
    ) -> Candidates:
        """The candidates of a key: all offsets, or each drawn when it is needed."""
        if batch_size is None:
            return stored(self.offsets(key, like, sigma), self.num_candidates)
        offset_of = partial(self.offset, key, like, sigma)
        return Candidates(jnp.arange(self.num_candidates), offset_of, batch_size)

    def offset(
        self, key: jax.Array, like: PyTree, sigma: PyTree, k: jax.Array
    ) -> PyTree:
        """The offset δ_k of one candidate, a pytree like the parameters."""
        k = k - int(self.keeps_centre)
        mirrored = k >= self.num_drawn
        unit = jnp.where(mirrored, k - self.num_drawn, k)
        sign = jnp.where(mirrored, -1, 1) * jnp.where(k < 0, 0, 1)
        direction = self._direction(key, like, jnp.maximum(unit, 0))
        return _scaled(jax.tree.map(lambda s: s * sign, sigma), direction)

    def offsets(self, key: jax.Array, like: PyTree, sigma: PyTree) -> PyTree:
        """All offsets, leading axis K; each direction is drawn once."""
        drawn = jax.vmap(partial(self._direction, key, like))(
            jnp.arange(self.num_drawn)
        )
        num_mirrored = self.num_candidates - self.keeps_centre - self.num_drawn

        def arranged(z):
            centre = jnp.zeros((int(self.keeps_centre), *z.shape[1:]), z.dtype)
            return jnp.concatenate([centre, z, -z[:num_mirrored]])

        return _scaled(sigma, jax.tree.map(arranged, drawn))

    def _direction(self, key: jax.Array, like: PyTree, unit: jax.Array) -> PyTree:
        return direction_like(key, like, self.directions, unit, self.num_drawn)


def _scaled(sigma: PyTree, directions: PyTree) -> PyTree:
    """σ z in the dtype of z."""

    def scaled(z, s):
        # One for each weight lacks the axis of the candidates.
        s = jnp.asarray(s).astype(z.dtype)
        return (s[None] if 0 < s.ndim < z.ndim else s) * z

    return jax.tree.map(scaled, directions, jax.tree.broadcast(sigma, directions))
