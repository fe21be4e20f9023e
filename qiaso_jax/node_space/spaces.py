"""Which noise at which site: the cheapest space for each that is right there."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from qiaso_jax import _arguments
from qiaso_jax.node_space.examples import Model, traced, untraceable
from qiaso_jax.program.axes import Mixed, Reach, losses_reached
from qiaso_jax.program.chains import chain_to, data_of
from qiaso_jax.program.equations import Equation, Program
from qiaso_jax.program.rows import (
    Beginning,
    Differs,
    Twin,
    beginning,
    nodes_per_example,
    twin,
)
from qiaso_jax.program.sites import Site, Sites, find_sites

SPACES = ("node", "example", "weights")
"""Noise at the nodes, at the weights of every example, at those of all examples."""

FEWER_EXAMPLES = 0.25
"""The share of the minibatch that candidates are for, where examples are apart."""

Space = str | Mapping[str, str]


class Analysis(NamedTuple):
    """A function of parameters and a batch, and where noise goes in it.

    Attributes:
      program: ``Model.losses`` for all B examples.
      sites: of ``program``.
      spaces: one of ``SPACES`` per site.
      demand: whose losses the values of variables are needed for.
      single: what ``program`` is for one example; ``None`` where it is not needed.
      asked: indices of the parameters that are asked to be in weight space.
      held: as ``sites``, with what is summed up over the examples held.
    """

    program: Program
    sites: Sites
    spaces: tuple[str, ...]
    demand: Reach
    single: Beginning | None
    asked: frozenset[int]
    held: Sites


def checked_space(space: Any) -> Space:
    """``space`` if it is one that is known, or a mapping to those."""
    for value in space.values() if isinstance(space, Mapping) else [space]:
        _arguments.one_of("space", value, ("auto", *SPACES))
    return space


def analyse(model: Model, space: Space) -> Analysis:
    """Finds the sites of ``model``, and the space of each.

    Raises:
      ValueError: if ``space`` names a path that is none, or asks for a space that is
        not valid for a parameter; if a parameter is complex, or none would move.
    """
    wanted = _wanted(model, space)
    asked = set(wanted.values()) & {"node", "example"}
    program = traced(model, model.size)
    statuses = model.statuses
    fixed = frozenset(i for i, p in enumerate(model.paths) if wanted[p] == "weights")

    def found(in_weight_space: frozenset[int], hold: bool) -> Sites:
        return find_sites(
            program, len(model.leaves), statuses, model.size, in_weight_space, hold
        )

    sites = found(fixed, bool(asked))
    _refuse_mixed(model, wanted, sites)
    _refuse_unfit(model, wanted, sites)
    held = sites if asked or not sites.meet else found(fixed, True)
    demand = losses_reached(program, model.size, lambda e: e in held.statistics)
    single = None
    if any(
        wanted[model.paths[leaf]] == "example"
        or _prefers_weights(program, site, model.size)
        for site in sites.sites
        for leaf in site.leaves
    ):
        single = _single(model, program)
    spaces = tuple(
        _space(
            program,
            sites,
            site,
            single,
            demand,
            {wanted[model.paths[i]] for i in site.leaves},
            model.size,
        )
        for site in sites.sites
    )
    return Analysis(program, sites, spaces, demand, single, fixed, held)


def part_of(model: Model, analysis: Analysis, size: int) -> Twin:
    """The program of ``analysis`` for ``size`` examples.

    Raises:
      ValueError: if it is another one for so many.
    """
    try:
        return twin(analysis.program, traced(model, size), analysis.sites)
    except Differs as error:
        raise ValueError(untraceable(model, size, error)) from error


def _single(model: Model, program: Program) -> Beginning | None:
    try:
        return beginning(program, traced(model, 1))
    except ValueError:  # what follows a site may need more examples than one
        return None


def _wanted(model: Model, space: Space) -> dict[str, str]:
    if isinstance(space, str):
        return dict.fromkeys(model.paths, space)
    unknown = sorted(set(space) - set(model.paths))
    if unknown:
        raise ValueError(
            f"space names {unknown}, which are no parameters; those are {model.paths}."
        )
    return {path: space.get(path, "auto") for path in model.paths}


def _refuse_mixed(model: Model, wanted: Mapping[str, str], sites: Sites) -> None:
    for leaf, mixer in sorted(sites.mixers.items()):
        path = model.paths[leaf]
        if wanted[path] in ("node", "example"):
            raise ValueError(
                f"space={wanted[path]!r} is not valid for the parameter {path!r}: "
                f"{mixing(mixer)}. Noise at its weights, the space 'weights' or "
                "'auto', has no such limit."
            )


def mixing(equation: Equation | None) -> str:
    """Says what brings the noise of one example to the loss of another."""
    if equation is None:
        return "its noise in one example would reach the losses of others"
    return (
        f"{equation.operation} brings its noise in one example to the losses of others"
    )


def _refuse_unfit(model: Model, wanted: Mapping[str, str], sites: Sites) -> None:
    if not any(_floating(model.leaves[i]) for site in sites.sites for i in site.leaves):
        raise ValueError(
            "there is nothing to move: the losses do not depend on any parameter of a "
            f"real floating dtype. The parameters are {model.paths}."
        )
    for site in sites.sites:
        for leaf in site.leaves:
            path = model.paths[leaf]
            if jnp.issubdtype(model.leaves[leaf].dtype, jnp.complexfloating):
                raise ValueError(
                    f"the parameter {path!r} is complex ({model.leaves[leaf].dtype}), "
                    "which node_qiaso does not perturb: hold its real and imaginary "
                    "parts as two parameters, or use qiaso_jax.qiaso."
                )
    in_node_space = {i for s in sites.sites if s.axis is not None for i in s.leaves}
    for leaf, path in enumerate(model.paths):
        asked = wanted[path] in ("node", "example")
        entering = [s.enters for s in sites.sites if leaf in s.leaves]
        if asked and entering and leaf not in in_node_space:
            through = entering[0].operation if entering[0] else "the losses"
            raise ValueError(
                f"space={wanted[path]!r} is not valid for the parameter {path!r}: it "
                f"enters {through}, which is not linear in it. Ask for 'weights' or "
                "'auto' for it, as in space={" + f"{path!r}: 'weights'" + "}."
            )


def _floating(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def _space(
    program: Program,
    sites: Sites,
    site: Site,
    single: Beginning | None,
    demand: Reach,
    wanted: set[str],
    size: int,
) -> str:
    if site.axis is None:
        return "weights"
    named = wanted - {"auto"}
    if len(named) > 1:
        raise ValueError(
            "space asks for both node and example space for parameters that enter at "
            "one site; qiaso_jax.node_sites lists the sites."
        )
    possible = single is not None and _has_example_map(
        program, sites, site, single, demand
    )
    if "node" in named or not possible:
        return "node"
    if "example" in named or _prefers_weights(program, site, size):
        return "example"
    return "node"


def _has_example_map(
    program: Program, sites: Sites, site: Site, single: Beginning, demand: Reach
) -> bool:
    """Whether the weights of every example can be moved for themselves.

    What else enters on the way to the site has to be apart by example, or shared.
    """
    steps = chain_to(program, sites, site)
    if not all(equation in single.equations for equation, _ in steps):
        return False
    return all(
        v in single.variables
        and (
            not isinstance(demand.variables.get(v), Mixed)
            or v.aval.shape == single.variables[v].aval.shape
        )
        for v in data_of(program, steps)
    )


def _prefers_weights(program: Program, site: Site, size: int) -> bool:
    """Whether noise at the weights of each example tells more than at its nodes.

    Of two ways to move the nodes as far, the one with fewer independent directions has
    the estimate of less variance, in proportion to their numbers: those of the weights
    and of the reactive nodes, in all iterations of a loop. Which nodes react is not
    known before the function runs; half are assumed to. In recurrent networks all do,
    and noise at weights that are used again and again was measured to be the better
    down to half as many nodes as weights.
    """
    if site.axis is None:
        return False
    nodes_per_weight = 0.5 if site.loops else 2
    weights = sum(program.inputs[leaf].aval.size for leaf in site.leaves)
    return nodes_per_weight * weights <= nodes_per_example(site, size)
