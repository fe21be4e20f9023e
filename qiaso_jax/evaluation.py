"""Evaluation: the losses of all candidates on the same minibatch (Eq 3)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qiaso_jax._arguments import PyTree, accepted_arguments
from qiaso_jax.superposition import Candidates, displaced


class Objective(NamedTuple):
    """Where losses come from.

    Attributes:
      value_fn: the loss ℓ of one candidate, ``(params, **kwargs) -> scalar``, or
      candidates_value_fn: of all at once, ``(candidates, **kwargs) -> [K]``; the other
        one is ``None``.
      kwargs: forwarded as far as the signature of either names them.
    """

    value_fn: Callable[..., Any] | None
    candidates_value_fn: Callable[..., Any] | None
    kwargs: dict[str, Any]


def candidate_losses(
    candidates: Candidates, centre: PyTree, objective: Objective
) -> Float[Array, " K"]:
    """L_k = ℓ(μ + δ_k; B) for every candidate, shape ``[K]``.

    Args:
      candidates: as many of them are evaluated at a time as may exist.
      centre: μ.
      objective: ℓ and its arguments.

    Raises:
      TypeError: if the loss is not one real floating array.
      ValueError: if the loss is not a scalar, or not of shape ``[K]`` for all at once.
    """
    together, value_fn = objective.candidates_value_fn, objective.value_fn
    if together is not None:
        losses = together(
            candidates.arrays(centre), **accepted_arguments(together, objective.kwargs)
        )
        return checked_losses(losses, (candidates.number,), "candidates_value_fn")
    assert value_fn is not None
    kwargs = accepted_arguments(value_fn, objective.kwargs)

    def loss(one):
        value = value_fn(displaced(centre, candidates.offset_of(one)), **kwargs)
        return checked_losses(value, (), "value_fn")

    if candidates.batch_size is None:
        return jax.vmap(loss)(candidates.each)
    return jax.lax.map(loss, candidates.each, batch_size=candidates.batch_size)


def evaluated(
    settings: Any, asked: Any, centre: PyTree, objective: Objective
) -> Float[Array, " K"]:
    """The losses of ``asked.candidates``: how kernels of whole parameters evaluate."""
    del settings
    return candidate_losses(asked.candidates, centre, objective)


def asked_arrays(asked: Any, centre: PyTree) -> PyTree:
    """``asked.candidates`` as parameters, with a leading axis."""
    return asked.candidates.arrays(centre)


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
