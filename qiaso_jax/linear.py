"""The linear maps from parameters to the sites that they enter, and back.

Only the equations of one affine chain are evaluated here, with all else as in a clean
pass; what is constant is left out, so that an affine chain becomes a linear map.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from qiaso_jax.interpret import (
    MIXED,
    Environment,
    ExampleAxis,
    Program,
    bind,
    is_literal,
)
from qiaso_jax.sites import PATCHWORK, SUMS, Site, Sites

_KINDS = {
    "dot_general": "product",
    "conv_general_dilated": "convolution",
    "gather": "embedding",
    "add": "bias",
    "add_any": "bias",
    "sub": "bias",
    "mul": "scaling",
    "div": "scaling",
}


def _segment(program: Program, sites: Sites, site: Site) -> list[int]:
    """Indices of the equations of the affine chain that ends in a site."""
    segment, wanted = [], {site.variable}
    for index in range(len(program.equations) - 1, -1, -1):
        equation = program.equations[index]
        if index in sites.carried and wanted.intersection(equation.outvars):
            segment.append(index)
            wanted.update(equation.invars[p] for p in sites.carried[index])
    return segment[::-1]


def _moving(
    program: Program, sites: Sites, site: Site, leaf: int
) -> list[tuple[int, frozenset[int]]]:
    """The equations that parameter ``leaf`` goes through, and in which operands."""
    reached, moving = {program.parameters[leaf]}, []
    for index in _segment(program, sites, site):
        equation = program.equations[index]
        positions = frozenset(
            p for p in sites.carried[index] if equation.invars[p] in reached
        )
        if positions:
            moving.append((index, positions))
            reached.update(equation.outvars)
    return moving


def kind(program: Program, sites: Sites, site: Site, leaf: int) -> str:
    """How parameter ``leaf`` enters: the first operation that involves more than it."""
    for index, _ in _moving(program, sites, site, leaf):
        name = program.equations[index].primitive.name
        if name in _KINDS:
            return _KINDS[name]
    return "weights" if site.axis is None else "linear"


def linear_map(
    program: Program, sites: Sites, site: Site, leaf: int
) -> Callable[[Any, Callable[[Any], Any]], Any]:
    """The linear map parameter ``leaf`` → v, all else as in a clean pass.

    Args:
      program: a flattened function.
      sites: of ``program``.
      site: one of them.
      leaf: index of the parameter.

    Returns:
      A function of an array like the parameter and of a function that returns the
      clean value of a variable or literal.
    """
    moving = _moving(program, sites, site, leaf)

    def apply(weights, read):
        env = {program.parameters[leaf]: weights}
        for index, positions in moving:
            equation = program.equations[index]
            name, (output,) = equation.primitive.name, equation.outvars
            moved = {p: env[equation.invars[p]] for p in positions}
            if name in SUMS:
                # What is constant is left out of a linear map.
                signs = {0: 1, 1: -1 if name == "sub" else 1}
                first, *rest = (
                    jnp.broadcast_to(value, output.aval.shape) * signs[p]
                    for p, value in moved.items()
                )
                env[output] = sum(rest, first)
                continue
            operands = [
                moved[p] if p in moved else read(atom)
                for p, atom in enumerate(equation.invars)
            ]
            if name in PATCHWORK:
                operands = [
                    operand
                    if p in moved or (name == "select_n" and p == 0)
                    else jnp.zeros_like(operand)
                    for p, operand in enumerate(operands)
                ]
            (env[output],) = bind(equation, operands)
        return env[site.variable]

    return apply


def pull_back(
    program: Program,
    sites: Sites,
    site: Site,
    leaf: int,
    cotangent: jax.Array,
    clean: Environment,
) -> jax.Array:
    """Brings what is known about v back to one parameter, by the transpose.

    Args:
      program: a flattened function.
      sites: of ``program``.
      site: one of them.
      leaf: index of the parameter, one of ``site.leaves``.
      cotangent: an array like v.
      clean: the values of all variables.

    Returns:
      An array like the parameter.
    """
    aval = program.parameters[leaf].aval
    apply = linear_map(program, sites, site, leaf)
    transpose = jax.linear_transpose(
        lambda weights: apply(weights, clean.read),
        jax.ShapeDtypeStruct(aval.shape, aval.dtype),
    )
    (result,) = transpose(cotangent.astype(site.variable.aval.dtype))
    return result


def by_example(value: jax.Array, where: ExampleAxis, size: int) -> jax.Array:
    """Brings the examples to a leading axis; ``repeats`` is left where they were."""
    axis, repeats = where
    shape = value.shape
    split = value.reshape(*shape[:axis], size, repeats, *shape[axis + 1 :])
    return jnp.moveaxis(split, axis, 0)


def from_examples(value: jax.Array, where: ExampleAxis) -> jax.Array:
    """The inverse of ``by_example``."""
    axis, repeats = where
    split = jnp.moveaxis(value, 0, axis)
    shape = split.shape
    return split.reshape(*shape[:axis], shape[axis] * repeats, *shape[axis + 2 :])


def example_map(
    program: Program,
    single: Program,
    sites: Sites,
    site: Site,
    leaf: int,
    clean: Environment,
    size: int,
) -> Callable[[jax.Array], jax.Array]:
    """The linear map of the weights of every example for itself, ``[b, *leaf]`` → v.

    Args:
      program: a flattened function of ``size`` examples.
      single: the same function of one example.
      sites: of ``program``.
      site: one of them, in node space.
      leaf: index of the parameter, one of those of the site.
      clean: the values of all variables of ``program``.
      size: b, the number of examples.

    Returns:
      The map.
    """
    where_out = site.axis
    assert where_out is not None
    twins = _twins(program, single)
    moving = _moving(program, sites, site, leaf)
    rows: dict[Any, jax.Array] = {}
    shared: dict[Any, Any] = {}
    for position, positions in moving:
        equation = program.equations[position]
        for p, atom in enumerate(equation.invars):
            if p in positions or is_literal(atom) or atom not in twins:
                continue
            where = program.example_axes.get(atom)
            if where is None:
                shared[twins[atom]] = clean[atom]
            else:
                rows[twins[atom]] = by_example(clean[atom], where, size)
    twin_site = site._replace(variable=twins[site.variable])
    apply = linear_map(single, sites, twin_site, leaf)

    names = list(rows)

    def of_one(weights, row):
        env = Environment({**single.constants, **shared})
        env.update(zip(names, row, strict=True))
        return apply(weights, env.read)

    def of_all(weights):
        return from_examples(jax.vmap(of_one)(weights, list(rows.values())), where_out)

    return of_all


def has_example_map(
    program: Program, single: Program, sites: Sites, site: Site, leaf: int
) -> bool:
    """Whether ``example_map`` can be made.

    Both programs have to be the same up to the site, and no operand to mix examples.
    """
    twins = _twins(program, single)
    return site.variable in twins and all(
        is_literal(atom)
        or atom in program.constants
        or (atom in twins and program.example_axes.get(atom) != MIXED)
        for index, _ in _moving(program, sites, site, leaf)
        for atom in program.equations[index].invars
    )


def _twins(program: Program, single: Program) -> dict[Any, Any]:
    """The variables of ``single`` for those of ``program``, as far as they agree."""
    twins = dict(zip(program.parameters, single.parameters, strict=True))
    twins.update(zip(program.batch, single.batch, strict=True))
    for equation, twin in zip(program.equations, single.equations, strict=False):
        if equation.primitive.name != twin.primitive.name:
            break
        twins.update(zip(equation.outvars, twin.outvars, strict=True))
    return twins
