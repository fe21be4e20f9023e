"""Estimates without a step: the pseudo-gradient, and how much of it is noise."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from qiaso_jax._arguments import PyTree
from qiaso_jax._transformation import Estimated, check_one_algorithm
from qiaso_jax._trees import zeros_unless_given


def pseudo_gradient(
    tx: optax.GradientTransformationExtraArgs,
    state: Any,
    params: PyTree,
    *,
    updates: PyTree | None = None,
    **kwargs: Any,
) -> tuple[PyTree, Any]:
    r"""What ``tx`` would hand to its ``optimizer``, for use elsewhere.

    Minus the displacement of the centre, :math:`ĝ = -\sum_k w_k δ_k` (Eq 2); of
    ``node_qiaso`` the estimate of the gradient. To be clipped, accumulated over
    minibatches, averaged over machines, or compared with a gradient.

    Args:
      tx: ``qiaso``, ``factorised_qiaso`` or ``node_qiaso``, bare or as a member of
        ``optax.chain``, ``optax.inject_hyperparams`` and the like. Its ``optimizer``
        takes no step.
      state: its state.
      params: the parameters.
      updates: what ``tx.update`` would get, added to the centre; ``None`` for zeros.
      **kwargs: as for ``tx.update``: ``value_fn`` and its arguments.

    Returns:
      The pseudo-gradient, a pytree like ``params``: zeros where no loss is finite, or
      between two collapses. And the next state, with the state of the ``optimizer`` as
      it was.

    Raises:
      ValueError: if ``tx`` has none of these in it, or several, or within a wrapper
        that branches, as ``optax.apply_if_finite`` and ``optax.MultiSteps`` do.
      TypeError, ValueError: as ``tx.update``.

    Examples:
      >>> import jax, jax.numpy as jnp, optax, qiaso_jax
      >>> def loss(params, target):
      ...     return jnp.sum((params - target) ** 2)
      >>> tx = qiaso_jax.qiaso(30, sigma=0.1)
      >>> optimizer = optax.chain(optax.clip_by_global_norm(0.05), optax.adam(0.1))
      >>> params = jnp.zeros(3)
      >>> state, opt_state = tx.init(params), optimizer.init(params)
      >>> @jax.jit
      ... def step(params, state, opt_state):
      ...     gradient, state = qiaso_jax.pseudo_gradient(
      ...         tx, state, params, value_fn=loss, target=jnp.array([1.0, 2.0, 3.0]))
      ...     updates, opt_state = optimizer.update(gradient, opt_state)
      ...     return optax.apply_updates(params, updates), state, opt_state
      >>> for _ in range(100):
      ...     params, state, opt_state = step(params, state, opt_state)
      >>> print(params.round(1))
      [1. 2. 3.]
    """
    check_one_algorithm("pseudo_gradient", state)
    branching = (optax.ApplyIfFiniteState, optax.MultiStepsState)
    for node in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, branching)):
        if isinstance(node, branching):
            raise ValueError(
                "pseudo_gradient cannot pass through optax.apply_if_finite or "
                "optax.MultiSteps, which branch; give it what they wrap, or wrap the "
                f"optimizer that gets the estimate. Got a {type(node).__name__}."
            )
    given = zeros_unless_given(updates, params)
    _, state = tx.update(given, state, params, end_at="gradient", **kwargs)

    def is_estimate(node):
        return isinstance(node, Estimated)

    gradient = optax.tree.get(state, "pseudo_gradient")
    state = jax.tree.map(
        lambda node: node.info if is_estimate(node) else node,
        state,
        is_leaf=is_estimate,
    )
    return gradient, state


def signal_to_noise(
    tx: optax.GradientTransformationExtraArgs,
    state: Any,
    params: PyTree,
    *,
    updates: PyTree | None = None,
    **kwargs: Any,
) -> PyTree:
    r"""How much of the pseudo-gradient of every leaf is signal, and how much noise.

    Two independent estimates a and b at the same parameters, for the same loss, say

    .. math::
        \frac{\|\mathrm{E}\, ĝ\|^2}{\mathrm{E}\, \|ĝ - \mathrm{E}\, ĝ\|^2}
        ≈ \frac{⟨a, b⟩}{\tfrac12 \|a - b\|^2},

    as what they have in common is the signal, and half of the square of what differs
    the noise of one. Where it is near 0 a single estimate says next to nothing about
    the leaf, and more candidates, more momentum or another σ are called for. It is as
    dear as two steps, so to be looked at now and then.

    Args:
      tx: as for ``pseudo_gradient``; it collapses in every step.
      state: its state, which stays as it is.
      params: the parameters.
      updates: as for ``pseudo_gradient``.
      **kwargs: as for ``tx.update``.

    Returns:
      A pytree like ``params`` with a float32 scalar for every leaf: without a unit, and
      itself an estimate, which may be negative. 0 for leaves that do not move; ``inf``
      where the two agree to the last digit.

    Raises:
      TypeError, ValueError: as ``pseudo_gradient``.

    Examples:
      >>> import jax.numpy as jnp, qiaso_jax
      >>> def loss(params):
      ...     return jnp.sum(params["heard"] ** 2) + 1e-3 * jnp.sum(params["unheard"])
      >>> params = {"heard": jnp.ones(4), "unheard": jnp.ones(4)}
      >>> tx = qiaso_jax.qiaso(200, sigma=0.1)
      >>> ratio = qiaso_jax.signal_to_noise(
      ...     tx, tx.init(params), params, value_fn=loss)
      >>> print(bool(ratio["heard"] > 10), bool(ratio["unheard"] < 1))
      True True
    """
    first, state = pseudo_gradient(tx, state, params, updates=updates, **kwargs)
    second, _ = pseudo_gradient(tx, state, params, updates=updates, **kwargs)
    return jax.tree.map(_ratio, first, second)


def _ratio(a: Any, b: Any) -> Any:
    if a is None:
        return None
    precise = jnp.promote_types(a.dtype, jnp.float32)
    a, b = a.astype(precise), b.astype(precise)
    signal = jnp.sum(jnp.real(a * jnp.conj(b)))
    noise = jnp.sum(jnp.abs(a - b) ** 2) / 2
    ratio = jnp.where(noise > 0, signal / jnp.where(noise > 0, noise, 1), jnp.inf)
    return jnp.where(signal == 0, 0, ratio).astype(jnp.float32)
