"""The paper's lemmas and bounds as functions that can be run and tested.

One function for each statement of I. Sajjad and M. M. AL Sobhi, "The
quantum-inspired adaptive superposition optimization for neural network training",
AIMS Mathematics, 2026, with the number of its equation. Where the paper is mistaken,
the docstring says how.

Arguments mean the same everywhere:

- ``p``, ``q``, ``p_next``: probabilities of the K candidates, shape [K], sum 1;
- ``losses``: their finite losses, shape [K]; ``eta``: inverse temperature η > 0,
  shape [], in 1/units of the loss;
- ``barrier``: distance Δ > 0 that a jump has to cover; ``epsilon``: scale ε > 0 of
  the jump; ``sigma``: standard deviation σ > 0 of its noise; any shapes that broadcast.

All functions are pure and work under ``jax.jit`` and ``jax.vmap``, which is also the
way to treat a batch. They compute in the dtype of their arguments, in float32 at
least. A concrete argument outside its set raises a ``ValueError`` that names it, what
it was and what it may be; so do vectors of different lengths, traced or not.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.scipy.special import gammaincc, rel_entr
from jax.scipy.stats import norm
from jax.typing import ArrayLike

# Of the sum of probabilities: they may have been rounded to bfloat16 on the way here.
_SUM_TOLERANCE = 2.0**-8


class _Rule(NamedTuple):
    accepted: str
    ndim: int | None
    holds: Callable[[np.ndarray], bool | np.bool]


_SIMPLEX = _Rule(
    "a vector of non-negative numbers that sum to 1",
    1,
    lambda x: np.all(x >= 0) and abs(np.sum(x, dtype=float) - 1) <= _SUM_TOLERANCE,
)
_FINITE = _Rule("finite", None, lambda x: np.all(np.isfinite(x)))
_SCALAR = _FINITE._replace(accepted="a finite scalar", ndim=0)
_POSITIVE = _Rule("positive and finite", None, lambda x: np.all((x > 0) & (x < np.inf)))
_PROBABILITY = _Rule("between 0 and 1", None, lambda x: np.all((x >= 0) & (x <= 1)))
_RULES = {
    **dict.fromkeys(("p", "q", "p_next"), _SIMPLEX),
    "losses": _Rule(
        "a non-empty vector of finite numbers",
        1,
        lambda x: x.size > 0 and np.all(np.isfinite(x)),
    ),
    "dual": _Rule("a vector of numbers below +inf", 1, lambda x: np.all(x < np.inf)),
    "eta": _POSITIVE._replace(accepted="a positive, finite scalar", ndim=0),
    **dict.fromkeys(("barrier", "epsilon", "sigma", "decay"), _POSITIVE),
    **dict.fromkeys(
        ("initial_probability", "tunnelling_probabilities", "escape"), _PROBABILITY
    ),
    "num_steps": _Rule("at least 1", None, lambda x: np.all(x >= 1)),
    "num_weights": _Rule(
        "at least 1 and finite", None, lambda x: np.all((x >= 1) & (x < np.inf))
    ),
    **dict.fromkeys(("initial", "final"), _SCALAR),
    **dict.fromkeys(("increases", "noise"), _FINITE),
}


def _checked(**arguments: ArrayLike) -> list[Array]:
    """The arguments in one floating dtype, once each is known to obey its rule."""
    lengths = {}
    for name, value in arguments.items():
        accepted, ndim, holds = _RULES[name]
        shape = np.shape(value)
        if ndim is not None and len(shape) != ndim:
            raise ValueError(f"{name} must be {accepted}, got shape {shape}.")
        if ndim == 1:
            lengths[name] = shape[0]
        # NumPy and not jax.numpy, whose result would be traced under an outer jit.
        if not isinstance(value, Tracer) and not holds(np.asarray(value)):
            raise ValueError(f"{name} must be {accepted}, got {value}.")
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"{' and '.join(lengths)} must have the same length, "
            f"got {' and '.join(map(str, lengths.values()))}."
        )
    arrays = [jnp.asarray(value) for value in arguments.values()]
    dtype = jnp.promote_types(jnp.result_type(*arrays), jnp.float32)
    return [array.astype(dtype) for array in arrays]


def _excess(losses: Array, p: Array) -> Array:
    # Differences of losses are exact where products of η with large losses round.
    return losses - jnp.min(losses, where=p > 0, initial=jnp.inf)


# Amplification: sections 2.2.1, 2.2.2, 3.2.1.


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
    q, p = _checked(q=q, p=p)
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
    q, losses, p, eta = _checked(q=q, losses=losses, p=p, eta=eta)
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
    losses, p, eta = _checked(losses=losses, p=p, eta=eta)
    return jax.nn.softmax(jnp.log(p) - eta * _excess(losses, p))


def gibbs(losses: ArrayLike, eta: ArrayLike) -> Array:
    """Exponential weights from a uniform prior: the Gibbs distribution (Eq 18, 19).

    Returns:
        e^{−η L_k} / Σ_j e^{−η L_j}, shape [K].

    Examples:
        >>> p = gibbs([0.0, 1.0], jnp.log(3.0))
        >>> print(jnp.allclose(p, jnp.array([0.75, 0.25])))
        True
    """
    losses, eta = _checked(losses=losses, eta=eta)
    return jax.nn.softmax(-eta * (losses - jnp.min(losses)))


def mirror_map(p: ArrayLike) -> Array:
    """Gradient of the negative entropy Σ p_k log p_k: log p + 1 (Eq 26).

    Returns:
        The dual point, shape [K]; −inf where p is 0.

    Examples:
        >>> print(mirror_map([1.0, 0.0]))
        [  1. -inf]
    """
    (p,) = _checked(p=p)
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
    (dual,) = _checked(dual=dual)
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
    losses, p, eta = _checked(losses=losses, p=p, eta=eta)
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
    losses, p, eta = _checked(losses=losses, p=p, eta=eta)
    p_next = exponential_weights(losses, p, eta)
    return AmplificationBounds(
        kl=kl_divergence(p_next, p),
        decrease_bound=eta * ((p - p_next) @ _excess(losses, p)),
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
    q, p = _checked(q=q, p=p)
    return jnp.sqrt(2 * kl_divergence(q, p)) - jnp.sum(jnp.abs(q - p))


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
        >>> losses, p = [0.0, 1.0], [0.5, 0.5]
        >>> p_next = exponential_weights(losses, p, 1.0)
        >>> print(f"{monotone_decrease_slack(losses, p, p_next, 1.0):.4f}")
        0.1201
    """
    losses, p, p_next, eta = _checked(losses=losses, p=p, p_next=p_next, eta=eta)
    return (p - p_next) @ _excess(losses, p) - kl_divergence(p_next, p) / eta


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
    losses, p = _checked(losses=losses, p=p)
    kept = jnp.where(_excess(losses, p) == 0, p, 0)
    return kept / jnp.sum(kept)


