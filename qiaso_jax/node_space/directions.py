"""Random directions that are known by a source and a number, so that none is stored.

A direction z of a site is an array with E z = 0 and E z² = 1. ``draw`` gives the
sources of some directions; with its source, the direction of any number can be drawn,
and drawn again. A number stands for an antithetic pair ±z.

What belongs to an example is drawn by the key and the number of that example, whatever
the others are: a device that has some of a batch draws what it has.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qiaso_jax.program.axes import ExampleAxis
from qiaso_jax.words import normals, packed_words, pairs_of_normals, rows_of_pairs

REACH = {"rademacher": 1.0, "gaussian": 4.0}
"""How many σ the directions of each kind go, but for a few of 10⁵ draws."""

NUMBERS_PER_WORD = 32
"""How many Rademacher directions one source is good for."""

SHARED = np.array([2**32 - 1], np.uint32)
"""In the place of the examples, for what all of them share."""


class Directions(NamedTuple):
    """Random arrays z, one for each number.

    Attributes:
      shape: of z.
      dtype: of z.
      kind: a key of ``REACH``.
      axis: where z counts the examples; ``None`` where they share it.
    """

    shape: tuple[int, ...]
    dtype: Any
    kind: str
    axis: ExampleAxis | None = None

    def scaled(self, source: Any, number: jax.Array, factor: jax.Array) -> jax.Array:
        """``factor · z``, where ``factor`` broadcasts against z.

        Args:
          source: by ``draw``.
          number: which z, an integer scalar; of Rademacher directions one below the
            number of those drawn.
          factor: in the dtype of z.
        """
        if self.kind == "gaussian":
            return factor * source.normal(number, self)
        # The number's bit of the random words becomes the sign bit.
        bits = jnp.finfo(factor.dtype).bits
        pattern = jax.lax.bitcast_convert_type(factor, f"uint{bits}")
        drawn = (source >> number.astype(source.dtype)).astype(pattern.dtype)
        flipped = pattern ^ (drawn << (bits - 1))
        return jax.lax.bitcast_convert_type(flipped, factor.dtype)

    def per_row(self, examples: int) -> int:
        """How many entries of z an example has, or all of them."""
        return math.prod(self.shape) // (1 if self.axis is None else examples)

    def placed(self, rows: jax.Array) -> jax.Array:
        """An array like z of one whose rows are those of the examples."""
        if self.axis is None:
            return rows.reshape(self.shape)
        axis, repeats = self.axis
        before, after = self.shape[:axis], self.shape[axis + 1 :]
        times = self.shape[axis] // (rows.shape[0] * repeats)
        split = rows.reshape(rows.shape[0], *before, times, repeats, *after)
        return jnp.moveaxis(split, 0, axis + 1).reshape(self.shape)


class Place(NamedTuple):
    """The source of Gaussian directions: the place of one among those of a key."""

    key: jax.Array
    position: int
    rows: jax.Array

    def normal(self, number: jax.Array, direction: Directions) -> jax.Array:
        """Standard normals; complex ones have E|z|² = 1."""
        key = jax.random.fold_in(jax.random.fold_in(self.key, number), self.position)
        rows = SHARED if direction.axis is None else self.rows
        dtype = jnp.finfo(direction.dtype).dtype
        is_complex = jnp.issubdtype(direction.dtype, jnp.complexfloating)
        size = direction.per_row(rows.shape[0]) * (2 if is_complex else 1)
        (pair,) = rows_of_pairs(key, rows, [pairs_of_normals(size, dtype)])
        drawn = normals(pair, size, dtype)
        if is_complex:
            drawn = jax.lax.complex(*jnp.split(drawn * math.sqrt(0.5), 2, axis=1))
        return direction.placed(drawn)


def draw(
    key: jax.Array, directions: Sequence[Directions], count: int, rows: jax.Array
) -> list[Any]:
    """The source of each of some directions, for numbers below ``count``.

    Args:
      key: a PRNG key.
      directions: all of one kind.
      count: at most ``NUMBERS_PER_WORD`` for Rademacher directions.
      rows: the numbers of the examples, shape ``[b]``.

    Returns:
      A ``Place`` each for Gaussian directions; for Rademacher ones an array of random
      words of the shape of z, whose bits are the signs, all from one draw, as many
      small ones cost more.
    """
    if not directions:
        return []
    if directions[0].kind == "gaussian":
        return [Place(key, i, rows) for i in range(len(directions))]
    width = next(w for w in (8, 16, NUMBERS_PER_WORD) if count <= w)
    sources: list[Any] = [None] * len(directions)
    for shared in (False, True):
        places = [i for i, z in enumerate(directions) if (z.axis is None) == shared]
        if not places:
            continue
        drawn_for = SHARED if shared else rows
        sizes = [directions[i].per_row(drawn_for.shape[0]) for i in places]
        words = packed_words(key, drawn_for, sum(sizes), width)
        ends = list(itertools.accumulate(sizes))
        for i, part in zip(places, jnp.split(words, ends[:-1], axis=1), strict=True):
            sources[i] = directions[i].placed(part)
    return sources
