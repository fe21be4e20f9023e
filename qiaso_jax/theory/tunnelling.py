"""Jumps across a barrier, one and many: sections 3.2.2 (A4) and 3.2.3."""

import jax.numpy as jnp
from jax import Array
from jax.scipy.special import gammaincc
from jax.scipy.stats import norm
from jax.typing import ArrayLike

from qiaso_jax.theory.arguments import checked


def total_tunnelling_probability(
    initial_probability: ArrayLike, decay: ArrayLike, num_steps: ArrayLike = jnp.inf
) -> Array:
    """Assumption A4: Σ_{t<T} p_0 e^{−αt} = p_0 (1 − e^{−αT}) / (1 − e^{−α}).

    It is the expected number of jumps per candidate, and finite for T = ∞. Theorem 3.2
    needs that; it also means that a barrier may never be crossed, see
    :func:`cumulative_escape_probability`.

    Args:
        initial_probability: p_0, any shape.
        decay: α > 0 per step, same shape or [].
        num_steps: T ≥ 1, same shape or []; infinite by default.

    Returns:
        The sum, in the common shape.

    Examples:
        >>> print(f"{total_tunnelling_probability(1.0, -jnp.log(0.995)):.1f}")
        200.0
    """
    p_0, alpha, steps = checked(
        initial_probability=initial_probability, decay=decay, num_steps=num_steps
    )
    return p_0 * jnp.expm1(-alpha * steps) / jnp.expm1(-alpha)


def _reach(barrier: ArrayLike, epsilon: ArrayLike, sigma: ArrayLike) -> Array:
    """The barrier in standard deviations of a jump, Δ/(εσ)."""
    barrier, epsilon, sigma = checked(barrier=barrier, epsilon=epsilon, sigma=sigma)
    return barrier / (epsilon * sigma)


def escape_probability(
    barrier: ArrayLike, epsilon: ArrayLike, sigma: ArrayLike
) -> Array:
    """P(εξ ≥ Δ) = Q(Δ/(εσ)) for one coordinate ξ ~ 𝒩(0, σ²) of a jump (Eq 67).

    The paper compares Δ, "a barrier of loss height", with a length; it is a distance
    here. In float32 the result is 0 from Δ ≈ 13 εσ on; ``jax.scipy.stats.norm.logsf``
    goes further.

    Returns:
        The exact probability, in the common shape.

    Examples:
        >>> print(f"{escape_probability(0.02, 0.02, 1.0):.4f}")
        0.1587
    """
    return norm.sf(_reach(barrier, epsilon, sigma))


def norm_escape_probability(
    barrier: ArrayLike, epsilon: ArrayLike, sigma: ArrayLike, num_weights: ArrayLike
) -> Array:
    """P(ε‖ξ‖ ≥ Δ) = 1 − F_{χ²_n}((Δ/(εσ))²) for a jump of n weights, ξ ~ 𝒩(0, σ²I).

    The sufficient condition that section 3.2.3 starts from, before it turns to one
    coordinate. Jumps have a length near εσ√n: the probability goes from 0 to 1 around
    there, and for a network it is one or the other in practice.

    Args:
        barrier: Δ.
        epsilon: ε.
        sigma: σ.
        num_weights: number n ≥ 1 of weights, of a shape that broadcasts with theirs.

    Returns:
        The probability, in the common shape. Where n exceeds 1e-4 / machine epsilon
        (800 in float32), by the approximation of Wilson and Hilferty (1931). The error
        in float32 is at most 1e-5 to n = 100, 2e-4 to n = 1e6 and 3e-4 at n = 1e7.

    Examples:
        >>> print(f"{norm_escape_probability(2.0, 1.0, 1.0, 2):.4f}")
        0.1353
    """
    barrier, epsilon, sigma, n = checked(
        barrier=barrier, epsilon=epsilon, sigma=sigma, num_weights=num_weights
    )
    z = barrier / (epsilon * sigma)
    # gammaincc cancels terms of size n: at n = 1e7 in float32 it returns 1.67.
    large = n * jnp.finfo(n.dtype).eps > 1e-4
    variance = 2 / (9 * n)
    return jnp.where(
        large,
        norm.sf(
            (jnp.cbrt(jnp.square(z / jnp.sqrt(n))) - 1 + variance) / jnp.sqrt(variance)
        ),
        gammaincc(jnp.where(large, 1, n) / 2, jnp.square(z) / 2),
    )


