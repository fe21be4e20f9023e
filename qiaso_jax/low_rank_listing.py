"""The list of which weights low-rank candidates have as factors, and which not."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax import _arguments, _trees, factors
from qiaso_jax._arguments import PyTree
from qiaso_jax.directions import Directions, low_rank
from qiaso_jax.evaluation import checked_losses, factored_loss, objective_of_one
from qiaso_jax.factors import is_factors
from qiaso_jax.program.equations import Equation


class LowRankSite(NamedTuple):
    """One operation on one leaf of the parameters, as a low-rank candidate has it.

    Attributes:
      path: of the leaf, its keys joined by slashes.
      operation: the primitive, with the line of the user's source; "" for a leaf whose
        offsets are no factors in the first place.
      factored: whether the operation works on factors, so that the array of the
        candidate is not made.
      rows: how many rows and
      columns: columns the matrix has that the leaf is, 0 where it has no factors.
      reason: why it is not factored; else "".
    """

    path: str
    operation: str
    factored: bool
    rows: int
    columns: int
    reason: str = ""


def low_rank_sites(
    value_fn: Callable[..., Any],
    params: PyTree,
    *,
    rank: int = 1,
    leaf_mask: _trees.Mask = None,
    **kwargs: Any,
) -> tuple[LowRankSite, ...]:
    """Lists where ``qiaso(directions="low_rank")`` evaluates by factors, and where not.

    Args:
      value_fn: ``(params, **kwargs) -> scalar``.
      params: a pytree of arrays.
      rank: of ``qiaso_jax.low_rank``.
      leaf_mask: ``mask`` of ``qiaso``; arguments of ``value_fn`` are often called so.
      **kwargs: those of ``value_fn``, as given to ``update``.

    Returns:
      First the leaves without factors, then one ``LowRankSite`` for each leaf and
      operation, in the order of evaluation.

    Raises:
      TypeError: if the loss is not one real floating array.
      ValueError: if it is not a scalar, or no leaf moves.

    Examples:
      >>> import jax, jax.numpy as jnp, qiaso_jax
      >>> def value_fn(params, x):
      ...     penalty = jnp.sum(params["kernel"] ** 2) + jnp.max(params["kernel"])
      ...     return jnp.mean(x @ params["kernel"] + params["bias"]) + penalty
      >>> params = {"kernel": jnp.zeros((30, 20)), "bias": jnp.zeros(20)}
      >>> for site in qiaso_jax.low_rank_sites(value_fn, params, x=jnp.ones((2, 30))):
      ...     print(site.path, site.operation.split(" ")[0], site.factored)
      bias  False
      kernel integer_pow True
      kernel reduce_sum True
      kernel reduce_max False
      kernel dot_general True
    """
    params = _trees.arrays(params)
    moves = _trees.moves(params, leaf_mask)
    _trees.check_any(params, moves)
    accepted = _arguments.accepted_arguments("value_fn", value_fn, kwargs)
    objective = objective_of_one(value_fn, accepted, params, has_aux=False)
    centre = _trees.moving(params, moves)
    leaves = jax.tree_util.tree_flatten_with_path(centre)[0]
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves
    ]
    kind = low_rank(rank)
    ends = {i: factors.split(leaf.shape, rank) for i, (_, leaf) in enumerate(leaves)}
    listed: dict[LowRankSite, None] = {}

    def site(i: int, operation: str, factored: bool, reason: str) -> LowRankSite:
        end, shape = ends[i], leaves[i][1].shape
        sizes = (0, 0)
        if end is not None:
            rows = jax.ShapeDtypeStruct(shape[:end], bool)
            sizes = rows.size, leaves[i][1].size // rows.size
        return LowRankSite(paths[i], operation, factored, *sizes, reason)

    def note(i: int, equation: Equation, factored: bool, reason: str) -> None:
        listed[site(i, equation.operation, factored, reason)] = None

    def evaluated(centre):
        ones = jax.tree.map(lambda leaf: jnp.ones((), leaf.real.dtype), centre)
        directions = Directions(centre, ones, kind)
        known = directions.known(jax.random.key(0), 0, 1)
        one = jax.tree.map(lambda x: x[0], directions.ready(known))
        offsets = jax.tree.leaves(directions.offset(one, 1), is_leaf=is_factors)
        for i, offset in enumerate(offsets):
            if not is_factors(offset):
                listed[site(i, "", False, _why_dense(leaves[i][1]))] = None
        return factored_loss(loss, centre, offsets, note)

    def loss(moved):
        assert objective.value_fn is not None
        value = objective.value_fn(moved, **objective.kwargs)
        return checked_losses(value, (), "value_fn")

    jax.eval_shape(evaluated, centre)
    return tuple(listed)


def _why_dense(leaf: jax.Array) -> str:
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return "it is complex"
    if leaf.ndim < 2:
        return "it is no matrix"
    return "its factors would be no fewer numbers"
