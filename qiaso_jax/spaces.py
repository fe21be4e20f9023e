"""Which noise at which site: the cheaper space for each, and the list of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax import _arguments
from qiaso_jax._arguments import PyTree
from qiaso_jax.evaluation import accepted_arguments
from qiaso_jax.interpret import Program, evaluate, flatten, trace
from qiaso_jax.linear import has_example_map, kind
from qiaso_jax.reactive import reactive_nodes
from qiaso_jax.sites import Site, Sites, find_sites

SPACES = ("node", "example", "weights")
"""Noise at the nodes, at the weights of every example, at those of all examples."""

Space = str | Mapping[str, str]


class NodeSite(NamedTuple):
    """One parameter at one site.

    Attributes:
      path: of the parameter, its keys joined by slashes.
      kind: how it enters: "product", "convolution", "embedding", "bias", "scaling",
        "linear", or "weights" where it enters in no such way.
      space: where its noise is: "node", "example" or "weights".
      weights: how many it has.
      nodes: how many nodes per example the site has; 0 in the space "weights".
      reactive: how many of them react, in the mean over the examples.
    """

    path: str
    kind: str
    space: str
    weights: int
    nodes: int
    reactive: float


class Model(NamedTuple):
    """``value_fn`` with its keyword arguments, as a function of lists of arrays.

    Attributes:
      losses: ``(leaves, batch) -> [b]``, for any number b of examples.
      leaves: of the parameters.
      paths: of the leaves.
      batch: what carries the examples along its first axes.
      size: B, the number of examples of ``batch``.
      names: of the keyword arguments in ``batch``.
    """

    losses: Callable[[Sequence[Any], Sequence[Any]], jax.Array]
    leaves: list[Any]
    paths: list[str]
    batch: list[Any]
    size: int
    names: list[str]


class Layout(NamedTuple):
    """Where noise goes in a program.

    Attributes:
      program: ``Model.losses`` for b examples.
      whole: the same for all B examples, where those are more; else ``None``.
      single: the same for one example; ``None`` where it is not needed.
      sites: of the program.
      spaces: one of ``SPACES`` per site.
    """

    program: Program
    whole: Program | None
    single: Program | None
    sites: Sites
    spaces: tuple[str, ...]


def checked_space(space: Any) -> Space:
    """``space`` if it is one that is known, or a mapping to those."""
    for value in space.values() if isinstance(space, Mapping) else [space]:
        _arguments.one_of("space", value, ("auto", *SPACES))
    return space


def bind_model(
    value_fn: Callable[..., Any],
    params: PyTree,
    kwargs: dict[str, Any],
    batch_argnames: Sequence[str] | None,
) -> Model:
    """Splits the arguments of ``value_fn`` into parameters, batch and the rest.

    Args:
      value_fn: ``(params, **kwargs) -> [B]``.
      params: a pytree of arrays.
      kwargs: those that its signature does not name are left out.
      batch_argnames: names of those that carry the batch; ``None`` for all whose
        arrays have B as the length of their first axes.

    Returns:
      The model.

    Raises:
      TypeError: if the losses are not one real floating array.
      ValueError: if the losses are not of shape ``[B]``, or if no argument carries
        the batch.
    """
    kwargs = accepted_arguments(value_fn, kwargs)
    size = _number_of_examples(value_fn, params, kwargs)

    def carries(array: Any) -> bool:
        return jnp.ndim(array) > 0 and jnp.shape(array)[0] == size

    flat, argsdef = jax.tree.flatten(kwargs)
    names = [
        str(path[0].key)  # pyright: ignore[reportAttributeAccessIssue]
        for path, _ in jax.tree_util.tree_flatten_with_path(kwargs)[0]
    ]
    arrays = [hasattr(x, "shape") and hasattr(x, "dtype") for x in flat]
    if batch_argnames is None:
        # A state of the model may have an axis of the same length by chance: it is
        # taken for the batch only if all its arrays have.
        excluded = {
            name
            for name, x, array in zip(names, flat, arrays, strict=True)
            if array and x.ndim and not carries(x)
        }
        chosen = [
            array and carries(x) and name not in excluded
            for name, x, array in zip(names, flat, arrays, strict=True)
        ]
    else:
        unknown = sorted(set(batch_argnames) - set(names))
        if unknown:
            raise ValueError(
                f"batch_argnames names {unknown}, which value_fn does not take or "
                f"update was not given; it was given {sorted(set(names))}."
            )
        chosen = [
            array and carries(x) and name in batch_argnames
            for name, x, array in zip(names, flat, arrays, strict=True)
        ]
    if not any(chosen):
        raise ValueError(
            f"no keyword argument carries the {size} examples of the batch along the "
            f"first axes of all its arrays: value_fn was given {sorted(set(names))}. "
            "Hand the batch to update as keyword arguments, and name them in "
            "batch_argnames if they hold other arrays as well."
        )
    leaves_with_paths, treedef = jax.tree_util.tree_flatten_with_path(params)

    def losses(leaves, batch):
        rows = iter(batch)
        values = [next(rows) if c else x for c, x in zip(chosen, flat, strict=True)]
        return value_fn(
            jax.tree.unflatten(treedef, leaves), **jax.tree.unflatten(argsdef, values)
        )

    return Model(
        losses=losses,
        leaves=[leaf for _, leaf in leaves_with_paths],
        paths=[
            jax.tree_util.keystr(path, simple=True, separator="/")
            for path, _ in leaves_with_paths
        ],
        batch=[x for c, x in zip(chosen, flat, strict=True) if c],
        size=size,
        names=sorted({n for c, n in zip(chosen, names, strict=True) if c}),
    )


def _number_of_examples(
    value_fn: Callable[..., Any], params: PyTree, kwargs: dict[str, Any]
) -> int:
    output = jax.eval_shape(lambda p: value_fn(p, **kwargs), params)
    expectation = "value_fn must return one loss per example, an array of shape [B]"
    if not hasattr(output, "shape"):
        raise TypeError(f"{expectation}; got a {type(output).__name__}.")
    if len(output.shape) != 1 or not output.shape[0]:
        hint = " Do not average over the batch." if not output.shape else ""
        raise ValueError(f"{expectation}; got shape {output.shape}.{hint}")
    if not jnp.issubdtype(output.dtype, jnp.floating):
        raise TypeError(f"{expectation} of real floating dtype; got {output.dtype}.")
    return output.shape[0]


def lay_out(model: Model, size: int, space: Space) -> Layout:
    """Finds the sites of ``model`` for ``size`` examples, and the space of each.

    Raises:
      ValueError: if the function cannot be traced for ``size`` examples, if ``space``
        names a path that is none, or if no site is found.
    """
    other_size = max(model.size, size + 1)
    try:
        program, other = trace(
            model.losses, model.leaves, model.batch, size, other_size
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"value_fn could not be traced for {size} of {model.size} examples, with "
            f"the batch carried by {model.names}. If these are not the arguments that "
            f"carry it, name those in batch_argnames. The error was: {error}"
        ) from error
    wanted = dict.fromkeys(model.paths, space) if isinstance(space, str) else {}
    if isinstance(space, Mapping):
        unknown = sorted(set(space) - set(model.paths))
        if unknown:
            raise ValueError(
                f"space names {unknown}, which are no parameters; those are "
                f"{model.paths}."
            )
        wanted = {path: space.get(path, "auto") for path in model.paths}
    sites = find_sites(
        program,
        frozenset(i for i, p in enumerate(model.paths) if wanted[p] == "weights"),
    )
    if not sites.sites or (
        "weights" not in wanted.values()
        and all(site.axis is None for site in sites.sites)
    ):
        raise ValueError(
            "no parameter enters value_fn linearly with an axis of examples, so there "
            "are no nodes to perturb; use qiaso_jax.qiaso for such a function."
        )
    single = None
    if any(
        wanted[model.paths[leaf]] == "example" or _prefers_weights(program, sites, site)
        for site in sites.sites
        for leaf in site.leaves
    ):
        single = flatten(model.losses, model.leaves, model.batch, 1)
    spaces = tuple(
        _space(
            program, single, sites, site, {wanted[model.paths[i]] for i in site.leaves}
        )
        for site in sites.sites
    )
    whole = other if other_size == model.size else None
    return Layout(program, whole, single, sites, spaces)


def _space(
    program: Program,
    single: Program | None,
    sites: Sites,
    site: Site,
    wanted: set[str],
) -> str:
    if site.axis is None:
        return "weights"
    named = wanted - {"auto"}
    if len(named) > 1:
        raise ValueError(
            "space asks for both node and example space for parameters that enter at "
            "one site; qiaso_jax.node_sites lists the sites."
        )
    possible = single is not None and all(
        has_example_map(program, single, sites, site, leaf) for leaf in site.leaves
    )
    if "node" in named or not possible:
        return "node"
    if "example" in named or _prefers_weights(program, sites, site):
        return "example"
    return "node"


def _prefers_weights(program: Program, sites: Sites, site: Site) -> bool:
    """Whether noise at the weights of each example tells more than at its nodes.

    Of two ways to move the nodes as far, the one with fewer independent directions has
    the estimate of less variance, in proportion to their numbers: those of the weights
    and of the reactive nodes. Which nodes react is not known before the function runs;
    half are assumed to.
    """
    weights = sum(program.parameters[leaf].aval.size for leaf in site.leaves)
    return site.axis is not None and 2 * weights <= nodes_per_example(program, site)


def nodes_per_example(program: Program, site: Site) -> int:
    """Size of v divided by the number of examples."""
    return site.variable.aval.size // program.losses.aval.shape[0]


def node_sites(
    value_fn: Callable[..., Any],
    params: PyTree,
    *,
    sigma: float = 0.02,
    space: Space = "auto",
    batch_argnames: Sequence[str] | None = None,
    **kwargs: Any,
) -> tuple[NodeSite, ...]:
    """Lists where ``node_qiaso`` perturbs a function, and what it finds there.

    Args:
      value_fn: ``(params, **kwargs) -> [B]``, one loss per example.
      params: a pytree of arrays.
      sigma: reach of the noise, for the count of reactive nodes.
      space: as in ``node_qiaso``.
      batch_argnames: as in ``node_qiaso``.
      **kwargs: those of ``value_fn``, as given to ``update``.

    Returns:
      One ``NodeSite`` per parameter and site, in the order of evaluation. Parameters
      that are not listed do not influence the losses.

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
    params = jax.tree.map(jnp.asarray, params)
    model = bind_model(value_fn, params, kwargs, batch_argnames)
    layout = lay_out(model, model.size, checked_space(space))
    program, sites, spaces = layout.program, layout.sites, layout.spaces

    @jax.jit
    def count(leaves, batch):
        clean = evaluate(program, leaves, batch)
        masks = {
            i: reactive_nodes(program, site, clean, sigma)
            for i, site in enumerate(sites.sites)
            if spaces[i] == "node"
        }
        return {i: jnp.sum(mask) for i, mask in masks.items() if mask is not None}

    counts = count(model.leaves, model.batch)
    listed = []
    for i, (site, where) in enumerate(zip(sites.sites, spaces, strict=True)):
        nodes = 0 if where == "weights" else nodes_per_example(program, site)
        reactive = float(counts[i]) / model.size if i in counts else float(nodes)
        for leaf in sorted(site.leaves):
            listed.append(
                NodeSite(
                    path=model.paths[leaf],
                    kind=kind(program, sites, site, leaf),
                    space=where,
                    weights=program.parameters[leaf].aval.size,
                    nodes=nodes,
                    reactive=reactive,
                )
            )
    return tuple(listed)
