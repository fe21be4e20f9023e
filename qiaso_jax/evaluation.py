"""Evaluation: the losses of all candidates on the same minibatch (Eq 3)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from qiaso_jax import _trees, _varying
from qiaso_jax._arguments import BatchArgnames, PyTree
from qiaso_jax.factors import is_factors
from qiaso_jax.groups import slices_of
from qiaso_jax.losses import Losses
from qiaso_jax.program import low_rank
from qiaso_jax.program.flatten import flatten
from qiaso_jax.program.perturbed import perturbed
from qiaso_jax.superposition import Candidates, arrays, displaced


class Objective(NamedTuple):
    """Where losses come from, as functions of the leaves that move.

    Attributes:
      value_fn: the loss ℓ of one candidate, ``(moving, **kwargs) -> loss``, or
      candidates_value_fn: of all at once, ``(moving, **kwargs) -> [K]``; the other one
        is ``None``.
      kwargs: what either takes.
      aux_fn: what ``value_fn`` returns beside the loss, or ``None``.
    """

    value_fn: Callable[..., Any] | None
    candidates_value_fn: Callable[..., Any] | None
    kwargs: dict[str, Any]
    aux_fn: Callable[..., Any] | None = None


def objective_of_one(
    value_fn: Callable[..., Any], kwargs: dict[str, Any], params: PyTree, has_aux: bool
) -> Objective:
    """``value_fn`` where only some leaves of ``params`` move.

    Args:
      value_fn: ``(params, **kwargs) -> loss``, or ``(loss, aux)``.
      kwargs: those that it takes.
      params: what the leaves that do not move are taken from.
      has_aux: whether it returns ``(loss, aux)``.
    """

    def returned(moved, **kwargs):
        value = _traceable("value_fn", value_fn, _trees.whole(params, moved), kwargs)
        if has_aux and not (isinstance(value, tuple) and len(value) == 2):
            raise TypeError(
                "value_fn must return (loss, aux) with has_aux=True, got "
                f"a {type(value).__name__}."
            )
        return value

    if not has_aux:
        return Objective(returned, None, kwargs)
    return Objective(
        lambda moved, **kwargs: returned(moved, **kwargs)[0],
        None,
        kwargs,
        lambda moved, **kwargs: returned(moved, **kwargs)[1],
    )


def objective_of_all(
    candidates_value_fn: Callable[..., Any], kwargs: dict[str, Any], params: PyTree
) -> Objective:
    """``candidates_value_fn`` where only some leaves of ``params`` move."""

    def value_fn(moved, **kwargs):
        candidates = _trees.whole_candidates(params, moved)
        return _traceable(
            "candidates_value_fn", candidates_value_fn, candidates, kwargs
        )

    return Objective(None, value_fn, kwargs)


def _traceable(
    name: str, fun: Callable[..., Any], params: PyTree, kwargs: dict[str, Any]
) -> Any:
    try:
        return fun(params, **kwargs)
    except (
        jax.errors.ConcretizationTypeError,
        jax.errors.TracerArrayConversionError,
        jax.errors.TracerIntegerConversionError,
    ) as error:
        raise TypeError(
            f"{name} must be traceable by JAX, and needed a concrete value, as float() "
            "and NumPy do; use jax.numpy, or qiaso_jax.ask and qiaso_jax.tell for what "
            "is outside of JAX."
        ) from error


def candidate_losses(
    candidates: Candidates,
    centre: PyTree,
    objective: Objective,
    groups: int = 1,
    batch_argnames: BatchArgnames = None,
) -> Float[Array, " K"] | Losses:
    """L_k = ℓ(μ + δ_k; B) for every candidate, shape ``[K]``.

    Args:
      candidates: as many of them are evaluated at a time as may exist.
      centre: μ.
      objective: ℓ and its arguments.
      groups: into how many slices B is cut, each for as many candidates.
      batch_argnames: which arguments carry the examples.

    Raises:
      TypeError: if the loss is not one real floating array.
      ValueError: if the loss is not a scalar, or not of shape ``[K]`` for all at once;
        if the minibatch cannot be cut.
    """
    together, value_fn = objective.candidates_value_fn, objective.value_fn
    if together is not None:

        def losses_of(candidates):
            stacked = arrays(candidates, centre)
            losses = together(stacked, **objective.kwargs)
            _varying.check_reduced(losses, stacked)
            return checked_losses(losses, (candidates.number,), "candidates_value_fn")

        return candidates.together(losses_of)
    assert value_fn is not None

    def loss_at(offset, kwargs):
        def loss(params):
            value = value_fn(params, **kwargs)
            _varying.check_reduced(value, params)
            return checked_losses(value, (), "value_fn")

        offsets = jax.tree.leaves(offset, is_leaf=is_factors)
        if not any(map(is_factors, offsets)):
            return loss(displaced(centre, offset))
        return factored_loss(loss, centre, offsets)

    if groups == 1:
        return candidates.map(lambda offset: loss_at(offset, objective.kwargs))
    slices, arguments = slices_of(objective.kwargs, groups, batch_argnames)
    return candidates.map_groups(
        lambda offset, own: loss_at(offset, arguments(own)), slices
    )


def factored_loss(
    loss: Callable[[PyTree], Any],
    centre: PyTree,
    offsets: Sequence[Any],
    note: low_rank.Note = low_rank.unheard,
) -> jax.Array:
    """The loss at a centre with low-rank offsets, without their sum.

    Args:
      loss: of parameters.
      centre: μ.
      offsets: of its leaves, arrays or ``Factors``.
      note: hears which leaf enters which operation.
    """
    leaves, treedef = jax.tree.flatten(centre)
    program = flatten(
        lambda *leaves: [loss(treedef.unflatten(leaves))], *leaves, effects=True
    )
    leaves, offsets = _varying.together((leaves, offsets))
    inputs = [
        perturbed(leaf, offset, i)
        for i, (leaf, offset) in enumerate(zip(leaves, offsets, strict=True))
    ]
    return low_rank.evaluate(program, inputs, note)[0]


def evaluated(
    settings: Any, asked: Any, centre: PyTree, objective: Objective
) -> Float[Array, " K"] | Losses:
    """The losses of ``asked.candidates``: how kernels of whole parameters evaluate."""
    del settings
    return candidate_losses(asked.candidates, centre, objective)


def asked_arrays(asked: Any, centre: PyTree) -> PyTree:
    """``asked.candidates`` as parameters, with a leading axis."""
    return arrays(asked.candidates, centre)


def checked_losses(losses: Any, shape: tuple[int, ...], name: str) -> Any:
    """``losses`` if they are one array of real floats of ``shape``, or our error."""
    expectation = f"{name} must return " + (
        f"an array of shape {shape}" if shape else "a scalar"
    )
    if isinstance(losses, Losses) and losses.value.shape == shape:
        return losses
    if not hasattr(losses, "dtype") and not isinstance(losses, float):
        hint = "; with has_aux=True it may return (loss, aux)"
        hint = hint if isinstance(losses, tuple) else ""
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
