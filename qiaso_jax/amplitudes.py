"""Amplitudes: exponential weights over the candidates, in log space.

The superposition stores log p with logsumexp(log p) = 0. The paper's amplitudes of
Eq 1 are φ_k = √p_k, so that Σ_k φ_k² = 1 (Eq 42).

The first axis is that of the candidates; from ``reweighted`` on, further axes are
superpositions of their own.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float

from qiaso_jax import _arguments, _varying
from qiaso_jax.losses import Losses


def uniform(num_candidates: int, dtype: jax.typing.DTypeLike) -> Float[Array, " K"]:
    """Log-amplitudes of a freshly prepared superposition, log(1/K) each: ``[K]``."""
    return -jnp.log(jnp.full((num_candidates,), num_candidates, dtype))


def zscore(losses: Float[Array, " K"]) -> Float[Array, " K"]:
    """(L − mean) / standard deviation over the finite losses; zeros if they agree.

    Args:
      losses: shape ``[K]``.

    Returns:
      Shape ``[K]``; 0 where the loss is not finite.
    """
    finite = jnp.isfinite(losses)
    count = jnp.maximum(jnp.sum(finite), 1).astype(losses.dtype)
    losses = jnp.where(finite, losses, 0)
    # Halves of large losses, whose difference overflows; both are exact.
    losses = jnp.where(jnp.max(jnp.abs(losses)) > 1, losses / 2, losses)
    lowest = jnp.min(losses, where=finite, initial=jnp.inf)
    excess = losses - jnp.where(finite, lowest, losses)
    excess = _over(jnp.max(excess), excess)
    deviation = jnp.where(finite, excess - jnp.sum(excess) / count, 0)
    spread = jnp.sqrt(jnp.sum(deviation**2) / count)
    return _over(spread, deviation)


def _over(unit: jax.Array, values: jax.Array) -> jax.Array:
    """In a unit, in two steps, as its inverse may be no normal number; as is for 0."""
    root = jnp.sqrt(unit)
    inverse = 1 / jnp.where(root > 0, root, 1)
    return (values * inverse) * inverse


def shared_zscore(
    losses: Float[Array, "K b"],
    share: Float[Array, " b"],
    axis_name: str | None = None,
) -> tuple[Float[Array, "K b"], Float[Array, ""]]:
    """The z-scores of many superpositions in one unit, and the unit.

    Args:
      losses: of the candidates of each, shape ``[K, b]``.
      share: weight of each in the unit, shape ``[b]``.
      axis_name: of the devices that have others of them.

    Returns:
      (L − mean)/s, and 0 where the loss is not finite, shape ``[K, b]``; and s, the
      root mean square over the superpositions of the standard deviation over their
      candidates, a scalar; 1 if there is none.
    """
    finite = jnp.isfinite(losses)
    count = jnp.maximum(jnp.sum(finite, axis=0), 1).astype(losses.dtype)
    mean = jnp.sum(jnp.where(finite, losses, 0) / count[None], axis=0)
    centred = jnp.where(finite, losses, 0) - jnp.where(finite, mean[None], 0)
    # Squares of losses near the largest float would overflow.
    peak = _varying.greatest(jnp.max(jnp.abs(centred)), axis_name)
    centred = _over(peak, centred)
    variance = jnp.sum(centred**2, axis=0) / count
    whole = _varying.summed((jnp.sum(share * variance), jnp.sum(share)), axis_name)
    spread = jnp.sqrt(whole[0] / whole[1])
    unit = peak * spread
    return _over(spread, centred), jnp.where(unit > 0, unit, 1)


def centred_ranks(losses: Float[Array, " K"]) -> Float[Array, " K"]:
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


Scaling = Callable[[Losses], jax.Array]
"""From losses to scaled ones of shape ``[K]``."""

LOSS_SCALINGS: dict[str | None, Scaling] = {
    None: lambda losses: losses.excess,
    "zscore": lambda losses: zscore(losses.relative),
    "rank": lambda losses: centred_ranks(losses.order),
}


def scaling(loss_scaling: Any) -> Scaling:
    """The scaling that the argument ``loss_scaling`` names, or is."""
    if callable(loss_scaling):
        scale: Any = loss_scaling
        return partial(_checked, scale)
    named = loss_scaling is None or isinstance(loss_scaling, str)
    if not named or loss_scaling not in LOSS_SCALINGS:
        names = ", ".join(map(repr, LOSS_SCALINGS))
        raise ValueError(
            f"loss_scaling must be one of {names}, or a function losses -> scaled "
            f"losses; got {loss_scaling!r}."
        )
    return LOSS_SCALINGS[loss_scaling]


def scaled(scale: Scaling, losses: Losses) -> Float[Array, " K"]:
    """s(L) in the precision of the amplitudes; 0 where the losses count as equal."""
    values = scale(losses).astype(losses.value.dtype)
    return jnp.where(losses.equal & jnp.isfinite(values), 0, values)


def _checked(scale: Callable[[jax.Array], Any], losses: Losses) -> jax.Array:
    return _arguments.floats_of_shape(
        "loss_scaling", "the losses", scale(losses.value), losses.value.shape
    )


def reweighted(
    log_p: Float[Array, "K ..."],
    losses: Float[Array, "K ..."],
    scaled_losses: Float[Array, "K ..."],
    rate: ArrayLike,
) -> tuple[Float[Array, "K ..."], Float[Array, "K ..."], Bool[Array, "..."]]:
    """One step of exponential weights, where some losses may not be finite.

    Args:
      log_p: log-amplitudes before, shape ``[K]``.
      losses: L, shape ``[K]``.
      scaled_losses: s(L), shape ``[K]``; a candidate for which it is not finite is
        excluded too.
      rate: η/λ ≥ 0, scalar.

    Returns:
      The prior, restricted to candidates with a loss; the log-amplitudes after, or as
      they were if there is none; and whether there is one.
    """
    known = jnp.where(jnp.isfinite(scaled_losses), losses, jnp.inf)
    log_prior, informed = restrict(log_p, known)
    after = jnp.where(informed[None], amplify(log_prior, scaled_losses, rate), log_p)
    return log_prior, after, informed


def amplify(
    log_prior: Float[Array, "K ..."],
    scaled_losses: Float[Array, "K ..."],
    rate: ArrayLike,
) -> Float[Array, "K ..."]:
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
    scaled_losses = jnp.where(possible, scaled_losses, 0)
    # Measured from the lowest, one exponent is 0 and the sum cannot vanish.
    lowest = jnp.min(scaled_losses, axis=0, where=possible, initial=jnp.inf)
    excess = jnp.where(possible, scaled_losses - lowest[None], 0)
    largest = jnp.finfo(excess.dtype).max
    excess = jnp.minimum(excess, largest)
    fall = jnp.minimum(rate * excess, largest).astype(log_prior.dtype)
    return log_softmax(jnp.where(possible, log_prior - fall, -jnp.inf))


def log_softmax(log_p: Float[Array, "K ..."]) -> Float[Array, "K ..."]:
    """Normalised along the first axis; −inf stays, and makes no NaN on the way."""
    possible = log_p > -jnp.inf
    finite = jnp.where(possible, log_p, 0)
    most = jnp.max(finite, axis=0, where=possible, initial=-jnp.inf)
    shifted = jnp.where(possible, finite - most[None], 0)
    total = jnp.sum(jnp.where(possible, jnp.exp(shifted), 0), axis=0)
    return jnp.where(possible, shifted - jnp.log(total)[None], -jnp.inf)


def restrict(
    log_amplitudes: Float[Array, "K ..."], losses: Float[Array, "K ..."]
) -> tuple[Float[Array, "K ..."], Bool[Array, "..."]]:
    """Excludes the candidates whose loss is not finite.

    Returns:
      The log-amplitudes conditioned on the others, shape ``[K]``, and whether any
      candidate is left; if none is, the log-amplitudes come back as they were.
    """
    possible = jnp.isfinite(losses) & (log_amplitudes > -jnp.inf)
    any_possible = jnp.any(possible, axis=0)
    possible = possible | ~any_possible[None]
    log_prior = jnp.where(possible, log_amplitudes, -jnp.inf)
    return log_softmax(log_prior), any_possible


def uniform_over_known(
    losses: Float[Array, "K ..."],
) -> tuple[Float[Array, "K ..."], Bool[Array, "..."]]:
    """What ``restrict`` makes of a uniform superposition, without an exponential."""
    known = jnp.isfinite(losses)
    count = jnp.sum(known, axis=0)
    any_known = count > 0
    count = jnp.where(any_known, count, losses.shape[0]).astype(losses.dtype)
    return jnp.where(
        known | ~any_known[None], -jnp.log(count)[None], -jnp.inf
    ), any_known


def expected(
    log_p: Float[Array, "K ..."], values: Float[Array, "K ..."]
) -> Float[Array, "..."]:
    """⟨p, values⟩ (Eq 43), where values of zero probability may be anything."""
    possible = log_p > -jnp.inf
    terms = jnp.exp(log_p) * jnp.where(possible, values, 0)
    return jnp.sum(terms, axis=0)


def kl_divergence(
    log_q: Float[Array, "K ..."], log_p: Float[Array, "K ..."]
) -> Float[Array, "..."]:
    """KL(q ‖ p) = Σ q log(q/p) (Eq 7), in nats, with 0 log 0 = 0."""
    possible = log_q > -jnp.inf
    difference = jnp.where(possible, log_q, 0) - jnp.where(possible, log_p, 0)
    return jnp.sum(jnp.exp(log_q) * difference, axis=0)


def entropy(log_p: Float[Array, "K ..."]) -> Float[Array, "..."]:
    """−Σ p log p in nats, between 0 and log K."""
    return -expected(log_p, log_p)


def effective_candidates(log_p: Float[Array, "K ..."]) -> Float[Array, "..."]:
    """Kish's effective number 1 / Σ p², between 1 and K."""
    return 1 / jnp.sum(jnp.exp(log_p) ** 2, axis=0)


