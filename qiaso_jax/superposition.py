"""Superposition: preparing K candidates around a centre, θ_k = μ + δ_k (Eq 1).

A candidate is known by its index. Antithetic candidates share a direction z_u and
differ in sign, and a superposition may keep its candidate 0 at the centre:

    δ_k = sign(k) · σ · z_{unit(k)},   z_u ~ 𝒩(0, I) drawn from fold_in(key, u).

Hence any candidate can be drawn again from the key, without the others.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from qiaso_jax._arguments import PyTree
from qiaso_jax._trees import is_inexact


def gaussian_like(key: jax.Array, tree: PyTree) -> PyTree:
    """One independent standard normal per weight; a scalar 0 for integer leaves.

    Complex weights get E|z|² = 1. Only the shapes and dtypes of ``tree`` are used.
    """
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, max(len(leaves), 1))
    drawn = [
        jax.random.normal(k, leaf.shape, leaf.dtype)
        if is_inexact(leaf)
        else jnp.zeros((), leaf.dtype)
        for k, leaf in zip(keys, leaves, strict=False)
    ]
    return jax.tree.unflatten(treedef, drawn)


def scaled(factor: chex.Numeric, tree: PyTree) -> PyTree:
    """``factor · leaf`` in the dtype of each inexact leaf."""

    def scale(leaf):
        if not is_inexact(leaf):
            return leaf
        return jnp.asarray(factor).astype(leaf.dtype) * leaf

    return jax.tree.map(scale, tree)


def displaced(centre: PyTree, offset: PyTree) -> PyTree:
    """The candidate μ + δ; integer leaves as they are in the centre."""
    return jax.tree.map(lambda m, d: m + d if is_inexact(m) else m, centre, offset)


class Superposition(NamedTuple):
    """The shape of a superposition.

    Attributes:
      num_candidates: K.
      antithetic: whether candidates come in pairs ±z; one of an odd number is alone.
      keeps_centre: whether candidate 0 has offset 0.
    """

    num_candidates: int
    antithetic: bool
    keeps_centre: bool

    @property
    def num_drawn(self) -> int:
        """Number of independent directions."""
        moving = self.num_candidates - self.keeps_centre
        return -(-moving // 2) if self.antithetic else moving

    def offset(
        self, key: jax.Array, like: PyTree, sigma: chex.Numeric, k: jax.Array
    ) -> PyTree:
        """The offset δ_k of one candidate, a pytree like the parameters."""
        k = k - int(self.keeps_centre)
        mirrored = k >= self.num_drawn
        unit = jnp.where(mirrored, k - self.num_drawn, k)
        sign = jnp.where(mirrored, -1, 1) * jnp.where(k < 0, 0, 1)
        direction = gaussian_like(jax.random.fold_in(key, jnp.maximum(unit, 0)), like)
        return scaled(sigma * sign, direction)

    def offsets(self, key: jax.Array, like: PyTree, sigma: chex.Numeric) -> PyTree:
        """All offsets, leading axis K; each direction is drawn once."""
        units = jnp.arange(self.num_drawn)
        draw = jax.vmap(lambda u: gaussian_like(jax.random.fold_in(key, u), like))
        num_mirrored = self.num_candidates - self.keeps_centre - self.num_drawn

        def arrange(z):
            if not is_inexact(z):
                return jnp.zeros((self.num_candidates,), z.dtype)
            centre = jnp.zeros((int(self.keeps_centre), *z.shape[1:]), z.dtype)
            return jnp.concatenate([centre, z, -z[:num_mirrored]])

        return scaled(sigma, jax.tree.map(arrange, draw(units)))
