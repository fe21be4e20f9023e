"""Tunnelling: random jumps of candidates across barriers (Eq 40, 41, 57)."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from qiaso_jax import _arguments
from qiaso_jax.directions import normal_directions

# g of T(θ) = γ g(αℓ): the one that the paper prints falls with the loss.
GATES = {"as_printed": lambda x: jax.nn.sigmoid(-x), "as_described": jax.nn.sigmoid}


class Tunnelling(NamedTuple):
    """The operator and its schedule, made by ``gaussian_tunnelling``."""

    epsilon: float
    initial_probability: float
    decay: float
    transition_steps: int
    sigma: float
    gate: str | None
    gate_slope: float
    gate_scale: float

    def probability(self, step: jax.Array) -> Any:
        """p_t = p_0 e^(−αt), Eq 41."""
        return optax.exponential_decay(
            self.initial_probability, self.transition_steps, self.decay
        )(step)

    def jump(
        self,
        key: jax.Array,
        step: jax.Array,
        offsets: Any,
        log_amplitudes: jax.Array,
        losses: jax.Array,
    ) -> tuple[Any, jax.Array]:
        """Moves candidates, each independently with probability p_t (Eq 57).

        Args:
          key: PRNG key.
          step: t.
          offsets: δ, leading axis K.
          log_amplitudes: log p, shape ``[K]``, or ``[G, K]`` of several groups; the
            most probable candidate of each stays.
          losses: ℓ(θ_k), of that shape, seen by the gate.

        Returns:
          The new offsets, and how many have moved.
        """
        which_key, noise_key = jax.random.split(key)
        moved = jax.random.bernoulli(
            which_key, self.probability(step), log_amplitudes.shape
        )
        best = jnp.argmax(log_amplitudes, axis=-1)
        moved &= ~jax.nn.one_hot(best, log_amplitudes.shape[-1], dtype=bool)
        factor = self.epsilon * self.sigma * jnp.ones_like(losses)
        if self.gate is not None:
            # A loss that overflowed counts as the highest there is.
            highest = jnp.finfo(losses.dtype).max
            losses = jnp.where(jnp.isfinite(losses), losses, highest)
            factor *= self.gate_scale * GATES[self.gate](self.gate_slope * losses)
        factor = jnp.where(moved, factor, 0)

        def jumped(offsets):
            noise = normal_directions(noise_key, offsets, factor.size)

            def move(offset, noise):
                each = factor.reshape(-1, *[1] * (offset.ndim - 1))
                return offset + each.astype(offset.dtype) * noise

            return jax.tree.map(move, offsets, noise)

        # Late in training hardly any step has a jump, and noise is what costs.
        offsets = jax.lax.cond(jnp.any(moved), jumped, lambda x: x, offsets)
        return offsets, jnp.sum(moved, dtype=jnp.int32)


def gaussian_tunnelling(
    epsilon: float = 0.02,
    initial_probability: float = 1.0,
    decay: float = 0.995,
    *,
    transition_steps: int = 1,
    sigma: float = 1.0,
    gate: Literal["as_printed", "as_described"] | None = None,
    gate_slope: float = 1.0,
    gate_scale: float = 1.0,
) -> Tunnelling:
    r"""Gaussian jumps of candidates, for ``qiaso(tunnelling=...)``.

    At the end of step t every candidate except the most probable one is, independently
    with probability p_t, moved by

    .. math::
        δ_k ← δ_k + ε · T(θ_k) · ζ_k, \qquad ζ_k ∼ 𝒩(0, σ_ζ² I),

    (Eq 40 and 57), where :math:`p_t = p_0 · r^{t/s} = p_0 e^{−αt}` (Eq 41) with
    :math:`α = −\ln(r)/s`. The gate T(θ) is 1 by default. The paper prints
    T = γ/(1 + exp(αℓ)), which *falls* with the loss, and describes one that makes jumps
    out of high losses more likely; both can be had. Candidates that a collapse has just
    prepared have not been evaluated: for them the gate sees the expected loss of the
    superposition they come from.

    Args:
      epsilon: ε > 0, the length of a jump in units of ``sigma``.
      initial_probability: p_0 in [0, 1].
      decay: r in (0, 1], the factor by which the probability falls every
        ``transition_steps``.
      transition_steps: s, in update steps; the paper counts t in epochs.
      sigma: σ_ζ > 0.
      gate: ``None``, ``"as_printed"`` (logistic falling in the loss) or
        ``"as_described"`` (rising).
      gate_slope: α of the gate, per unit of the loss.
      gate_scale: γ of the gate.

    Returns:
      The operator, to be given to ``qiaso``.

    Raises:
      TypeError: if an argument is not a number.
      ValueError: if a number is out of its range or the gate is unknown.

    Examples:
      >>> import jax.numpy as jnp
      >>> import qiaso_jax
      >>> tunnelling = qiaso_jax.gaussian_tunnelling(decay=0.995, transition_steps=469)
      >>> print(f"{tunnelling.probability(jnp.array(469 * 100)):.3f}")  # 100 epochs
      0.606

    References:
      Sajjad and AL Sobhi, AIMS Mathematics 2026, sections 2, 2.4 and 3.2.2.
    """
    _arguments.scalar("epsilon", epsilon, above=0)
    _arguments.scalar("initial_probability", initial_probability, at_least=0, at_most=1)
    _arguments.scalar("decay", decay, above=0, at_most=1)
    _arguments.positive_int("transition_steps", transition_steps)
    _arguments.scalar("sigma", sigma, above=0)
    _arguments.one_of("gate", gate, (None, *GATES))
    _arguments.scalar("gate_slope", gate_slope)
    _arguments.scalar("gate_scale", gate_scale, at_least=0)
    return Tunnelling(
        epsilon,
        initial_probability,
        decay,
        transition_steps,
        sigma,
        gate,
        gate_slope,
        gate_scale,
    )