class Measured(NamedTuple):
    """What a step of exponential weights did, for each superposition.

    Attributes:
      expected_loss: ⟨p_{t+1}, L⟩ (Eq 43).
      expected_decrease: ⟨p_t − p_{t+1}, s(L)⟩.
      kl: KL(p_{t+1} ‖ p_t), in nats.
      entropy: of p_{t+1}, in nats.
      effective_candidates: 1 / Σ p_{t+1}².
    """

    expected_loss: jax.Array
    expected_decrease: jax.Array
    kl: jax.Array
    entropy: jax.Array
    effective_candidates: jax.Array


def measure(
    log_prior: Float[Array, "K ..."],
    log_amplitudes: Float[Array, "K ..."],
    losses: Float[Array, "K ..."],
    scaled_losses: Float[Array, "K ..."],
    informed: Bool[Array, "..."],
) -> Measured:
    """Compares p_{t+1} with p_t, restricted to candidates with a loss, if any has."""
    decrease = expected(log_prior, scaled_losses) - expected(
        log_amplitudes, scaled_losses
    )
    return Measured(
        expected_loss=jnp.where(informed, expected(log_amplitudes, losses), jnp.inf),
        expected_decrease=jnp.where(informed, decrease, 0),
        kl=kl_divergence(log_amplitudes, log_prior),
        entropy=entropy(log_amplitudes),
        effective_candidates=effective_candidates(log_amplitudes),
    )


def before_losses(
    num_candidates: int, dtype: jax.typing.DTypeLike
) -> dict[str, jax.Array]:
    """What every report says before the first step: uniform, and no loss seen."""
    return {
        "expected_loss": jnp.full((), jnp.inf, dtype),
        "best_loss": jnp.full((), jnp.inf, dtype),
        "expected_decrease": jnp.zeros((), dtype),
        "kl": jnp.zeros((), dtype),
        "entropy": jnp.log(jnp.full((), num_candidates, dtype)),
        "effective_candidates": jnp.full((), num_candidates, dtype),
        "num_nonfinite": jnp.zeros((), jnp.int32),
        "num_skipped": jnp.zeros((), jnp.int32),
        "num_flat": jnp.zeros((), jnp.int32),
    }


def mean_over(measured: Measured, informed: jax.Array) -> Measured:
    """Means of a report on many superpositions, over those that had a finite loss."""
    counted = informed | ~jnp.any(informed)
    number = jnp.sum(counted)
    return jax.tree.map(lambda x: jnp.sum(jnp.where(counted, x, 0)) / number, measured)
