"""``ask`` and ``tell``: one step in two halves, for losses that JAX cannot trace."""

import dataclasses
import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.experimental import io_callback

from qiaso_jax._arguments import PyTree
from qiaso_jax._transformation import NoCandidates, check_one_algorithm
from qiaso_jax._trees import arrays, zeros_unless_given
from qiaso_jax.losses import is_finite, real_numbers, told


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
      tx: ``qiaso(...)`` or ``factorised_qiaso(...)``, bare or as a member of
        ``optax.chain`` and the like.
      state: its state.
      params: the centre μ, a pytree of arrays.
      updates: what ``tx.update`` would get, added to the centre; ``None`` for zeros.

    Returns:
      θ_k = μ + δ_k (Eq 1) for all k: a pytree like ``params`` with a leading axis K. Of
      ``factorised_qiaso`` all configurations: first the K values of block 0, and so on;
      or the S to be measured.

    Raises:
      ValueError: if ``tx`` has no candidates to evaluate outside, as ``node_qiaso``; or
        if this step has none, as one that ``optax.apply_if_finite`` leaves out.

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
    check_one_algorithm("ask", state)
    updates = zeros_unless_given(updates, params)
    params = _constants_wrapped(params)
    try:
        return _constants_unwrapped(_ask(tx, state, params, updates))
    except NoCandidates:
        raise
    except (TypeError, ValueError):
        # Under a wrapper that branches, the state must keep its structure. What else
        # may have been wrong is raised again.
        return _constants_unwrapped(_ask_on_host(tx, state, params, updates))


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
      tx: as for ``ask``.
      state: the state that was given to ``ask``.
      params: the centre that was given to ``ask``.
      losses: L_k (Eq 3) in the order of the candidates, shape ``[K]``; NaN for a
        candidate without a result, which gets probability 0.
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
    check_one_algorithm("tell", state)
    updates = zeros_unless_given(updates, params)
    params = _constants_wrapped(params)
    if indices is not None:
        indices = _checked_indices(indices, len(losses))
        number = _count(tx, state, params, updates)
        losses = _in_order(losses, indices, number)
    if not isinstance(losses, Tracer):
        losses = told(losses, optax.tree.get(state, "expected_loss").dtype)
    return _tell(tx, state, params, losses, updates)


class Best(NamedTuple):
    """The best candidate so far.

    Attributes:
      params: a pytree like the parameters.
      loss: its loss, as it was told; ``inf`` before any was finite.
    """

    params: PyTree
    loss: float


def best_so_far(best: Best | None, candidates: PyTree, losses: Any) -> Best:
    """The better of the best candidate so far and those of a step.

    What ``ask`` and ``tell`` move is the centre, which is what to use where losses are
    noisy; where they are not, the best candidate is lower than it.

    Args:
      best: by the last call; ``None`` in the first.
      candidates: by ``ask``.
      losses: of these, shape ``[K]``, compared as Python numbers; a loss that is not
        finite is no candidate for the best.

    Returns:
      A ``Best``; its ``params`` are the first candidate's as long as none was finite.

    Raises:
      TypeError: if ``losses`` are no real numbers.
      ValueError: if they are not as many as the candidates.

    Examples:
      >>> import jax.numpy as jnp, qiaso_jax
      >>> best = None
      >>> for candidates, losses in [(jnp.arange(3.0), [2, 1, 5]),
      ...                            (jnp.arange(3.0, 6.0), [4, float("nan"), 3])]:
      ...     best = qiaso_jax.best_so_far(best, candidates, losses)
      >>> print(best)
      Best(params=Array(1., dtype=float32), loss=1)
    """
    numbers = real_numbers(losses)
    if len(numbers) != _number_of(candidates):
        raise ValueError(
            f"losses must have one number for each of {_number_of(candidates)} "
            f"candidates, got {len(numbers)}."
        )
    finite = [k for k, loss in enumerate(numbers) if is_finite(loss)]
    winner = min(finite, key=numbers.__getitem__, default=0)
    loss = numbers[winner] if finite else math.inf
    if best is not None and not loss < best.loss:
        return best
    of_one = jax.tree.map(lambda c: c[winner] if hasattr(c, "shape") else c, candidates)
    return Best(of_one, loss)


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class _Constant:
    """A leaf that ``jax.jit`` does not take, such as a string or a function."""

    value: Any


