"""The same program for a part of a batch, with what is known from the whole of it.

A function is traced for the number of rows, and its equations are those of the whole
program, one by one. What depends on the place of an example in the batch, such as a
dropout mask or batch statistics, is that of the whole batch.
"""

import contextlib
import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qiaso_jax.program.axes import ExampleAxis, Reach, Use
from qiaso_jax.program.equations import (
    Atom,
    Environment,
    Equation,
    Literal,
    Loop,
    Program,
    Variable,
    variables_of,
)
from qiaso_jax.program.sites import Site, Sites


class Differs(ValueError):
    """The computation is another one for another number of examples."""


@dataclasses.dataclass(frozen=True, eq=False)
class Twin:
    """A program for other many examples, and what is what in it.

    Attributes:
      program: for b examples.
      variables: those of ``program`` by those of the whole.
      equations: likewise.
      sites: those of the whole, in ``program``.
    """

    program: Program
    variables: Mapping[Variable, Variable]
    equations: Mapping[Equation, Equation]
    sites: Sites


def twin(whole: Program, part: Program, sites: Sites) -> Twin:
    """Finds the equations of ``whole`` in ``part``, the same traced for b examples.

    Numbers that are written into the function, such as a division by the number of
    examples, are those of ``whole``.

    Raises:
      Differs: if they are not the same equations.
    """
    pairing = _Pairing()
    program = pairing.program(whole, part)
    return Twin(
        program, pairing.variables, pairing.equations, pairing.translated(sites)
    )


class Beginning(NamedTuple):
    """As much of a program as is the same for other many examples.

    Attributes:
      program: for those.
      variables: those of ``program`` by those of the whole.
      equations: likewise.
      loops: by their bodies in the whole.
    """

    program: Program
    variables: Mapping[Variable, Variable]
    equations: Mapping[Equation, Equation]
    loops: Mapping[Program, Loop]


def beginning(whole: Program, part: Program) -> Beginning:
    """What ``whole`` and ``part`` have in common up to where they part."""
    pairing = _Pairing()
    with contextlib.suppress(Differs):
        pairing.program(whole, part)  # what is paired before that stands
    images = (pairing.equations.get(equation) for equation in whole.equations)
    program = dataclasses.replace(
        part, equations=tuple(e for e in images if e is not None), outputs=()
    )
    return Beginning(program, pairing.variables, pairing.equations, pairing.loops)


class _Pairing:
    def __init__(self):
        self.variables: dict[Variable, Variable] = {}
        self.equations: dict[Equation, Equation] = {}
        self._programs: dict[Program, Program] = {}
        self.loops: dict[Program, Loop] = {}

    def program(self, whole: Program, part: Program) -> Program:
        self._pair(whole.inputs, part.inputs)
        self._pair(whole.constants, part.constants)
        equations = tuple(map(self._equation, whole.equations, part.equations))
        if len(whole.equations) != len(part.equations):
            raise Differs("its operations are others for another number of examples")
        program = Program(
            inputs=part.inputs,
            equations=equations,
            constants={
                v: _value(whole.constants[image], part.constants[v])
                for image, v in zip(whole.constants, part.constants, strict=True)
            },
            outputs=tuple(map(_operand, whole.outputs, part.outputs)),
            known=part.known,
        )
        self._programs[whole] = program
        return program

    def _pair(self, whole: Collection[Variable], part: Collection[Variable]) -> None:
        if len(whole) != len(part):
            raise Differs("its constants are others for another number of examples")
        self.variables.update(zip(whole, part, strict=True))

    def _equation(self, whole: Equation, part: Equation) -> Equation:
        names = whole.name, len(whole.inputs), len(whole.bodies)
        if names != (part.name, len(part.inputs), len(part.bodies)):
            raise Differs("its operations are others for another number of examples")
        loop = part.loop
        if loop is not None and whole.loop is not None:
            loop = loop._replace(body=self.program(whole.loop.body, loop.body))
            self.loops[whole.loop.body] = loop
        self._pair(whole.outputs, part.outputs)
        equation = dataclasses.replace(
            part,
            inputs=tuple(map(_operand, whole.inputs, part.inputs)),
            loop=loop,
            bodies=tuple(map(self.program, whole.bodies, part.bodies)),
        )
        self.equations[whole] = equation
        return equation

    def translated(self, sites: Sites) -> Sites:
        return dataclasses.replace(
            sites,
            sites=tuple(map(self._site, sites.sites)),
            carried={self.equations[e]: p for e, p in sites.carried.items()},
            cut=frozenset(self.equations[e] for e in sites.cut),
            statistics=frozenset(self.equations[e] for e in sites.statistics),
        )

    def _site(self, site: Site) -> Site:
        return dataclasses.replace(
            site,
            variable=self.variables[site.variable],
            uses=frozenset(map(self._use, site.uses)),
            loops=tuple(self.loops[loop.body] for loop in site.loops),
            enters=site.enters and self.equations[site.enters],
        )

    def _use(self, use: Use) -> Use:
        owner, position = use
        if isinstance(owner, Program):
            return self._programs[owner], position
        return self.equations[owner], position