# Tunnelling: sections 3.2.2 and 3.2.3.


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
    p_0, alpha, steps = _checked(
        initial_probability=initial_probability, decay=decay, num_steps=num_steps
    )
    return p_0 * jnp.expm1(-alpha * steps) / jnp.expm1(-alpha)


def robbins_siegmund_budget(
    initial: ArrayLike, final: ArrayLike, increases: ArrayLike, noise: ArrayLike = 0.0
) -> Array:
    """What the decreases of a noisy sequence can sum up to (Eq 59, telescoped).

    If X_{t+1} ≤ X_t − a_t + b_t + ζ_{t+1} for t < T, then on every path

        Σ_{t<T} a_t ≤ X_0 − X_T + Σ_{t<T} b_t + Σ_{t<T} ζ_{t+1},

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
    first, last, b, zeta = _checked(
        initial=initial, final=final, increases=increases, noise=noise
    )
    return first - last + jnp.sum(b) + jnp.sum(zeta)


def _reach(barrier: ArrayLike, epsilon: ArrayLike, sigma: ArrayLike) -> Array:
    """The barrier in standard deviations of a jump, Δ/(εσ)."""
    barrier, epsilon, sigma = _checked(barrier=barrier, epsilon=epsilon, sigma=sigma)
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
    barrier, epsilon, sigma, n = _checked(
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
    p_t, escape = _checked(
        tunnelling_probabilities=tunnelling_probabilities, escape=escape
    )
    return -jnp.expm1(jnp.sum(jnp.log1p(-p_t * escape)))