def _constants_wrapped(tree: PyTree) -> PyTree:
    def wrap(leaf):
        return leaf if isinstance(leaf, jax.Array) else _Constant(leaf)

    return jax.tree.map(wrap, arrays(tree))


def _constants_unwrapped(tree: PyTree) -> PyTree:
    def is_constant(leaf):
        return isinstance(leaf, _Constant)

    return jax.tree.map(
        lambda leaf: leaf.value if is_constant(leaf) else leaf,
        tree,
        is_leaf=is_constant,
    )


@partial(jax.jit, static_argnums=0)
def _ask(tx, state, params, updates):
    params = _constants_unwrapped(params)
    _, state = tx.update(updates, state, params, end_at="ask")
    return _constants_wrapped(optax.tree.get(state, "asked_candidates"))


def _ask_on_host(tx, state, params, updates):
    """Candidates as the host sees them go by."""
    asked, step = _observed(tx)
    asked.clear()
    jax.block_until_ready(step(state, params, updates))
    jax.effects_barrier()
    if not asked:
        raise ValueError(
            "this step of tx evaluates no candidates; under a wrapper such as "
            "optax.apply_if_finite, ask outside of jax.jit and with finite updates."
        )
    return jax.tree.map(jnp.asarray, asked[0])


@lru_cache(maxsize=16)
def _observed(tx) -> tuple[list[Any], Callable[..., Any]]:
    """A compiled step of ``tx``, and the list in which it leaves its candidates."""
    asked = []

    def record(candidates):
        io_callback(asked.append, None, _constants_wrapped(candidates))
        return jnp.zeros(_number_of(candidates))

    def step(state, params, updates):
        params = _constants_unwrapped(params)
        return tx.update(updates, state, params, candidates_value_fn=record)

    return asked, jax.jit(step)


@partial(jax.jit, static_argnums=0)
def _tell(tx, state, params, losses, updates):
    def known(candidates):
        expected, shape = (_number_of(candidates),), jax.tree.leaves(losses)[0].shape
        if shape != expected:
            raise ValueError(
                f"losses must have shape {expected}, one for each candidate, got "
                f"{shape}; name the candidates in indices if some are missing."
            )
        return losses

    params = _constants_unwrapped(params)
    return tx.update(updates, state, params, candidates_value_fn=known, end_at="tell")


def _number_of(candidates: PyTree) -> int:
    return next(x.shape[0] for x in jax.tree.leaves(candidates) if hasattr(x, "shape"))


def _count(tx, state, params, updates) -> int:
    try:
        asked = jax.eval_shape(partial(_ask, tx), state, params, updates)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "indices cannot be placed, as tx does not say how many candidates it asks "
            "for under a wrapper that branches, such as optax.apply_if_finite; give "
            "losses for all candidates in their order, NaN where one is missing."
        ) from error
    return _number_of(asked)


def _checked_indices(indices: Any, number: int) -> np.ndarray:
    chosen = np.asarray(indices)
    if chosen.dtype.kind not in "iu" and chosen.size:
        raise TypeError(f"indices must be integers, got dtype {chosen.dtype}.")
    if chosen.shape != (number,):
        raise ValueError(
            "indices and losses must be lists of the same length, got shapes "
            f"{chosen.shape} and {(number,)}."
        )
    if len(np.unique(chosen)) != chosen.size:
        raise ValueError(f"indices must differ, got {chosen.tolist()}.")
    return chosen.astype(int)


def _in_order(losses: Any, indices: np.ndarray, num_candidates: int) -> Any:
    """The losses of all candidates, NaN for those that none was told of."""
    if indices.size and not (indices.min() >= 0 and indices.max() < num_candidates):
        raise ValueError(
            f"indices must be from 0 to {num_candidates - 1}, got {indices.tolist()}."
        )

    if isinstance(losses, Tracer):
        missing = jnp.full((num_candidates,), jnp.nan, losses.dtype)
        return missing.at[indices].set(losses)
    placed: list[Any] = [math.nan] * num_candidates
    for index, loss in zip(indices, real_numbers(losses), strict=True):
        placed[index] = loss
    is_float = jnp.issubdtype(getattr(losses, "dtype", object), jnp.floating)
    return np.array(placed, losses.dtype) if is_float else placed