def _operand(whole: Atom, part: Atom) -> Atom:
    if isinstance(whole, Variable) and isinstance(part, Variable):
        return part
    if isinstance(whole, Literal) and isinstance(part, Literal):
        return Literal(_value(whole.val, part.val), part.aval)
    raise Differs("its constants are others for another number of examples")


def _value(whole: Any, part: Any) -> Any:
    """Of a constant; integers may be indices, which count the rows of the part."""
    floating = jnp.issubdtype(getattr(part, "dtype", type(part)), jnp.inexact)
    return whole if floating and np.shape(whole) == np.shape(part) else part


def by_example(value: jax.Array, where: ExampleAxis, size: int) -> jax.Array:
    """Brings the examples to a leading axis; what is left of theirs stays in place."""
    axis, repeats = where
    shape = value.shape
    split = value.reshape(*shape[:axis], -1, size, repeats, *shape[axis + 1 :])
    rows = jnp.moveaxis(split, axis + 1, 0)
    return rows.reshape(size, *shape[:axis], -1, *shape[axis + 1 :])


def from_examples(value: jax.Array, where: ExampleAxis) -> jax.Array:
    """The inverse of ``by_example``."""
    axis, repeats = where
    size, *shape = value.shape
    split = value.reshape(size, *shape[:axis], -1, repeats, *shape[axis + 1 :])
    rows = jnp.moveaxis(split, 0, axis + 1)
    return rows.reshape(*shape[:axis], shape[axis] * size, *shape[axis + 1 :])


def taken(
    value: jax.Array, where: ExampleAxis, size: int, rows: jax.Array
) -> jax.Array:
    """The entries of some of ``size`` examples."""
    axis, repeats = where
    starts = np.arange(0, value.shape[axis], size * repeats)
    entries = starts[:, None, None] + rows[None, :, None] * repeats
    entries = entries + np.arange(repeats)[None, None]
    return jnp.take(value, entries.reshape(-1), axis, mode="clip")


def looked_up(
    whole: Program,
    part: Twin,
    wanted: Iterable[Variable],
    demand: Reach,
    size: int,
    values: Environment,
    rows: jax.Array,
) -> tuple[dict[Variable, Any], set[Equation]]:
    """What is known of ``part`` once ``whole`` has been evaluated.

    Args:
      whole: for B examples.
      part: for b examples.
      wanted: the variables of ``part`` whose values are needed.
      demand: whose losses the values of the variables of ``whole`` are needed for.
      size: B.
      values: of all variables of ``whole``.
      rows: indices of the examples, ``[b]``.

    Returns:
      Values of variables of ``part``, and the equations that have to be evaluated for
      those wanted that are not among them.
    """
    images = {part.variables[v]: v for v in values if v in part.variables}
    counting = _counting(part.program)
    found: dict[Variable, Any] = {}
    needed: set[Equation] = set()
    missing = set(wanted)

    def look_up(variable: Variable) -> bool:
        image = images.get(variable)
        if image is None or variable in counting:
            return False
        where, value = demand.variables.get(image), values[image]
        if isinstance(where, ExampleAxis):
            found[variable] = taken(value, where, size, rows)
        elif jnp.shape(value) == variable.aval.shape:
            found[variable] = value
        return variable in found

    for equation in reversed(part.program.equations):
        known = [look_up(v) for v in equation.outputs if v in missing]
        if not all(known):
            needed.add(equation)
            missing.update(variables_of(equation.inputs))
    for variable in part.program.constants:
        if variable in missing:
            look_up(variable)
    return found, needed


def _counting(program: Program) -> set[Variable]:
    """Integers made of known ones: they count the rows of the program itself."""
    found = set(program.known)
    for equation in program.equations:
        if any(v in found for v in variables_of(equation.inputs)):
            found.update(
                v for v in equation.outputs if jnp.issubdtype(v.aval.dtype, jnp.integer)
            )
    return found


def nodes_per_example(site: Site, size: int) -> int:
    """Size of v, over all iterations, divided by the number of examples."""
    return math.prod(site.shape) // size
