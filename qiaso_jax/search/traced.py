"""Functions known by what they compute, whatever arrays they close over.

A search is compiled for a function that may be another object in the next call, and may
close over other arrays. Traced again, which is quick, it is equal to the one before if
all its operations are; the arrays are operands.
"""

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.core import Tracer
from jax.extend import core as jex

from qiaso_jax.program import compat

_RULES = ("jvp", "jvp_jaxpr_fun", "fwd", "fwd_jaxpr_thunk", "bwd")
"""Of derivatives, which a search takes none of."""


class Traced:
    """A function of arrays; equal to another of the same operations.

    Attributes:
      key: what is compared, ``None`` if that cannot be told.
    """

    key: Hashable

    def __init__(self, jaxpr: Any, treedef: Any):
        """Of a jaxpr, and the structure of its results."""
        self._jaxpr, self._treedef = jaxpr, treedef
        try:
            self.key = (frozen(jaxpr), treedef)
        except _UnknownError:
            self.key = None

    def __call__(self, constants: list[Any], *args: Any) -> Any:
        """Its results for what it closes over, and for its arguments."""
        leaves = jax.tree.leaves((constants, args))
        own = iter(compat.opened(self._jaxpr)[1])
        return self._treedef.unflatten(_evaluated(self._jaxpr, own, leaves))

    def __eq__(self, other: object) -> bool:
        """Whether the other one computes the same."""
        if self is other or not isinstance(other, Traced):
            return self is other
        return self.key is not None and self.key == other.key

    def __hash__(self) -> int:
        """Alike for equal ones."""
        return hash(self.key)


def traced(fun: Callable[..., Any], *args: Any) -> tuple[Traced, list[Any]]:
    """``fun`` as it is for arguments like ``args``, and the arrays it closes over."""
    # JAX keeps what it has traced of an object, which may close over more by now.
    fun = partial(fun)
    closed, shapes = jax.make_jaxpr(fun, return_shape=True)(*args)
    constants = list(_constants(closed))

    def opened(constants, leaves):
        return _evaluated(closed, iter(constants), leaves)

    jaxpr, _ = compat.opened(closed)
    whole = jax.make_jaxpr(opened)(constants, [v.aval for v in jaxpr.invars])
    return Traced(whole, jax.tree.structure(shapes)), constants


def _constants(closed: Any) -> Iterator[Any]:
    """What a jaxpr closes over, and then what those close over that it calls."""
    jaxpr, constants = compat.opened(closed)
    yield from constants
    for equation in jaxpr.eqns:
        called = compat.called(equation)
        if called is not None:
            yield from _constants(called)


def _evaluated(closed: Any, constants: Iterator[Any], operands: Any) -> list[Any]:
    """The results of a jaxpr, without calls of those that close over constants.

    Args:
      closed: the jaxpr.
      constants: as ``_constants`` gives them.
      operands: its own.
    """
    jaxpr, _ = compat.opened(closed)
    env = {variable: next(constants) for variable in jaxpr.constvars}
    env |= zip(jaxpr.invars, operands, strict=True)

    def read(atom):
        return atom.val if compat.is_literal(atom) else env[atom]

    for equation in jaxpr.eqns:
        inputs = [read(atom) for atom in equation.invars]
        called = compat.called(equation)
        if called is None or next(_constants(called), None) is None:
            _, configured = compat.configuration(equation)
            with configured:
                outputs = compat.bind(equation.primitive, equation.params, inputs)
        else:
            outputs = _evaluated(called, constants, inputs)
        env |= zip(equation.outvars, outputs, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


class _UnknownError(Exception):
    """Something that cannot be compared."""


def _program(jaxpr: Any) -> Hashable:
    """A jaxpr in numbers for its variables."""
    if jaxpr.effects:
        raise _UnknownError
    numbers: dict[Any, int] = {}

    def named(variables):
        for variable in variables:
            numbers[variable] = len(numbers)
        return tuple(variable.aval for variable in variables)

    def read(atom):
        if compat.is_literal(atom):
            return frozen(atom.val), atom.aval
        return numbers[atom]

    first = named(jaxpr.constvars), named(jaxpr.invars)
    equations = tuple(
        (
            equation.primitive,
            tuple(
                (name, frozen(value))
                for name, value in sorted(equation.params.items())
                if name not in _RULES
            ),
            compat.configuration(equation)[0],
            tuple(map(read, equation.invars)),
            named(equation.outvars),
        )
        for equation in jaxpr.eqns
    )
    return first, equations, tuple(map(read, jaxpr.outvars))


def frozen(value: Any) -> Hashable:
    """Equal for values that are alike in type and in every bit."""
    if isinstance(value, jex.ClosedJaxpr | jex.Jaxpr):
        jaxpr, constants = compat.opened(value)
        return _program(jaxpr), frozen(tuple(constants))
    if isinstance(value, tuple | list):
        return type(value), tuple(map(frozen, value))
    if isinstance(value, dict):
        return dict, frozen(tuple(value.items()))
    if isinstance(value, float | complex):
        return type(value), repr(value)
    if isinstance(value, jax.Array | Tracer):
        raise _UnknownError
    if hasattr(value, "__array__"):
        array = np.asarray(value)
        return type(value), array.dtype, array.shape, array.tobytes()
    if not isinstance(value, Hashable):
        raise _UnknownError
    return type(value), value
