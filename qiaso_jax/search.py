"""Black-box search: ``minimize`` in one call, ``ask`` and ``tell`` for the rest."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from qiaso_jax._arguments import PyTree


def ask(
    tx: optax.GradientTransformationExtraArgs,
    state: Any,
    params: PyTree,
    *,
    updates: PyTree | None = None,
) -> PyTree:
    """The candidates whose losses the next ``tell`` expects.

    ``ask`` and ``tell`` are ``tx.update`` split in two, for a loss that JAX cannot
    trace: a simulator, a measurement, another process. Nothing is changed by asking.

    Args:
      tx: ``qiaso(...)``, bare or as a member of ``optax.chain`` and the like.
      state: its state.
      params: the centre μ, a pytree of arrays.
      updates: what ``tx.update`` would get, added to the centre; ``None`` for zeros.

    Returns:
      θ_k = μ + δ_k (Eq 1) for all k: a pytree like ``params`` with a leading axis K.

    Examples:
      >>> import jax.numpy as jnp, numpy as np, optax, qiaso_jax
      >>> def simulator(x):  # anything that is not JAX
      ...     return float(np.sum((np.asarray(x) - 3.0) ** 2))
      >>> tx = qiaso_jax.qiaso(20, sigma=0.1, optimizer=optax.adam(0.2))
      >>> params = jnp.zeros(2)
      >>> state = tx.init(params)
      >>> for _ in range(100):
      ...     candidates = qiaso_jax.ask(tx, state, params)
      ...     losses = [simulator(x) for x in candidates]
      ...     updates, state = qiaso_jax.tell(tx, state, params, losses)
      ...     params = optax.apply_updates(params, updates)
      >>> print(params.round(1))
      [3. 3.]
    """
    return _ask(tx, state, params, _updates_or_zeros(updates, params))


def tell(
    tx: optax.GradientTransformationExtraArgs,
    state: Any,
    params: PyTree,
    losses: Any,
    *,
    indices: Any = None,
    updates: PyTree | None = None,
) -> tuple[PyTree, Any]:
    """The second half of a step: amplifies, collapses and tunnels on told losses.

    Args:
      tx: ``qiaso(...)``, as for ``ask``.
      state: the state that was given to ``ask``.
      params: the centre that was given to ``ask``.
      losses: L_k (Eq 3), shape ``[K]``; NaN for a candidate without a result, which
        gets probability 0.
      indices: the candidates that ``losses`` belong to, in order of arrival, shape of
        ``losses``; those left out count as missing. ``None`` for all in their order.
      updates: as for ``ask``.

    Returns:
      ``(updates, state)``, equal to those of ``tx.update`` on the same losses.

    Raises:
      ValueError: if ``losses`` are not K, or do not fit ``indices``; if an index is out
        of range or comes twice.
      TypeError: if ``losses`` are not real or ``indices`` not integers.
    """
    num_candidates = optax.tree.get(state, "log_amplitudes").shape[0]
    losses = _told_losses(losses, indices, num_candidates)
    return _tell(tx, state, params, losses, _updates_or_zeros(updates, params))


def _updates_or_zeros(updates: PyTree | None, params: PyTree) -> PyTree:
    return optax.tree.zeros_like(params) if updates is None else updates


@partial(jax.jit, static_argnums=0)
def _ask(tx, state, params, updates):
    asked = []

    def record(candidates):
        asked.append(candidates)
        return jnp.zeros(optax.tree.get(state, "log_amplitudes").shape)

    tx.update(updates, state, params, candidates_value_fn=record)
    return asked[0]


@partial(jax.jit, static_argnums=0)
def _tell(tx, state, params, losses, updates):
    return tx.update(updates, state, params, candidates_value_fn=lambda _: losses)


def _told_losses(losses: Any, indices: Any, num_candidates: int) -> jax.Array:
    losses = jnp.asarray(losses)
    if losses.dtype.kind not in "iuf" and not jnp.issubdtype(
        losses.dtype, jnp.floating
    ):
        raise TypeError(f"losses must be real numbers, got dtype {losses.dtype}.")
    if not jnp.issubdtype(losses.dtype, jnp.floating):
        losses = losses.astype(jnp.float32)
    if indices is None:
        if losses.shape != (num_candidates,):
            raise ValueError(
                f"losses must have shape {(num_candidates,)}, one for each candidate, "
                f"got {losses.shape}; name the candidates in indices if some are "
                "missing."
            )
        return losses
    chosen = np.asarray(indices)
    if chosen.dtype.kind not in "iu" and chosen.size:
        raise TypeError(f"indices must be integers, got dtype {chosen.dtype}.")
    if chosen.shape != losses.shape or chosen.ndim != 1:
        raise ValueError(
            "indices and losses must be lists of the same length, got shapes "
            f"{chosen.shape} and {losses.shape}."
        )
    if chosen.size and not (chosen.min() >= 0 and chosen.max() < num_candidates):
        raise ValueError(
            f"indices must be from 0 to {num_candidates - 1}, got {chosen.tolist()}."
        )
    if len(np.unique(chosen)) != chosen.size:
        raise ValueError(f"indices must differ, got {chosen.tolist()}.")
    missing = jnp.full((num_candidates,), jnp.nan, losses.dtype)
    return missing.at[chosen.astype(int)].set(losses)
