"""A covariance of linear cost: D (I + V Λ Vᵀ) D, with r directions V for N coordinates.

D and V share the second moment of one generation of candidates. V follows it by block
power iteration: what I + V Λ Vᵀ does to a basis of V and the path is summed up, and
the r directions that differ most from none are kept (of the family of VkD-CMA, Akimoto
and Hansen, GECCO 2016). D follows the natural gradient, as in VD-CMA (Akimoto, Auger
and Hansen, GECCO 2014), whose Fisher information slows it where a direction is long:
the noise of D would turn it.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax.search.covariance import DIAGONAL, Gaussian, Kind, Rates

NARROWEST = 1e-6
"""A direction is no narrower than this part of what D alone would have, in variance."""


SLOW = 100
"""In so many coordinates V learns at the rates of a full covariance; in more of them,
it needs no more steps for each."""


MOST = 0.1
"""D² is renewed by no more of it in a step, where coordinates are few."""


class LowRank(NamedTuple):
    """What is learnt of a covariance.

    Attributes:
      logs: log D², shape ``[N]``.
      basis: orthonormal Q, shape ``[N, r + 1]``: of the directions, and the path.
      image: (I + V Λ Vᵀ) Q − Q, as it is at present, likewise.
    """

    logs: jax.Array
    basis: jax.Array
    image: jax.Array


class Factors(NamedTuple):
    """Of a covariance D (I + V Λ Vᵀ) D, which has D √(I + V Λ Vᵀ) for a root.

    Attributes:
      scale: D, shape ``[N]``.
      directions: orthonormal V, shape ``[N, r]``.
      values: Λ, above −1, shape ``[r]``.
    """

    scale: jax.Array
    directions: jax.Array
    values: jax.Array


def rank(size: int) -> int:
    """R, the number of directions: 4 + ⌊3 log N⌋, and one for four coordinates at most.

    Where they were nearly as many as the coordinates, what is forgotten of those that
    are not kept would be a large part of C.
    """
    return min(4 + math.floor(3 * math.log(size)), size // 4)


def _acceleration(size: int) -> float:
    return max(1.0, size / SLOW)


def _begun(size: int, dtype: Any) -> tuple[LowRank, Factors]:
    number = rank(size)
    basis = jnp.eye(size, number + 1, dtype=dtype)
    learnt = LowRank(jnp.zeros(size, dtype), basis, jnp.zeros_like(basis))
    return learnt, Factors(
        jnp.ones(size, dtype), basis[:, 1:], jnp.zeros(number, dtype)
    )


def _along(root: Factors, x: jax.Array, changes: jax.Array) -> jax.Array:
    """A vector, changed along the directions by these parts of it."""
    return x + root.directions @ (changes * (root.directions.T @ x))


def _spread(root: Factors, z: jax.Array) -> jax.Array:
    return root.scale * _along(root, z, jnp.sqrt(1 + root.values) - 1)


def _whitened(root: Factors, y: jax.Array) -> jax.Array:
    return _along(root, y / root.scale, 1 / jnp.sqrt(1 + root.values) - 1)


def _product(gaussian: Gaussian, w: jax.Array, y: jax.Array) -> LowRank:
    """Σ w (t ∘ (I + V Λ Vᵀ)⁻¹ t − 1), of expectation 0, and Σ w t (tᵀ Q), y = D t."""
    root, basis = gaussian.root, gaussian.covariance.basis
    t = y / root.scale[None]
    dual = jax.vmap(partial(_along, root, changes=1 / (1 + root.values) - 1))(t)
    image = (t * w[:, None]).T @ (t @ basis)
    return LowRank(w @ (t * dual - 1), basis, image)


def _moved(
    gaussian: Gaussian, rate: Rates, kept: jax.Array, along: LowRank, second: LowRank
) -> LowRank:
    logs, basis, image = gaussian.covariance
    quicker = DIAGONAL.acceleration(logs.size) / _acceleration(logs.size)
    quicker = jnp.minimum(quicker, MOST / (rate.rank_one + rate.rank_mu))
    scores = rate.rank_one * along.logs + rate.rank_mu * second.logs
    logs = logs + quicker * _slowed(gaussian.root) * scores
    change = rate.rank_one * along.image + rate.rank_mu * second.image
    return LowRank(logs, basis, kept * (basis + image) + change - basis)


def _slowed(root: Factors) -> jax.Array:
    """2 over the Fisher information of log D_j, shape ``[N]``."""
    squares = root.directions**2
    inverse = 1 + squares @ (1 / (1 + root.values) - 1)
    return 2 / (1 + (1 + squares @ root.values) * inverse)


def _renewed(gaussian: Gaussian) -> tuple[LowRank, Factors, jax.Array]:
    logs, basis, image = gaussian.covariance
    directions, values = _largest(basis, image)
    log_scale = (jnp.sum(logs) + jnp.sum(jnp.log1p(values))) / logs.size
    root = Factors(jnp.exp((logs - log_scale) / 2), directions, values)
    path = gaussian.path / jnp.exp(logs / 2)
    basis, _ = jnp.linalg.qr(jnp.column_stack([directions, path]))
    image = (directions * values[None]) @ (directions.T @ basis)
    return LowRank(logs - log_scale, basis, image), root, jnp.exp(log_scale / 2)


def _largest(basis: jax.Array, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The r eigenvectors and -values λ with the largest |log(1 + λ)|.

    They are of the positive definite matrix I + Λ that has this image of the basis, and
    variance 1 beyond it for those who know what is within.
    """
    within = basis.T @ image
    beyond, rest = jnp.linalg.qr(image - basis @ within)
    values, vectors = _positive((within + within.T) / 2)
    half = (rest @ vectors) / jnp.sqrt(1 + values)[None]
    both = jnp.block([[within, rest.T], [rest, half @ half.T]])
    values, vectors = _positive((both + both.T) / 2)
    number = basis.shape[1] - 1
    _, chosen = jax.lax.top_k(jnp.abs(jnp.log1p(values)), number)
    directions = jnp.column_stack([basis, beyond]) @ vectors[:, chosen]
    return directions, values[chosen]


def _positive(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues, above −1, and -vectors."""
    values, vectors = jnp.linalg.eigh(matrix, symmetrize_input=False)
    return jnp.maximum(values, NARROWEST - 1), vectors


LOW_RANK = Kind(
    begun=_begun,
    spread=_spread,
    whitened=_whitened,
    product=_product,
    moved=_moved,
    renewed=_renewed,
    variances=lambda gaussian: (
        gaussian.root.scale**2
        * (1 + gaussian.root.directions**2 @ gaussian.root.values)
    ),
    acceleration=_acceleration,
)
