"""Amplitudes: exponential weights over the candidates, in log space.

The superposition stores log p with logsumexp(log p) = 0. The paper's amplitudes of
Eq 1 are φ_k = √p_k, so that Σ_k φ_k² = 1 (Eq 42).
"""

import chex
import jax
import jax.numpy as jnp


def uniform(num_candidates: int, dtype: jax.typing.DTypeLike) -> jax.Array:
    """Log-amplitudes of a freshly prepared superposition, log(1/K) each: ``[K]``."""
    return -jnp.log(jnp.full((num_candidates,), num_candidates, dtype))


def _identity(losses: jax.Array) -> jax.Array:
    return losses


def zscore(losses: jax.Array) -> jax.Array:
    """(L − mean) / standard deviation over the finite losses; zeros if they agree.

    Args:
      losses: shape ``[K]``.

    Returns:
      Shape ``[K]``; 0 where the loss is not finite.
    """
    finite = jnp.isfinite(losses)
    count = jnp.maximum(jnp.sum(finite), 1).astype(losses.dtype)
    losses = jnp.where(finite, losses, 0)
    # Squares of large losses would overflow; the result does not depend on the unit.
    peak = jnp.max(jnp.abs(losses))
    losses = losses / jnp.where(peak > 0, peak, 1)
    deviation = jnp.where(finite, losses - jnp.sum(losses) / count, 0)
    spread = jnp.sqrt(jnp.sum(deviation**2) / count)
    return deviation / jnp.where(spread > 0, spread, 1)


def centred_ranks(losses: jax.Array) -> jax.Array:
    """Ranks of the finite losses, linearly in [−1/2, 1/2]; ties share their mean rank.

    Args:
      losses: shape ``[K]``.

    Returns:
      Shape ``[K]``, −1/2 for the lowest loss; 0 where the loss is not finite.
    """
    finite = jnp.isfinite(losses)
    count = jnp.sum(finite)
    losses = jnp.where(finite, losses, jnp.inf)
    ordered = jnp.sort(losses)
    below = jnp.searchsorted(ordered, losses, side="left")
    not_above = jnp.searchsorted(ordered, losses, side="right")
    rank = (below + not_above - 1).astype(losses.dtype) / 2
    centred = rank / jnp.maximum(count - 1, 1).astype(losses.dtype) - 0.5
    return jnp.where(finite & (count > 1), centred, 0)


LOSS_SCALINGS = {None: _identity, "zscore": zscore, "rank": centred_ranks}


def amplify(
    log_prior: jax.Array, scaled_losses: jax.Array, rate: chex.Numeric
) -> jax.Array:
    """Exponential weights, Eq 4, 5, 16, 17, 30 and 50.

    p'_k ∝ p_k exp(−r s_k), with the rate r = η/λ, is the minimiser over the simplex of
    ⟨q, s⟩ + KL(q ‖ p)/r. From a uniform prior it is the Gibbs distribution of Eq 19.

    Args:
      log_prior: log p, shape ``[K]``; −inf excludes a candidate. At least one entry is
        finite.
      scaled_losses: s(L), shape ``[K]``, finite wherever ``log_prior`` is.
      rate: η/λ ≥ 0, scalar.

    Returns:
      log p', shape ``[K]``, with logsumexp 0.
    """
    possible = log_prior > -jnp.inf
    # Measured from the lowest, one exponent is 0 and the sum cannot vanish.
    lowest = jnp.min(jnp.where(possible, scaled_losses, jnp.inf))
    excess = jnp.where(possible, scaled_losses - lowest, 0)
    return jax.nn.log_softmax(log_prior - (rate * excess).astype(log_prior.dtype))


def restrict(
    log_amplitudes: jax.Array, losses: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Excludes the candidates whose loss is not finite.

    Returns:
      The log-amplitudes conditioned on the others, shape ``[K]``, and whether any
      candidate is left; if none is, the log-amplitudes come back as they were.
    """
    possible = jnp.isfinite(losses) & (log_amplitudes > -jnp.inf)
    any_possible = jnp.any(possible)
    possible = possible | ~any_possible
    log_prior = jnp.where(possible, log_amplitudes, -jnp.inf)
    return jax.nn.log_softmax(log_prior), any_possible


def expected(log_p: jax.Array, values: jax.Array) -> jax.Array:
    """⟨p, values⟩ (Eq 43), where values of zero probability may be anything."""
    return jnp.sum(jnp.where(log_p > -jnp.inf, jnp.exp(log_p) * values, 0))


def kl_divergence(log_q: jax.Array, log_p: jax.Array) -> jax.Array:
    """KL(q ‖ p) = Σ q log(q/p) (Eq 7), in nats, with 0 log 0 = 0."""
    difference = jnp.where(log_q > -jnp.inf, log_q - log_p, 0)
    return jnp.sum(jnp.exp(log_q) * difference)


def entropy(log_p: jax.Array) -> jax.Array:
    """−Σ p log p in nats, between 0 and log K."""
    return -expected(log_p, log_p)


def effective_candidates(log_p: jax.Array) -> jax.Array:
    """Kish's effective number 1 / Σ p², between 1 and K."""
    return jnp.exp(-jax.nn.logsumexp(2 * log_p))
