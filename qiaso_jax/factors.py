"""Low-rank offsets, known by their factors: m + n numbers for an m × n matrix."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax._arguments import PyTree


class Factors(NamedTuple):
    """δ[i, j] = Σ_r rows[r, i] · columns[r, j], where i and j may be several axes.

    Attributes:
      rows: shape ``[rank, *i]``.
      columns: shape ``[rank, *j]``.
    """

    rows: jax.Array
    columns: jax.Array

    def dense(self, dtype: Any) -> jax.Array:
        """δ itself."""
        total = sum(
            jnp.multiply.outer(rows, columns)
            for rows, columns in zip(self.rows, self.columns, strict=True)
        )
        return jnp.asarray(total).astype(dtype)


def is_factors(node: Any) -> bool:
    """Whether a node of a tree of offsets is a low-rank one."""
    return isinstance(node, Factors)


def weighted_sum(weights: jax.Array, stacked: jax.Array | Factors) -> jax.Array:
    """Σ_k w_k δ_k with a leading axis, as one product; in the wider precision."""
    if not isinstance(stacked, Factors):
        dtype = jnp.promote_types(stacked.dtype, weights.dtype)
        return jnp.tensordot(
            weights.astype(dtype),
            stacked.astype(dtype),
            axes=1,
            precision=jax.lax.Precision.HIGHEST,
        )
    rows, columns = stacked.rows, stacked.columns
    dtype = jnp.promote_types(rows.dtype, weights.dtype)
    weights = weights.astype(dtype).reshape(-1, *[1] * (rows.ndim - 1))

    def matrix(x):
        return x.astype(dtype).reshape(x.shape[0] * x.shape[1], -1)

    total = jnp.matmul(
        matrix(weights * rows).T, matrix(columns), precision=jax.lax.Precision.HIGHEST
    )
    return total.reshape(rows.shape[2:] + columns.shape[2:])


def split(shape: tuple[int, ...], rank: int) -> int | None:
    """After how many axes of an array its rows end and its columns begin.

    Of all ways to make a matrix of an array by joining neighbouring axes, the one with
    the fewest rows and columns together: kernels of convolutions are cut before the
    features that they make, those of attention between what is contracted and what is
    not.

    Args:
      shape: of the array.
      rank: r.

    Returns:
      The number of axes; ``None`` if factors are as many numbers as the array itself.
    """
    ends = range(1, len(shape))
    cost = {e: math.prod(shape[:e]) + math.prod(shape[e:]) for e in ends}
    best = min(ends, key=lambda e: (cost[e], e), default=None)
    if best is None or rank * cost[best] >= math.prod(shape):
        return None
    return best


def densified(offsets: PyTree, like: PyTree) -> PyTree:
    """A tree of arrays, those of ``offsets`` or what its factors stand for."""
    return jax.tree.map(
        lambda x, d: d.dense(x.dtype) if is_factors(d) else d,
        like,
        offsets,
    )
