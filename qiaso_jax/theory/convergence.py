"""Whether and where the amplitudes converge: sections 3.2.1 and 3.2.2."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from qiaso_jax.theory.amplification import kl_divergence
from qiaso_jax.theory.arguments import above_least, checked


def monotone_decrease_slack(
    losses: ArrayLike, p: ArrayLike, p_next: ArrayLike, eta: ArrayLike
) -> Array:
    """Lemma 3.1: ⟨p, L⟩ − KL(p'‖p)/η − ⟨p', L⟩ ≥ 0 (Eq 45, 52; 37 divided by η).

    Exponential weights p' of the *same* losses L give a slack of exactly KL(p‖p')/η.
    **The paper applies the lemma to the loss of a training run (Eq 44), which it does
    not cover**: with p' of another minibatch, or of candidates that have moved since,
    the slack can be negative.

    Returns:
        The slack in units of the loss, shape [].

    Examples:
        >>> from qiaso_jax.theory import exponential_weights
        >>> losses, p = [0.0, 1.0], [0.5, 0.5]
        >>> p_next = exponential_weights(losses, p, 1.0)
        >>> print(f"{monotone_decrease_slack(losses, p, p_next, 1.0):.4f}")
        0.1201
    """
    losses, p, p_next, eta = checked(losses=losses, p=p, p_next=p_next, eta=eta)
    return (p - p_next) @ above_least(losses, p) - kl_divergence(p_next, p) / eta


def project_onto_minimisers(losses: ArrayLike, p: ArrayLike) -> Array:
    """Lemma 3.3: the limit of exponential weights as η → ∞ (Eq 54–56).

    Minimisers (ties are equal numbers, not close ones) share the whole probability in
    proportion to ``p``. The lemma divides by zero when none of them has any; the limit
    is then the one on the support of ``p``, and that is what is returned.

    Returns:
        Probabilities, shape [K], 0 outside the minimisers.

    Examples:
        >>> print(project_onto_minimisers([1.0, 2.0, 1.0], [0.125, 0.5, 0.375]))
        [0.25 0.   0.75]
    """
    losses, p = checked(losses=losses, p=p)
    kept = jnp.where(above_least(losses, p) == 0, p, 0)
    return kept / jnp.sum(kept)


def robbins_siegmund_budget(
    initial: ArrayLike, final: ArrayLike, increases: ArrayLike, noise: ArrayLike = 0.0
) -> Array:
    r"""What the decreases of a noisy sequence can sum up to (Eq 59, telescoped).

    If X_{t+1} ≤ X_t − a_t + b_t + ζ_{t+1} for t < T, then on every path

    .. math::
      \sum_{t<T} a_t \le X_0 - X_T + \sum_{t<T} b_t + \sum_{t<T} \zeta_{t+1},

    and without the last sum in expectation if ζ are martingale differences. With a
    lower bound of X in place of X_T, the budget holds for every horizon, so that
    Σ a_t < ∞ if Σ b_t < ∞: the deterministic half of Robbins and Siegmund (1971).

    **Eq 59 leaves out that X must be bounded below** (X_t = −t, a_t = 1, b_t = 0 obeys
    it), and asks of ζ a summable mean in place of a mean of 0. The tunnelling jumps do
    not have mean 0 in the loss (near a minimum they raise it), so their bias belongs
    to b_t. And Theorem 3.2 reads off KL → 0 from Σ KL/α_t < ∞, which does not follow
    when α_t → ∞; for fixed losses Lemma 3.3 gives the limit without it.

    Args:
        initial: X_0, shape [].
        final: X_T, or a lower bound of every X_t, shape [].
        increases: b_t, shape [T].
        noise: ζ_{t+1}, shape [T]; 0 for the bound in expectation.

    Returns:
        The budget for Σ a_t, shape [].

    Examples:
        >>> print(robbins_siegmund_budget(3.0, 1.0, [0.5, 0.25]))
        2.75
    """
    first, last, b, zeta = checked(
        initial=initial, final=final, increases=increases, noise=noise
    )
    return first - last + jnp.sum(b) + jnp.sum(zeta)