def escape_probability_bounds(
    barrier: ArrayLike, epsilon: ArrayLike, sigma: ArrayLike
) -> tuple[Array, Array]:
    """Bounds of :func:`escape_probability` on both sides, by Mills' ratio.

    2φ(z)/(z + √(z² + 4)) < Q(z) ≤ 2φ(z)/(z + √(z² + 8/π)) for z = Δ/(εσ) ≥ 0, φ the
    normal density (Abramowitz and Stegun, 7.1.13). The lower one is what Eq 69 wants.

    Returns:
        The lower and the upper bound, in the common shape.

    Examples:
        >>> lower, upper = escape_probability_bounds(0.02, 0.02, 1.0)
        >>> print(f"{lower:.4f} {upper:.4f}")
        0.1495 0.1678
    """
    z = _reach(barrier, epsilon, sigma)
    density = 2 * norm.pdf(z)
    return (
        density / (z + jnp.sqrt(jnp.square(z) + 4)),
        density / (z + jnp.sqrt(jnp.square(z) + 8 / jnp.pi)),
    )


def chernoff_bound(barrier: ArrayLike, epsilon: ArrayLike, sigma: ArrayLike) -> Array:
    """P(εξ ≥ Δ) ≤ exp(−Δ²/(2ε²σ²)) for one coordinate (Eq 68), from above only.

    For ‖ξ‖ in the place of ξ it is the exact probability with n = 2 weights, and too
    small with more.

    Returns:
        The upper bound, in the common shape.

    Examples:
        >>> print(f"{chernoff_bound(0.02, 0.02, 1.0):.4f}")
        0.6065
    """
    return jnp.exp(-jnp.square(_reach(barrier, epsilon, sigma)) / 2)


def escape_probability_as_printed(
    barrier: ArrayLike, epsilon: ArrayLike, sigma: ArrayLike
) -> Array:
    """**Wrong**: the "lower bound" 1 − exp(−Δ²/(2ε²σ²)) of Eq 69, for comparison.

    Eq 68 bounds the escape probability from above, which gives 1 minus it as a bound
    for *not* escaping. As printed, the bound exceeds the exact probability from
    Δ ≈ 0.73 εσ on, tends to 1 for a barrier that nothing crosses, and falls with ε and
    σ, against the conclusion the paper draws from it. Use
    :func:`escape_probability_bounds`.

    Returns:
        The value of Eq 69, in the common shape.

    Examples:
        >>> print(f"{escape_probability_as_printed(0.06, 0.02, 1.0):.4f}")
        0.9889
        >>> print(f"{escape_probability(0.06, 0.02, 1.0):.4f}")
        0.0013
    """
    return -jnp.expm1(-jnp.square(_reach(barrier, epsilon, sigma)) / 2)


def cumulative_escape_probability(
    tunnelling_probabilities: ArrayLike, escape: ArrayLike
) -> Array:
    """1 − Π_{t<T} (1 − p_t P_t), the probability of an escape in T steps (Eq 70).

    Exact for independent jumps, given the exact P_t of one jump. It is at most
    Σ p_t P_t: under A4 escape is never certain, however long the run, unless some
    p_t P_t is 1.

    Args:
        tunnelling_probabilities: p_t, a schedule's values, shape [T].
        escape: P_t of a jump, shape [] or [T].

    Returns:
        The probability, shape [].

    Examples:
        >>> import optax
        >>> p_t = optax.exponential_decay(1.0, 1, 0.995)(jnp.arange(100))
        >>> escape = escape_probability(0.06, 0.02, 1.0)
        >>> print(f"{cumulative_escape_probability(p_t, escape):.4f}")
        0.1010
    """
    p_t, escape = checked(
        tunnelling_probabilities=tunnelling_probabilities, escape=escape
    )
    return -jnp.expm1(jnp.sum(jnp.log1p(-p_t * escape)))
