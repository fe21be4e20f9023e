"""The list of where noise goes in a function, and why."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax import _arguments, _trees
from qiaso_jax._arguments import BatchArgnames, PyTree
from qiaso_jax.evaluation import objective_of_one
from qiaso_jax.node_space.examples import (
    bind_model,
    path_name,
)
from qiaso_jax.node_space.scaling import noise_size, path_of
from qiaso_jax.node_space.spaces import (
    Analysis,
    Space,
    analyse,
    checked_space,
    mixing,
)
from qiaso_jax.program.chains import kind
from qiaso_jax.program.equations import Environment, Program, evaluate
from qiaso_jax.program.passes import harvest
from qiaso_jax.program.reactive import reactive_nodes
from qiaso_jax.program.rows import nodes_per_example
from qiaso_jax.program.sites import Site


class NodeSite(NamedTuple):
    """One parameter at one site.

    Attributes:
      path: of the parameter, its keys joined by slashes.
      kind: how it enters: "product", "convolution", "embedding", "bias", "scaling",
        "linear", or "weights" where it enters in no such way.
      space: where its noise is: "node", "example" or "weights"; "fixed" for a
        parameter that does not move.
      weights: how many it has.
      nodes: how many nodes per example the site has, over all iterations of the loops
        around it; 0 in the spaces "weights" and "fixed".
      reactive: how many of them react, in the mean over the examples.
      reason: why it is not in node space: the operation, and the line of the user's
        source; for batch statistics that are held, which; else "".
      capped: whether noise at the weights moves the nodes by less than σ, since it is
        not made larger than the weights themselves.
    """

    path: str
    kind: str
    space: str
    weights: int
    nodes: int
    reactive: float
    reason: str = ""
    capped: bool = False


def node_sites(
    value_fn: Callable[..., Any],
    params: PyTree,
    *,
    sigma: float = 0.02,
    space: Space = "auto",
    leaf_mask: _trees.Mask = None,
    batch_argnames: BatchArgnames = None,
    **kwargs: Any,
) -> tuple[NodeSite, ...]:
    """Lists where ``node_qiaso`` perturbs a function, and why there.

    Args:
      value_fn: ``(params, **kwargs) -> [B]``, one loss per example.
      params: a pytree of arrays.
      sigma: reach of the noise, for the count of reactive nodes.
      space: as in ``node_qiaso``.
      leaf_mask: ``mask`` of ``node_qiaso``; arguments of ``value_fn`` are often called
        so.
      batch_argnames: as in ``node_qiaso``.
      **kwargs: those of ``value_fn``, as given to ``update``.

    Returns:
      One ``NodeSite`` per parameter and site, in the order of evaluation, and last
      those that do not move.

    Raises:
      TypeError: if the losses are not one real floating array.
      ValueError: as ``update`` of ``node_qiaso`` does.

    Examples:
      >>> import jax, jax.numpy as jnp, qiaso_jax
      >>> def value_fn(params, x, y):
      ...     hidden = jax.nn.relu(x @ params["in"] + params["bias"])
      ...     return jnp.sum((hidden @ params["out"] - y) ** 2, axis=-1)
      >>> params = {
      ...     "in": jnp.eye(3, 5), "bias": jnp.full(5, -0.5), "out": jnp.ones((5, 2))}
      >>> for site in qiaso_jax.node_sites(
      ...     value_fn, params, x=jnp.eye(3), y=jnp.zeros((3, 2))):
      ...     print(site.path, site.kind, site.space, site.weights, site.nodes,
      ...           site.reactive)
      bias bias node 5 5 1.0
      in product node 15 5 1.0
      out product node 10 2 2.0
    """
    params = _trees.arrays(params)
    moves = _trees.moves(params, leaf_mask)
    _trees.check_any(params, moves)
    accepted = _arguments.accepted_arguments("value_fn", value_fn, kwargs)
    objective = objective_of_one(value_fn, accepted, params, has_aux=False)
    assert objective.value_fn is not None
    model = bind_model(
        objective.value_fn,
        _trees.moving(params, moves),
        objective.kwargs,
        _arguments.checked_argnames(batch_argnames),
    )
    analysis = analyse(model, checked_space(space))
    program, sites = analysis.program, analysis.sites
    in_weights = [i for i, s in enumerate(analysis.spaces) if s == "weights"]

    def react(i: int, level: Program, clean: Environment) -> Any:
        site = sites.sites[i]
        if analysis.spaces[i] != "node":
            return None
        mask = reactive_nodes(level, site.variable, site.uses, clean, sigma)
        return None if mask is None else jnp.sum(mask)

    @jax.jit
    def measured(leaves, batch):
        _, (_, counts) = harvest(program, sites, leaves, batch, react, (), {})
        clean = evaluate(program, [*leaves, *batch])
        capped = {
            i: noise_size(
                program,
                sites,
                i,
                path_of(program, sites, i),
                clean,
                jnp.asarray(sigma, jnp.float32),
                model.size,
            )[1]
            for i in in_weights
        }
        return jax.tree.map(jnp.sum, counts), capped

    counts, capped = measured(model.leaves, model.batch)
    listed = []
    for i, (site, where) in enumerate(zip(sites.sites, analysis.spaces, strict=True)):
        nodes = 0 if where == "weights" else nodes_per_example(site, model.size)
        count = counts.get(i)
        for leaf in sorted(site.leaves):
            listed.append(
                NodeSite(
                    path=model.paths[leaf],
                    kind=kind(program, sites, site, leaf),
                    space=where,
                    weights=program.inputs[leaf].aval.size,
                    nodes=nodes,
                    reactive=float(nodes if count is None else count / model.size),
                    reason=_reason(analysis, site, where, leaf),
                    capped=bool(capped.get(i, False)),
                )
            )
    moving = {leaf for site in sites.sites for leaf in site.leaves}
    for leaf, path in enumerate(model.paths):
        if leaf not in moving:
            listed.append(
                NodeSite(
                    path,
                    "weights",
                    "fixed",
                    program.inputs[leaf].aval.size,
                    0,
                    0.0,
                    _why_fixed(program, leaf),
                )
            )
    listed += [
        NodeSite(path_name(path), "weights", "fixed", jnp.size(leaf), 0, 0.0, reason)
        for path, leaf, reason in _left_out(params, moves)
    ]
    return tuple(listed)


def _left_out(params: PyTree, moves: PyTree) -> list[tuple[Any, Any, str]]:
    """Paths and leaves of what is no parameter to ``node_qiaso``, and why."""
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return [
        (
            path,
            leaf,
            "mask leaves it out"
            if _trees.is_inexact(leaf)
            else f"it is of dtype {leaf.dtype}",
        )
        for (path, leaf), moves in zip(leaves, jax.tree.leaves(moves), strict=True)
        if not moves and hasattr(leaf, "dtype")
    ]


def _reason(analysis: Analysis, site: Site, where: str, leaf: int) -> str:
    sites = analysis.sites
    statistics = ", ".join(sorted({e.operation for e in analysis.held.statistics}))
    if where != "weights":
        if not sites.statistics:
            return ""
        return f"batch statistics are held at their clean values: {statistics}"
    if leaf in sites.mixers and leaf not in analysis.held.mixers:
        return (
            f"examples meet in batch statistics, {statistics}; space='node' holds them "
            "at their clean values"
        )
    if leaf in sites.mixers:
        return mixing(sites.mixers[leaf])
    if leaf in analysis.asked:
        return "asked for"
    if site.enters is None:
        return "it enters the losses as it is"
    return f"it enters {site.enters.operation}, which is not linear in it"


def _why_fixed(program: Program, leaf: int) -> str:
    variable = program.inputs[leaf]
    if any(variable in equation.inputs for equation in program.equations):
        return "what it does to the losses is under stop_gradient"
    return "the losses do not depend on it"
