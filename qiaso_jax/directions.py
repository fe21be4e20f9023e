"""Random directions that are known by a source and a number, so that none is stored.

A direction z is an array with E z = 0 and E z² = 1. ``draw`` gives the sources of some
directions; with its source, the direction of any number can be drawn, and drawn again.
Weight space has a direction per parameter, node space per site; a number stands for a
candidate or, where these come in antithetic pairs ±z, for a pair.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32

from qiaso_jax._arguments import PyTree

REACH = {"rademacher": 1.0, "gaussian": 4.0}
"""How many σ the directions of each kind go, but for a few of 10⁵ draws."""

NUMBERS_PER_WORD = 32
"""How many Rademacher directions one source is good for."""


class Directions(NamedTuple):
    """Random arrays z, one for each number.

    Attributes:
      shape: of z.
      dtype: of z.
      kind: a key of ``REACH``.
    """

    shape: tuple[int, ...]
    dtype: Any
    kind: str

    def scaled(self, source: Any, number: jax.Array, factor: jax.Array) -> jax.Array:
        """``factor · z``, where ``factor`` broadcasts against z.

        Args:
          source: by ``draw``.
          number: which z, an integer scalar; of Rademacher directions one below the
            number of those drawn.
          factor: in the dtype of z.
        """
        if self.kind == "gaussian":
            return factor * source.normal(number, self.shape, self.dtype)
        # The number's bit of the random words becomes the sign bit.
        bits = jnp.finfo(factor.dtype).bits
        pattern = jax.lax.bitcast_convert_type(factor, f"uint{bits}")
        drawn = (source >> number.astype(source.dtype)).astype(pattern.dtype)
        flipped = pattern ^ (drawn << (bits - 1))
        return jax.lax.bitcast_convert_type(flipped, factor.dtype)


class Place(NamedTuple):
    """The source of Gaussian directions: the place of one among those of a key."""

    key: jax.Array
    position: int
    number: int

    def normal(self, number: jax.Array, shape: tuple[int, ...], dtype: Any):
        """Standard normals; complex ones have E|z|² = 1."""
        keys = jax.random.split(jax.random.fold_in(self.key, number), self.number)
        return jax.random.normal(keys[self.position], shape, dtype)


def draw(key: jax.Array, directions: Sequence[Directions], count: int) -> list[Any]:
    """The source of each of some directions, for numbers below ``count``.

    Args:
      key: a PRNG key.
      directions: all of one kind.
      count: at most ``NUMBERS_PER_WORD`` for Rademacher directions.

    Returns:
      A ``Place`` each for Gaussian directions; for Rademacher ones an array of random
      words of the shape of z, whose bits are the signs, all from one draw, as many
      small ones cost more.
    """
    if not directions:
        return []
    if directions[0].kind == "gaussian":
        return [Place(key, i, len(directions)) for i in range(len(directions))]
    width = next(w for w in (8, 16, NUMBERS_PER_WORD) if count <= w)
    ends = list(itertools.accumulate(math.prod(d.shape) for d in directions))
    words = packed_bits(key, ends[-1], width)
    parts = jnp.split(words, ends[:-1])
    return [part.reshape(d.shape) for part, d in zip(parts, directions, strict=True)]


def packed_bits(key: jax.Array, size: int, width: int) -> jax.Array:
    """Random words of 8, 16 or 32 bits, all bits of what is drawn used.

    ``jax.random.bits`` draws 64 bits for every word, however narrow: as a threefry key
    gives both halves, they are taken from it directly.
    """
    num_drawn = -(-size // (32 // width))
    if str(jax.random.key_impl(key)) == "threefry2x32":
        counter = jnp.arange(num_drawn, dtype=jnp.uint32)
        drawn = threefry_2x32(jax.random.key_data(key), counter)
    else:
        drawn = jax.random.bits(key, (num_drawn,), jnp.uint32)
    return jax.lax.bitcast_convert_type(drawn, f"uint{width}").reshape(-1)[:size]


def direction_like(
    key: jax.Array, tree: PyTree, kind: str, number: jax.Array, count: int
) -> PyTree:
    """One direction of the shapes and dtypes of ``tree``.

    Args:
      key: a PRNG key.
      tree: a pytree of arrays, or of their shapes and dtypes.
      kind: a key of ``REACH``.
      number: which direction.
      count: how many directions the key has.
    """
    leaves, treedef = jax.tree.flatten(tree)
    kinds = [Directions(x.shape, x.dtype, kind) for x in leaves]
    return treedef.unflatten(
        [
            z.scaled(source, number, jnp.ones((), z.dtype))
            for z, source in zip(kinds, draw(key, kinds, count), strict=True)
        ]
    )
