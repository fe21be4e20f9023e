"""Evaluation: the losses of all candidates on the same minibatch (Eq 3).

The candidates are a pair: their indices k, and their offsets with a leading axis K, or
None where each offset is drawn anew when it is needed. ``offset_of(k, offset)`` is the
offset of one candidate in either case.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from qiaso_jax._arguments import PyTree
from qiaso_jax._trees import is_inexact
from qiaso_jax.superposition import displaced

Candidates = tuple[jax.Array, PyTree]
OffsetOf = Callable[[jax.Array, PyTree], PyTree]


def accepted_arguments(
    fun: Callable[..., Any], arguments: dict[str, Any]
) -> dict[str, Any]:
    """Those of the keyword ``arguments`` that the signature of ``fun`` names.

    Its first parameter is taken by the parameters of the model. A function that takes
    ``**kwargs`` gets all of them.
    """
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except ValueError:  # some built-in callables have no signature
        return {}
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return arguments
    names = {p.name for p in parameters[1:] if p.kind is not p.POSITIONAL_ONLY}
    return {name: value for name, value in arguments.items() if name in names}


def checked_losses(losses: Any, shape: tuple[int, ...], name: str) -> jax.Array:
    """``losses`` if they are one array of real floats of ``shape``, or our error."""
    expectation = f"{name} must return " + (
        f"an array of shape {shape}" if shape else "a scalar"
    )
    if not hasattr(losses, "dtype") and not isinstance(losses, float):
        hint = " (auxiliary outputs are not taken)" if isinstance(losses, tuple) else ""
        raise TypeError(
            f"{expectation} of real floating dtype, "
            f"got a {type(losses).__name__}{hint}."
        )
    losses = jnp.asarray(losses)
    if losses.shape != shape:
        hint = "; reduce it, for instance by jnp.mean" if not shape else ""
        raise ValueError(f"{expectation}, got shape {losses.shape}{hint}.")
    if not jnp.issubdtype(losses.dtype, jnp.floating):
        raise TypeError(f"{expectation} of real floating dtype, got {losses.dtype}.")
    return losses


def candidate_losses(
    value_fn: Callable[..., Any],
    centre: PyTree,
    candidates: Candidates,
    offset_of: OffsetOf,
    batch_size: int | None,
    **kwargs: Any,
) -> jax.Array:
    """L_k = ℓ(μ + δ_k; B) for every candidate, shape ``[K]``.

    Args:
      value_fn: the loss ℓ, ``(params, **kwargs) -> scalar``.
      centre: μ.
      candidates: indices, shape ``[K]``, and offsets with a leading axis K, or None.
      offset_of: makes the offset of one candidate.
      batch_size: how many are evaluated at a time; ``None`` for all.
      **kwargs: forwarded to ``value_fn`` as far as its signature names them.

    Raises:
      TypeError: if the loss is not one real floating array.
      ValueError: if the loss is not a scalar.
    """
    kwargs = accepted_arguments(value_fn, kwargs)

    def loss(candidate):
        value = value_fn(displaced(centre, offset_of(*candidate)), **kwargs)
        return checked_losses(value, (), "value_fn")

    if batch_size is None:
        return jax.vmap(loss)(candidates)
    return jax.lax.map(loss, candidates, batch_size=batch_size)


def weighted_offset(
    weights: jax.Array,
    centre: Any,
    candidates: Candidates,
    offset_of: OffsetOf,
    batch_size: int | None,
) -> Any:
    """Σ_k w_k δ_k, a pytree like ``centre``, summed in the precision of the weights.

    At most ``batch_size`` offsets exist at a time.
    """
    num_candidates = weights.shape[0]
    size = num_candidates if batch_size is None else min(batch_size, num_candidates)
    num_chunks = -(-num_candidates // size)
    missing = num_chunks * size - num_candidates

    def chunked(x):
        # The last candidate fills the last chunk up, with weight 0.
        x = jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)])
        return x.reshape(num_chunks, size, *x.shape[1:])

    weights = jnp.pad(weights, (0, missing)).reshape(num_chunks, size)
    sums = jax.tree.map(
        lambda m: jnp.zeros(
            m.shape if is_inexact(m) else (), jnp.promote_types(m.dtype, weights.dtype)
        ),
        centre,
    )

    def add(sums, chunk):
        weights, candidates = chunk

        def add_leaf(total, offsets):
            if not is_inexact(offsets):
                return total
            return total + jnp.tensordot(
                weights.astype(total.dtype),
                offsets.astype(total.dtype),
                axes=1,
                precision=jax.lax.Precision.HIGHEST,
            )

        return jax.tree.map(add_leaf, sums, jax.vmap(offset_of)(*candidates)), None

    sums, _ = jax.lax.scan(add, sums, (weights, jax.tree.map(chunked, candidates)))
    return jax.tree.map(
        lambda m, total: total.astype(m.dtype) if is_inexact(m) else jnp.zeros_like(m),
        centre,
        sums,
    )
