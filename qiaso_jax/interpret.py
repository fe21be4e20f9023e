"""A JAX function as one flat list of primitive equations, with its example axes.

Calls (``jit``, ``custom_jvp``, ``custom_vjp``, ``remat``) are inlined, and scans over
parameters unrolled, so that everything downstream deals with plain primitives. Custom
derivative rules are dropped unread: nothing here is ever differentiated.

Which axis of an intermediate array counts the examples is read off two traces, at two
sizes of the batch: it is the axis that differs.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core as jex

MAX_UNROLLED_LENGTH = 64
"""Scans over parameters are unrolled up to this many iterations."""

_CALLS = frozenset(
    [
        "checkpoint",
        "closed_call",
        "core_call",
        "custom_jvp_call",
        "custom_vjp_call",
        "custom_vjp_call_jaxpr",
        "jit",
        "pjit",
        "remat",
        "remat2",
    ]
)


ELEMENTWISE = frozenset(
    [
        "abs",
        "acos",
        "acosh",
        "add",
        "add_any",
        "and",
        "asin",
        "asinh",
        "atan",
        "atan2",
        "atanh",
        "cbrt",
        "ceil",
        "clamp",
        "convert_element_type",
        "copy",
        "copy_p",
        "cos",
        "cosh",
        "digamma",
        "div",
        "eq",
        "erf",
        "erf_inv",
        "erfc",
        "exp",
        "exp2",
        "expm1",
        "floor",
        "ge",
        "gt",
        "integer_pow",
        "is_finite",
        "le",
        "lgamma",
        "log",
        "log1p",
        "logistic",
        "lt",
        "max",
        "min",
        "mul",
        "ne",
        "neg",
        "nextafter",
        "not",
        "or",
        "pow",
        "reduce_precision",
        "rem",
        "round",
        "rsqrt",
        "select_n",
        "sign",
        "sin",
        "sinh",
        "sqrt",
        "square",
        "stop_gradient",
        "sub",
        "tan",
        "tanh",
        "xor",
    ]
)
"""Primitives that make of entries at one position the entry at that position."""

_BY_EXAMPLE = ELEMENTWISE | {"broadcast_in_dim", "dot_general", "reshape"}
"""Primitives that do not mix examples where their axis can be followed."""


class ExampleAxis(NamedTuple):
    """Where the examples are: along ``axis``, each in ``repeats`` adjacent entries."""

    axis: int
    repeats: int


MIXED = ExampleAxis(-1, 0)
"""The shape depends on the number of examples, but not one after the other."""


class Program(NamedTuple):
    """A function of parameters and a batch, flattened to equations.

    Attributes:
      equations: in the order of evaluation, without those the losses do not need.
      constants: values of the variables that stand for neither.
      parameters: one variable per leaf of the parameters.
      batch: one variable per leaf that carries the batch.
      losses: the variable, or literal, of the result.
      example_axes: of every variable whose shape depends on the number of examples.
    """

    equations: tuple[Any, ...]
    constants: dict[Any, Any]
    parameters: tuple[Any, ...]
    batch: tuple[Any, ...]
    losses: Any
    example_axes: dict[Any, ExampleAxis]


class Environment(dict):
    """Values of variables; literals read as themselves."""

    def read(self, atom: Any) -> Any:
        """The value of a variable or literal."""
        return atom.val if is_literal(atom) else self[atom]


def is_literal(atom: Any) -> bool:
    """Whether an operand of an equation is a literal and not a variable."""
    return isinstance(atom, jex.Literal)


def bind(equation: Any, operands: Iterable[Any]) -> list[Any]:
    """Evaluates one equation on ``operands``."""
    params = equation.primitive.get_bind_params(equation.params)
    # Some versions of jax return the functions among the parameters apart.
    subfuns, params = params if isinstance(params, tuple) else ((), params)
    outputs = equation.primitive.bind(*subfuns, *operands, **params)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def evaluate(
    program: Program, parameters: Sequence[Any], batch: Sequence[Any]
) -> Environment:
    """The values of all variables of ``program``."""
    env = Environment(program.constants)
    env.update(zip(program.parameters, parameters, strict=True))
    env.update(zip(program.batch, batch, strict=True))
    for equation in program.equations:
        outputs = bind(equation, map(env.read, equation.invars))
        env.update(zip(equation.outvars, outputs, strict=True))
    return env


def evaluate_rows(
    program: Program, whole: Program, values: Environment, rows: jax.Array
) -> Environment:
    """The values of all variables of ``program`` on some examples of a batch.

    What depends on an example alone is looked up among the values of the whole batch,
    up to the first operation that may mix examples; from there on it is evaluated.

    Args:
      program: for b examples.
      whole: the same for B examples.
      values: of all variables of ``whole``.
      rows: indices of the examples, shape ``[b]``.

    Returns:
      The values of the variables of ``program``.
    """
    env = Environment(program.constants)
    same = {
        variable
        for variable, twin in zip(program.constants, whole.constants, strict=False)
        if program.constants[variable] is whole.constants[twin]
    }

    def look_up(variable: Any, twin: Any) -> None:
        value = values[twin]
        if variable in program.example_axes:
            value = _take(value, rows, program.example_axes[variable])
        env[variable] = value
        same.add(variable)

    for variable, twin in zip(
        program.parameters + program.batch, whole.parameters + whole.batch, strict=True
    ):
        look_up(variable, twin)
    for equation, twin in zip(program.equations, whole.equations, strict=True):
        if _by_example(equation, twin, program.example_axes, same):
            for variable, image in zip(equation.outvars, twin.outvars, strict=True):
                look_up(variable, image)
        else:
            outputs = bind(equation, map(env.read, equation.invars))
            env.update(zip(equation.outvars, outputs, strict=True))
    return env


def _by_example(
    equation: Any, twin: Any, axes: dict[Any, ExampleAxis], same: set[Any]
) -> bool:
    """Whether the outputs can be looked up in ``twin``, of which ``same`` can."""
    for atom, image in zip(equation.invars, twin.invars, strict=True):
        if is_literal(atom):
            if not (is_literal(image) and np.array_equal(atom.val, image.val)):
                return False
        elif atom not in same:
            return False
    variables = [*equation.outvars, *(a for a in equation.invars if not is_literal(a))]
    if not any(v in axes for v in variables):
        return True
    return equation.primitive.name in _BY_EXAMPLE and all(
        axes.get(v, MIXED) != MIXED for v in equation.outvars
    )


def _take(value: jax.Array, rows: jax.Array, where: ExampleAxis) -> jax.Array:
    """The entries of some examples."""
    axis, repeats = where
    entries = jnp.add.outer(rows * repeats, jnp.arange(repeats)).reshape(-1)
    return jnp.take(value, entries, axis, mode="clip")


def _inner_jaxpr(equation: Any) -> Any:
    """The closed jaxpr of a plain call, or None."""
    if equation.primitive.name not in _CALLS:
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = equation.params.get(name)
        if isinstance(inner, jex.ClosedJaxpr):
            return inner
        if isinstance(inner, jex.Jaxpr):
            return jex.ClosedJaxpr(inner, ())
    return None


_Tagged = tuple[Any, bool]
"""A value, and whether it depends on the parameters."""


def _inline(closed: Any, args: Sequence[_Tagged]) -> list[_Tagged]:
    """Evaluates a jaxpr with calls inlined and scans over parameters unrolled."""
    jaxpr = closed.jaxpr
    env: dict[Any, _Tagged] = {
        v: (value, False)
        for v, value in zip(jaxpr.constvars, closed.consts, strict=True)
    }
    env.update(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> _Tagged:
        return (atom.val, False) if is_literal(atom) else env[atom]

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        depends = any(tag for _, tag in operands)
        inner = _inner_jaxpr(equation)
        if inner is not None:
            outputs = _inline(inner, operands)
        elif (
            equation.primitive.name == "scan"
            and depends
            and 0 < equation.params["length"] <= MAX_UNROLLED_LENGTH
        ):
            outputs = _unroll(equation.params, operands)
        else:
            values = bind(equation, (value for value, _ in operands))
            outputs = [(value, depends) for value in values]
        env.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _unroll(params: dict[str, Any], operands: Sequence[_Tagged]) -> list[_Tagged]:
    """Evaluates a scan one iteration after the other."""
    num_consts, num_carry = params["num_consts"], params["num_carry"]
    consts = list(operands[:num_consts])
    carry = list(operands[num_consts : num_consts + num_carry])
    stacked = operands[num_consts + num_carry :]
    order = range(params["length"])
    rows: dict[int, list[_Tagged]] = {}
    for i in reversed(order) if params["reverse"] else order:
        slices = [(jax.lax.index_in_dim(x, i, 0, False), tag) for x, tag in stacked]
        outputs = _inline(params["jaxpr"], [*consts, *carry, *slices])
        carry, rows[i] = outputs[:num_carry], outputs[num_carry:]
    results = [
        (jnp.stack([value for value, _ in column]), any(tag for _, tag in column))
        for column in zip(*(rows[i] for i in order), strict=True)
    ]
    return [*carry, *results]


def _resized(leaves: Sequence[Any], size: int) -> list[jax.ShapeDtypeStruct]:
    """The shapes of ``leaves`` with ``size`` examples along their first axis."""
    return [jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype) for x in leaves]


def flatten(
    fun: Callable[[Sequence[Any], Sequence[Any]], Any],
    parameters: Sequence[Any],
    batch: Sequence[Any],
    size: int,
) -> Program:
    """As ``trace``, without finding the example axes."""
    parameters = [jax.ShapeDtypeStruct(p.shape, p.dtype) for p in parameters]
    batch = _resized(batch, size)
    closed = jax.make_jaxpr(fun)(parameters, batch)
    tags = [True] * len(parameters) + [False] * len(batch)

    def inlined(*args):
        ((losses, _),) = _inline(closed, list(zip(args, tags, strict=True)))
        return losses

    flat = jax.make_jaxpr(inlined)(*parameters, *batch)
    jaxpr = flat.jaxpr
    losses = jaxpr.outvars[0]
    if losses.aval.shape != (size,):
        raise ValueError(
            f"it returns losses of shape {losses.aval.shape} for {size} examples"
        )
    needed, kept = {losses} if not is_literal(losses) else set(), []
    for equation in reversed(jaxpr.eqns):
        if needed.intersection(equation.outvars):
            kept.append(equation)
            needed.update(a for a in equation.invars if not is_literal(a))
    return Program(
        equations=tuple(reversed(kept)),
        constants=dict(zip(jaxpr.constvars, flat.consts, strict=True)),
        parameters=tuple(jaxpr.invars[: len(parameters)]),
        batch=tuple(jaxpr.invars[len(parameters) :]),
        losses=losses,
        example_axes={},
    )


def trace(
    fun: Callable[[Sequence[Any], Sequence[Any]], Any],
    parameters: Sequence[Any],
    batch: Sequence[Any],
    size: int,
    other_size: int,
) -> tuple[Program, Program]:
    """Flattens ``fun(parameters, batch) -> losses`` at two sizes of the batch.

    Args:
      fun: takes two lists of arrays; the second carries the batch along first axes.
      parameters: arrays or their shapes.
      batch: arrays or their shapes.
      size: b, the number of examples to trace for, ≥ 1.
      other_size: another number of examples, larger than b.

    Returns:
      The program for b examples, with its example axes, and the one for the other
      number, without.

    Raises:
      ValueError: if the computation is another one at another size of the batch.
    """
    program = flatten(fun, parameters, batch, size)
    other = flatten(fun, parameters, batch, other_size)
    axes = _example_axes(program, other, size, other_size)
    return program._replace(example_axes=axes), other


def _example_axes(
    program: Program, other: Program, size: int, other_size: int
) -> dict[Any, ExampleAxis]:
    """Finds the axes of ``program`` that are longer in ``other``."""
    names = [e.primitive.name for e in program.equations]
    if names != [e.primitive.name for e in other.equations]:
        raise ValueError(
            "value_fn must compute the same for any number of examples, to tell which "
            f"axes count them; its operations for {size} and {other_size} examples "
            "differ."
        )
    axes: dict[Any, ExampleAxis] = {v: ExampleAxis(0, 1) for v in program.batch}
    for equation, twin in zip(program.equations, other.equations, strict=True):
        for variable, image in zip(equation.outvars, twin.outvars, strict=True):
            shapes = variable.aval.shape, image.aval.shape
            found = _longer_axis(*shapes, size, other_size)
            if found is not None:
                axes[variable] = _followed(equation, variable, found, axes)
    return axes


def _longer_axis(
    shape: tuple[int, ...], other: tuple[int, ...], size: int, other_size: int
) -> ExampleAxis | None:
    if shape == other:
        return None
    if len(shape) != len(other):
        return MIXED
    differing = [i for i, (a, b) in enumerate(zip(shape, other, strict=True)) if a != b]
    (axis, *more) = differing
    repeats = shape[axis] // size
    if more or (repeats * size, repeats * other_size) != (shape[axis], other[axis]):
        return MIXED
    return ExampleAxis(axis, repeats)


def _followed(
    equation: Any, variable: Any, found: ExampleAxis, axes: dict[Any, ExampleAxis]
) -> ExampleAxis:
    """``found``, unless the equation may have shuffled the examples."""
    sources = [
        (atom.aval.shape, axes[atom])
        for atom in equation.invars
        if not is_literal(atom) and atom in axes
    ]
    if found == MIXED or any(axis == MIXED for _, axis in sources):
        return MIXED
    for shape, source in sources:
        if equation.primitive.name == "reshape":
            # The entries of one example stay adjacent if as many blocks lie before.
            before = math.prod(shape[: source.axis])
            if before != math.prod(variable.aval.shape[: found.axis]):
                return MIXED
        elif source.repeats != found.repeats:
            return MIXED
    return found
