"""Random directions that are known by a source and a number, so that none is stored.

A direction z of a site is an array with E z = 0 and E z² = 1. ``draw`` gives the
sources of some directions; with its source, the direction of any number can be drawn,
and drawn again. A number stands for an antithetic pair ±z.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax.words import packed_bits

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
