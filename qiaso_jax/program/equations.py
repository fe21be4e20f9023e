"""Programs: flat lists of equations between variables, and their evaluation.

A ``scan`` keeps its body, as a program of its own, and stays a loop.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from qiaso_jax import _varying
from qiaso_jax.program import compat, positions


@dataclasses.dataclass(frozen=True, eq=False)
class Variable:
    """A variable of a program, known by its identity.

    Attributes:
      aval: its shape and dtype.
    """

    aval: Any


@dataclasses.dataclass(frozen=True, eq=False)
class Literal:
    """An operand whose value is written into the equation.

    Attributes:
      val: the value.
      aval: its shape and dtype.
    """

    val: Any
    aval: Any


Atom = Variable | Literal


@dataclasses.dataclass(frozen=True, eq=False)
class Equation:
    """One operation, known by its identity.

    Attributes:
      primitive: what is computed.
      params: its parameters.
      inputs: its operands.
      outputs: its results.
      source: the line of the user's code, as ``file.py:12``.
      loop: the body, if it is a ``scan``.
      bodies: the branches of a ``cond``; condition and body of a ``while``.
      columns: of the indices of a ``gather`` or ``scatter``, as far as known.
      has_effects: whether it is kept for what it does beside its results.
    """

    primitive: Any
    params: dict[str, Any]
    inputs: tuple[Atom, ...]
    outputs: tuple[Variable, ...]
    source: str = ""
    loop: "Loop | None" = None
    bodies: tuple["Program", ...] = ()
    columns: positions.Columns = ()
    has_effects: bool = False

    @property
    def name(self) -> str:
        """Of the primitive."""
        return self.primitive.name

    @property
    def operation(self) -> str:
        """The name, with where it is in the user's code."""
        where = f" ({self.source})" if self.source else ""
        return f"{self.name}{where}"

    @property
    def inner(self) -> tuple["Program", ...]:
        """The programs within: the body of a loop, or all bodies."""
        return self.bodies if self.loop is None else (self.loop.body,)


@dataclasses.dataclass(frozen=True, eq=False)
class Program:
    """A function, flattened.

    Attributes:
      inputs: its arguments.
      equations: in the order of evaluation, without those that nothing needs.
      constants: values of the variables that stand for neither.
      outputs: its results.
      known: values of integer variables that depend on no input.
    """

    inputs: tuple[Variable, ...]
    equations: tuple[Equation, ...]
    constants: dict[Variable, Any]
    outputs: tuple[Atom, ...]
    known: dict[Variable, np.ndarray]


class Loop(NamedTuple):
    """A ``scan``, whose body takes constants, carry and slices.

    Its results are the carry again, and slices of what is stacked up.
    """

    body: Program
    num_constants: int
    num_carry: int
    length: int
    reverse: bool

    def apart(self, values: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        """What belongs to constants, carry and stacked operands."""
        end = self.num_constants + self.num_carry
        return (
            list(values[: self.num_constants]),
            list(values[self.num_constants : end]),
            list(values[end:]),
        )


class Environment(dict):
    """Values of variables; literals read as themselves."""

    def read(self, atom: Atom) -> Any:
        """The value of a variable or literal."""
        return atom.val if isinstance(atom, Literal) else self[atom]


jax.tree_util.register_pytree_node(
    Environment,
    lambda env: (tuple(env.values()), tuple(env)),
    lambda names, values: Environment(zip(names, values, strict=True)),
)


def bind(equation: Equation, operands: Iterable[Any]) -> list[Any]:
    """Evaluates one equation on ``operands``."""
    if equation.loop is not None:
        body = equation.loop.body
        return scan(
            equation.loop,
            lambda constants, carry, slices: run(body, [*constants, *carry, *slices]),
            list(operands),
        )
    return compat.bind(equation.primitive, equation.params, operands)


def scan(
    loop: Loop,
    body: Callable[[list[Any], list[Any], list[Any]], list[Any]],
    operands: Sequence[Any],
) -> list[Any]:
    """``loop`` with another body of the same operands and results."""
    constants, carry, stacked = loop.apart(_varying.together([*operands]))

    def step(carry, slices):
        outputs = body(constants, list(carry), list(slices))
        return outputs[: loop.num_carry], outputs[loop.num_carry :]

    carry, results = jax.lax.scan(
        step, carry, stacked, length=loop.length, reverse=loop.reverse
    )
    return [*carry, *results]


def evaluate(program: Program, args: Sequence[Any]) -> Environment:
    """The values of all variables of ``program``, those within loops excepted."""
    env = Environment(program.constants)
    env.update(zip(program.inputs, args, strict=True))
    for equation in program.equations:
        outputs = bind(equation, map(env.read, equation.inputs))
        env.update(zip(equation.outputs, outputs, strict=True))
    return env


def run(program: Program, args: Sequence[Any]) -> list[Any]:
    """The results of ``program``."""
    return list(map(evaluate(program, args).read, program.outputs))


def variables_of(atoms: Iterable[Atom]) -> Iterator[Variable]:
    """Those that are no literals."""
    return (atom for atom in atoms if isinstance(atom, Variable))
