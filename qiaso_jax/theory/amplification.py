"""One amplification, and what it does to the expected loss: sections 2.2.1, 2.2.2."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import rel_entr
from jax.typing import ArrayLike

from qiaso_jax.theory.arguments import above_least, checked


def kl_divergence(q: ArrayLike, p: ArrayLike) -> Array:
    """Kullback–Leibler divergence KL(q‖p) = Σ q_k log(q_k / p_k) (Eq 7).

    0·log 0 is 0, and the divergence is +inf where q_k > 0 = p_k. The paper's (20–22)
    show it to be the Bregman divergence of the negative entropy; that holds on the
    simplex only (off it, Σ p_k − Σ q_k has to be added).

    Returns:
        The divergence in nats, shape [], at least 0.

    Examples:
        >>> print(f"{kl_divergence([0.5, 0.5, 0.0], [0.25, 0.25, 0.5]):.4f}")
        0.6931
    """
    q, p = checked(q=q, p=p)
    # Rounding can leave −1e-8, of which Pinsker's inequality takes the square root.
    return jnp.maximum(jnp.sum(rel_entr(q, p)), 0)


def variational_objective(
    q: ArrayLike, losses: ArrayLike, p: ArrayLike, eta: ArrayLike
) -> Array:
    """What one amplification minimises, J(q) = ⟨q, L⟩ + KL(q‖p)/η (Eq 5, 6, 32).

    Eq 6 writes p for the variable and q for the previous iterate, Eq 5 and 7 the
    reverse; here q is always the variable.

    Returns:
        J(q) in units of the loss, shape []; +inf where q leaves the support of p.

    Examples:
        >>> print(variational_objective([0.5, 0.5], [1.0, 3.0], [0.5, 0.5], 1.0))
        2.0
    """
    q, losses, p, eta = checked(q=q, losses=losses, p=p, eta=eta)
    return q @ losses + kl_divergence(q, p) / eta


def exponential_weights(losses: ArrayLike, p: ArrayLike, eta: ArrayLike) -> Array:
    """The minimiser of J over the simplex, p_k e^{−η L_k} / Z (Eq 4, 16, 17, 30, 50).

    Returns:
        Probabilities after the amplification, shape [K].

    Examples:
        >>> p_next = exponential_weights([0.0, 1.0], [0.5, 0.5], jnp.log(3.0))
        >>> print(jnp.allclose(p_next, jnp.array([0.75, 0.25])))
        True
    """
    losses, p, eta = checked(losses=losses, p=p, eta=eta)
    return jax.nn.softmax(jnp.log(p) - eta * above_least(losses, p))


def gibbs(losses: ArrayLike, eta: ArrayLike) -> Array:
    """Exponential weights from a uniform prior: the Gibbs distribution (Eq 18, 19).

    Returns:
        e^{−η L_k} / Σ_j e^{−η L_j}, shape [K].

    Examples:
        >>> p = gibbs([0.0, 1.0], jnp.log(3.0))
        >>> print(jnp.allclose(p, jnp.array([0.75, 0.25])))
        True
    """
    losses, eta = checked(losses=losses, eta=eta)
    return jax.nn.softmax(-eta * (losses - jnp.min(losses)))


def mirror_map(p: ArrayLike) -> Array:
    """Gradient of the negative entropy Σ p_k log p_k: log p + 1 (Eq 26).

    Returns:
        The dual point, shape [K]; −inf where p is 0.

    Examples:
        >>> print(mirror_map([1.0, 0.0]))
        [  1. -inf]
    """
    (p,) = checked(p=p)
    return jnp.log(p) + 1


def inverse_mirror_map(dual: ArrayLike) -> Array:
    """The point of the simplex that a dual point belongs to, softmax(y).

    It inverts :func:`mirror_map` and ignores a constant added to y: the multiplier of
    Σ p_k = 1. Eq 27, 28 and 31 leave that multiplier out, so that their p_{t+1} (29)
    is not normalised; Eq 30 puts it right.

    Args:
        dual: shape [K].

    Returns:
        Probabilities, shape [K].

    Examples:
        >>> print(inverse_mirror_map([5.0, 5.0]))
        [0.5 0.5]
    """
    (dual,) = checked(dual=dual)
    return jax.nn.softmax(dual)


def mirror_step(losses: ArrayLike, p: ArrayLike, eta: ArrayLike) -> Array:
    """Mirror descent on ⟨p, L⟩, ∇φ(p_{t+1}) = ∇φ(p_t) − η L + constant (Eq 27–31).

    Equal to :func:`exponential_weights` (Kivinen and Warmuth, 1997; Beck and Teboulle,
    2003).

    Returns:
        Probabilities after the step, shape [K].

    Examples:
        >>> p_next = mirror_step([0.0, 1.0], [0.5, 0.5], jnp.log(3.0))
        >>> print(jnp.allclose(p_next, jnp.array([0.75, 0.25])))
        True
    """
    losses, p, eta = checked(losses=losses, p=p, eta=eta)
    return inverse_mirror_map(mirror_map(p) - eta * losses)


class AmplificationBounds(NamedTuple):
    """The three members of Lemma 2.1, each of shape []."""

    kl: Array
    decrease_bound: Array
    loss_bound: Array


def amplification_bounds(
    losses: ArrayLike, p: ArrayLike, eta: ArrayLike
) -> AmplificationBounds:
    """Lemma 2.1: KL(p'‖p) ≤ η(E_p[ℓ] − E_{p'}[ℓ]) ≤ η E_p[ℓ] (Eq 33, 37, 38).

    p' are the :func:`exponential_weights`. The first inequality always holds. **The
    second is stated without its condition E_{p'}[ℓ] ≥ 0**: the proof takes it from
    E_{p'}[ℓ] being finite, and it fails exactly where E_{p'}[ℓ] < 0.

    Returns:
        KL(p'‖p), the bound of Eq 37, and that of Eq 33, valid if E_{p'}[ℓ] ≥ 0.

    Examples:
        >>> holds = amplification_bounds([1.0, 2.0], [0.5, 0.5], 1.0)
        >>> bool(holds.kl <= holds.decrease_bound <= holds.loss_bound)
        True
        >>> fails = amplification_bounds([-2.0, -1.0], [0.5, 0.5], 1.0)
        >>> bool(fails.kl <= fails.loss_bound)
        False
    """
    losses, p, eta = checked(losses=losses, p=p, eta=eta)
    p_next = exponential_weights(losses, p, eta)
    return AmplificationBounds(
        kl=kl_divergence(p_next, p),
        decrease_bound=eta * ((p - p_next) @ above_least(losses, p)),
        loss_bound=eta * (p @ losses),
    )


def pinsker_slack(q: ArrayLike, p: ArrayLike) -> Array:
    """Pinsker's inequality as √(2 KL(q‖p)) − ‖q − p‖₁ ≥ 0 (Remark 2.1).

    Returns:
        The slack, shape []; 0 only for q = p.

    Examples:
        >>> print(f"{pinsker_slack([1.0, 0.0], [0.5, 0.5]):.4f}")
        0.1774
    """
    q, p = checked(q=q, p=p)
    return jnp.sqrt(2 * kl_divergence(q, p)) - jnp.sum(jnp.abs(q - p))
