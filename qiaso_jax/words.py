"""Random words that are known by a key, a row and a position, and numbers made of them.

A row is drawn without the others, and many rows in one go: noise is what a step of a
population costs beside its evaluations.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32

from qiaso_jax import _varying

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)

Pair = tuple[jax.Array, jax.Array]
"""Random words as they are drawn, two at a time."""

Rows = jax.Array | np.ndarray
"""The numbers of rows, shape ``[rows]``."""


def rows_of_pairs(
    key: jax.Array, rows: Rows, counts: Sequence[int], *, fused: bool = False
) -> list[Pair]:
    """Random words of some rows: two arrays ``[rows, count]`` for each of ``counts``.

    Args:
      key: a PRNG key, used for nothing else.
      rows: their numbers, shape ``[rows]``.
      counts: how many pairs of words there are to be for every user of them.
      fused: whether to draw them by operations that XLA fuses with what follows, which
        is to be one use of them all; else they exist, and may be used again.
    """
    total = sum(counts)
    shape = (rows.shape[0], total)
    row = jnp.broadcast_to(rows.astype(jnp.uint32)[:, None], shape)
    position = jax.lax.broadcasted_iota(jnp.uint32, shape, 1)
    data = two_words(key)
    if fused:
        drawn = threefry(data, row, position)
    else:
        drawn = tuple(threefry_2x32(data, jnp.stack([row, position])))
    # JAX 0.12 and before do not keep book of what its generators draw.
    drawn = _varying.like(drawn, key, rows)
    ends = list(itertools.accumulate(counts))
    return [
        (drawn[0][:, end - count : end], drawn[1][:, end - count : end])
        for count, end in zip(counts, ends, strict=True)
    ]


def two_words(key: jax.Array) -> jax.Array:
    """A key of threefry, made of one of any generator.

    Others do not promise the same numbers under ``vmap``, nor on other devices.
    """
    data = jax.random.key_data(key)
    words = jnp.pad(data, (0, data.size % 2))
    first, *others = jnp.split(words, words.size // 2)
    return functools.reduce(threefry_2x32, others, first)


def threefry(
    key: jax.Array, x0: jax.Array, x1: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Threefry-2x32 with 20 rounds (Salmon et al., 2011), as elementwise operations.

    The same numbers as ``jax.extend.random.threefry_2x32``, whose loop over the rounds
    reads and writes all words in each of them on a CPU.

    Args:
      key: two words.
      x0: counters, uint32.
      x1: likewise, of the same shape.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    x0, x1 = x0 + keys[0], x1 + keys[1]
    for i in range(5):
        for distance in _ROTATIONS[i % 2]:
            x0 = x0 + x1
            x1 = (x1 << np.uint32(distance)) | (x1 >> np.uint32(32 - distance))
            x1 = x0 ^ x1
        x0 = x0 + keys[(i + 1) % 3]
        x1 = x1 + keys[(i + 2) % 3] + np.uint32(i + 1)
    return x0, x1


def packed_words(key: jax.Array, rows: Rows, size: int, width: int) -> jax.Array:
    """Random words of 8, 16 or 32 bits, ``[rows, size]``: all bits drawn are used.

    Args:
      key: a PRNG key.
      rows: their numbers, shape ``[rows]``.
      size: how many words in a row.
      width: their bits.
    """
    (pair,) = rows_of_pairs(key, rows, [-(-size * width // 64)])
    drawn = jnp.concatenate(pair, axis=1)
    narrow = jax.lax.bitcast_convert_type(drawn, f"uint{width}")
    return narrow.reshape(rows.shape[0], -1)[:, :size]


def pairs_of_normals(size: int, dtype: Any) -> int:
    """How many pairs of words ``size`` normal numbers of a real dtype are made of."""
    return size if jnp.finfo(dtype).bits == 64 else -(-size // 2)


def normals(pair: Pair, size: int, dtype: Any) -> jax.Array:
    """Standard normals of a real dtype by inversion, ``[rows, size]``.

    Of 2²⁴ quantiles (of 2⁵³ in double precision), which lie symmetrically about 0 and
    as far as 5.4 (8.3).

    Args:
      pair: of ``pairs_of_normals(size, dtype)``.
      size: how many in a row.
      dtype: of the results.
    """
    if jnp.finfo(dtype).bits == 64:
        high, low = (words.astype(jnp.uint64) for words in pair)
        return _inverted((high << 32 | low) >> 11, 53, jnp.float64)
    # XLA does not fuse with what comes after joining two arrays, and so does not make
    # the numbers anew for all candidates.
    halves = [_inverted(words >> 8, 24, jnp.float32) for words in pair]
    return jnp.concatenate(halves, axis=1)[:, :size].astype(dtype)


def _inverted(drawn: jax.Array, bits: int, dtype: Any) -> jax.Array:
    # Odd multiples of 2^−bits between −1 and 1: each is a number of that precision.
    middle = drawn.astype(dtype) * 2.0 ** (1 - bits) - 1 + 2.0**-bits
    return jax.lax.erf_inv(middle) * dtype(math.sqrt(2))


def pairs_of_signs(shape: tuple[int, ...]) -> int:
    """How many pairs of words the signs of an array of ``shape`` are bits of."""
    rows, width = _rows_and_width(shape)
    return -(-(-(-rows // 32) * width) // 2)


def signs_times(words: jax.Array, factor: jax.Array) -> jax.Array:
    """``factor`` with a random sign at each entry.

    Args:
      words: all of one row, twice ``pairs_of_signs(factor.shape)``.
      factor: real.
    """
    rows, width = _rows_and_width(factor.shape)
    # Bit b of the words is for the b-th of 32 runs of rows: what is next to each other
    # in memory takes the same bit of words next to each other.
    in_run = -(-rows // 32)
    words = words[: in_run * width].reshape(1, in_run, width)
    bits = words >> jnp.arange(32, dtype=jnp.uint32).reshape(32, 1, 1)
    bits = bits.reshape(32 * in_run, width)[:rows].reshape(factor.shape)
    num_bits = jnp.finfo(factor.dtype).bits
    pattern = jax.lax.bitcast_convert_type(factor, f"uint{num_bits}")
    flipped = pattern ^ (bits.astype(pattern.dtype) << (num_bits - 1))
    return jax.lax.bitcast_convert_type(flipped, factor.dtype)


def _rows_and_width(shape: tuple[int, ...]) -> tuple[int, int]:
    size = math.prod(shape)
    rows = math.prod(shape[:-1])
    return (rows, shape[-1]) if rows >= 32 else (size, 1)
