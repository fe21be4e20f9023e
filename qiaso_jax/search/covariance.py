"""The superposition of a search: a normal distribution, collapsed to two moments.

Candidates are u_k = m + σ y_k with y_k ~ 𝒩(0, C), wider where a least spread is asked
for. Exponential weights p_k of their ranks (Eq 16) give the expected displacement (Eq
2), and the expected second moment in the same way; step size and learning rates are
those of CMA-ES (Hansen, *The CMA Evolution Strategy: A Tutorial*, 2016) with μ_eff =
1/Σ p². C keeps its determinant: how far the candidates go is σ's to say, and what the
second moment tells of it moves σ.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

LAZY = 0.5
"""The root of C is renewed after this part of the steps in which C changes by 1/N."""

RANK_ONE, RANK_MU = 1.5, 3.0
"""Learning rates in units of Hansen's: Σ |p − q| is about 1, where his weights, those
that push away included, have about 2; and both were measured on ``bbob``."""

UNDAMPED = 0.3
"""How much less than his is the damping of σ in up to ten dimensions, measured too."""


class Gaussian(NamedTuple):
    """𝒩(m, σ² C) and the paths that it has come along.

    Attributes:
      mean: m, shape ``[N]``.
      sigma: σ, a scalar.
      covariance: C, shape ``[N, N]``, its diagonal, ``[N]``, or what else is learnt.
      root: its square root, likewise; it lags behind.
      path: of m in units of σ, shape ``[N]``: correlated steps lengthen it.
      path_sigma: the same in units in which C is the identity.
      age: steps since it began.
      least: what its standard deviations are at least, whatever σ and C, shape ``[N]``;
        0 where there is no bound.
    """

    mean: jax.Array
    sigma: jax.Array
    covariance: Any
    root: Any
    path: jax.Array
    path_sigma: jax.Array
    age: jax.Array
    least: jax.Array


class Moments(NamedTuple):
    """Sums over candidates, which add up over parts of them.

    Attributes:
      first: Σ p_k z_k, with y = √C z, shape ``[N]``.
      second: Σ w_k y_k y_kᵀ, its diagonal, or what else C is learnt from.
      volume: Σ max(w_k, 0) (‖z_k‖²/N − 1), a scalar; of expectation 0 where nothing is
        selected.
    """

    first: jax.Array
    second: Any
    volume: jax.Array


class Rates(NamedTuple):
    """Learning rates for N coordinates, scalars.

    Attributes:
      mass: μ_eff.
      sigma: of the path of σ.
      damping: of log σ, by its path.
      volume: of log σ, by the second moment.
      path: of the path of m.
      rank_one: of C, by the path of m.
      rank_mu: of C, by the second moment.
    """

    mass: jax.Array
    sigma: jax.Array
    damping: jax.Array
    volume: jax.Array
    path: jax.Array
    rank_one: jax.Array
    rank_mu: jax.Array


class Kind(NamedTuple):
    """What is known of a covariance.

    Attributes:
      begun: covariance and root of N independent coordinates of variance 1.
      spread: ``(root, z) -> y`` for one vector.
      whitened: ``(root, y) -> z``, the way back.
      product: Σ w y yᵀ, or what of it is learnt from, of weights ``w [K]`` and vectors
        ``y [K, N]``.
      moved: the covariance, of which a part is kept, with the product of the path and
        the second moment by their rates.
      renewed: covariance and root with determinant 1, and the scale that they had.
      variances: the diagonal of C.
      acceleration: of the learning rates, where fewer numbers are learnt.
    """

    begun: Callable[[int, Any], tuple[Any, Any]]
    spread: Callable[[Any, jax.Array], jax.Array]
    whitened: Callable[[Any, jax.Array], jax.Array]
    product: Callable[[Gaussian, jax.Array, jax.Array], Any]
    moved: Callable[[Gaussian, Rates, jax.Array, Any, Any], Any]
    renewed: Callable[[Gaussian], tuple[Any, Any, jax.Array]]
    variances: Callable[[Gaussian], jax.Array]
    acceleration: Callable[[int], float]


def _full(size: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    identity = jnp.eye(size, dtype=dtype)
    return identity, identity


def _ones(size: int, dtype: Any) -> tuple[jax.Array, jax.Array]:
    ones = jnp.ones(size, dtype)
    return ones, ones


def _added(
    gaussian: Gaussian,
    rate: Rates,
    kept: jax.Array,
    along: jax.Array,
    second: jax.Array,
) -> jax.Array:
    moved = kept * gaussian.covariance + rate.rank_one * along
    return moved + rate.rank_mu * second


def _full_root(gaussian: Gaussian) -> tuple[jax.Array, jax.Array, jax.Array]:
    values, vectors = jnp.linalg.eigh(gaussian.covariance, symmetrize_input=True)
    least = jnp.finfo(values.dtype).eps * jnp.max(values)
    values = jnp.maximum(values, least)
    root = (vectors * jnp.sqrt(values)[None]) @ vectors.T
    scale = jnp.exp(jnp.mean(jnp.log(values)) / 2)
    return gaussian.covariance / scale**2, root / scale, scale


def _diagonal_root(gaussian: Gaussian) -> tuple[jax.Array, jax.Array, jax.Array]:
    variances = gaussian.covariance
    positive = jnp.maximum(variances, jnp.finfo(variances.dtype).tiny)
    scale = jnp.exp(jnp.mean(jnp.log(positive)) / 2)
    return variances / scale**2, jnp.sqrt(positive) / scale, scale


FULL = Kind(
    begun=_full,
    spread=lambda root, z: root @ z,
    whitened=lambda root, y: jnp.linalg.solve(root, y),
    product=lambda gaussian, w, y: (y * w[:, None]).T @ y,
    moved=_added,
    renewed=_full_root,
    variances=lambda gaussian: jnp.diag(gaussian.covariance),
    acceleration=lambda size: 1.0,
)

DIAGONAL = Kind(
    begun=_ones,
    spread=lambda root, z: root * z,
    whitened=lambda root, y: y / root,
    product=lambda gaussian, w, y: w @ y**2,
    moved=_added,
    renewed=_diagonal_root,
    variances=lambda gaussian: gaussian.covariance,
    # Ros and Hansen, 2008.
    acceleration=lambda size: (size + 2) / 3,
)


def rates(kind: Kind, size: int, mass: jax.Array) -> Rates:
    """Those of Hansen (2016, table 1) for μ_eff = ``mass``, but for three factors.

    And but for σ, whose logarithm moves by what C's volume would change by, too, where
    there are more candidates, μ_eff of them, than the N variances that they tell of:
    then they say more of it than the path does.
    """
    n, quicker = size, kind.acceleration(size)
    sigma = (mass + 2) / (n + mass + 5)
    least = 1 - UNDAMPED * min(1, 10 / n) ** 2
    damping = least + 2 * jnp.maximum(0, jnp.sqrt((mass - 1) / (n + 1)) - 1) + sigma
    path = (4 + mass / n) / (n + 4 + 2 * mass / n)
    rank_one = quicker * 2 / ((n + 1.3) ** 2 + mass)
    rank_one = jnp.minimum(0.5, RANK_ONE * rank_one)
    rank_mu = quicker * 2 * (0.25 + mass + 1 / mass - 2) / ((n + 2) ** 2 + mass)
    rank_mu = jnp.minimum(1 - rank_one, RANK_MU * rank_mu)
    volume = jnp.clip(mass / n - 1, 0, 1) * rank_mu / 2
    return Rates(mass, sigma, damping, volume, path, rank_one, rank_mu)


def begun(kind: Kind, mean: jax.Array, sigma: jax.Array) -> Gaussian:
    """Of independent coordinates, around a mean."""
    covariance, root = kind.begun(mean.size, mean.dtype)
    still = jnp.zeros_like(mean)
    age = jnp.zeros((), jnp.int32)
    return Gaussian(mean, sigma, covariance, root, still, still, age, still)


def displacement(kind: Kind, gaussian: Gaussian, z: jax.Array) -> jax.Array:
    """σ A √C z of a standard normal z, where A widens what is too narrow."""
    step = gaussian.sigma * kind.spread(gaussian.root, z)
    return _widened(kind, gaussian) * step


def direction(kind: Kind, gaussian: Gaussian, displacement: jax.Array) -> jax.Array:
    """The z of a displacement."""
    step = displacement / _widened(kind, gaussian)
    return kind.whitened(gaussian.root, step / gaussian.sigma)


def _widened(kind: Kind, gaussian: Gaussian) -> jax.Array:
    """A_j = max(1, s_j / σ √C_jj), with the least standard deviations s.

    C and σ do not know of it, so that they adapt as if it were not there.
    """
    variances = kind.variances(gaussian)
    rounding = jnp.finfo(variances.dtype).eps * jnp.max(variances)
    spreads = gaussian.sigma * jnp.sqrt(jnp.maximum(variances, rounding))
    return jnp.maximum(1, gaussian.least / spreads)


def weights(log_p: jax.Array, known: jax.Array) -> tuple[jax.Array, jax.Array]:
    """P of the candidates, and p − q with q uniform over those that have a loss.

    Args:
      log_p: log-amplitudes, shape ``[K]``.
      known: which have a loss, shape ``[K]``.
    """
    p = jnp.where(known, jnp.exp(log_p), 0)
    return p, jnp.where(known, p - 1 / jnp.maximum(jnp.sum(known), 1), 0)


def moments(
    kind: Kind, gaussian: Gaussian, z: jax.Array, p: jax.Array, w: jax.Array
) -> Moments:
    """Of candidates ``z``, shape ``[K, N]``; those that push away reach as far as all.

    Args:
      kind: of covariance.
      gaussian: that they are from.
      z: standard normals, shape ``[K, N]``.
      p: their weights in the mean, shape ``[K]``.
      w: their weights in C, shape ``[K]``.
    """
    # As in active CMA: a candidate far away that is bad says little of C near by.
    squares = jnp.maximum(jnp.mean(z**2, axis=1), 1e-12)
    volume = jnp.maximum(w, 0) @ (squares - 1)
    w = jnp.where(w < 0, w / squares, w)
    y = jax.vmap(kind.spread, (None, 0))(gaussian.root, z)
    return Moments(p @ z, kind.product(gaussian, w, y), volume)


def collapsed(
    kind: Kind,
    gaussian: Gaussian,
    found: Moments,
    p: jax.Array,
    w: jax.Array,
) -> Gaussian:
    """After a step, from the moments of all its candidates and their weights.

    Args:
      kind: of covariance.
      gaussian: before.
      found: the moments.
      p: as in ``moments``, of all.
      w: likewise.
    """
    mean, sigma, covariance, root, path, path_sigma, age, least = gaussian
    size = mean.size
    rate = rates(kind, size, 1 / jnp.sum(p**2))
    step = kind.spread(root, found.first)
    gain = rate.sigma * (2 - rate.sigma) * rate.mass
    path_sigma = (1 - rate.sigma) * path_sigma + jnp.sqrt(gain) * found.first
    age = age + 1
    length = jnp.linalg.norm(path_sigma)
    typical = math.sqrt(size) * (1 - 1 / (4 * size) + 1 / (21 * size**2))
    settled = jnp.sqrt(1 - (1 - rate.sigma) ** (2 * age.astype(mean.dtype)))
    short = (length / settled < (1.4 + 2 / (size + 1)) * typical).astype(mean.dtype)
    gain = rate.path * (2 - rate.path)
    path = (1 - rate.path) * path + short * jnp.sqrt(gain * rate.mass) * step
    # Those that push away are less where they would take more than there is.
    positive, negative = jnp.sum(jnp.maximum(w, 0)), -jnp.sum(jnp.minimum(w, 0))
    kept = 1 - rate.rank_one - rate.rank_mu * (positive - negative)
    lost = rate.rank_one * (1 - short) * gain
    along = kind.product(gaussian, jnp.ones(1, mean.dtype), path[None])
    covariance = kind.moved(gaussian, rate, kept + lost, along, found.second)
    exponent = rate.sigma / rate.damping * (length / typical - 1)
    exponent += rate.volume * found.volume
    sigma = sigma * jnp.exp(jnp.minimum(exponent, 1))
    period = LAZY / (size * (rate.rank_one + rate.rank_mu))
    due = jnp.mod(age, jnp.maximum(1, period.astype(jnp.int32))) == 0

    mean = mean + displacement(kind, gaussian, found.first)
    moved = Gaussian(mean, sigma, covariance, root, path, path_sigma, age, least)

    def renewed(moved):
        # Changes of C multiply, which would shrink its volume without any selection.
        covariance, root, scale = kind.renewed(moved)
        return moved._replace(covariance=covariance, root=root, path=path / scale)

    return jax.lax.cond(due, renewed, lambda moved: moved, moved)


def tempered(kind: Kind, size: int, p: jax.Array, w: jax.Array) -> jax.Array:
    """w, whose negative part takes no more from C than leaves it positive definite."""
    rate = rates(kind, size, 1 / jnp.sum(p**2))
    negative = -jnp.sum(jnp.minimum(w, 0))
    most = (1 - rate.rank_one - rate.rank_mu) / (size * rate.rank_mu)
    factor = jnp.minimum(1, most / jnp.where(negative > 0, negative, 1))
    return jnp.where(w < 0, factor * w, w)
