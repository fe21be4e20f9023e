"""A JAX function as a program, with loops that stay loops.

Calls (``jit``, ``custom_jvp``, ``custom_vjp``, ``remat``) are inlined at every level.
Custom derivative rules are dropped unread: nothing here is ever differentiated. A
``scan`` keeps its body; what the body computes from constants alone is moved out of it,
and what it carries along unchanged is a constant.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from qiaso_jax.program import compat, positions
from qiaso_jax.program.equations import (
    Atom,
    Equation,
    Literal,
    Loop,
    Program,
    Variable,
    variables_of,
)


def flatten(
    fun: Callable[..., Sequence[Any]], *args: Any, effects: bool = False
) -> Program:
    """Traces and flattens a function of arrays, whose results are a list of arrays.

    Args:
      fun: the function.
      *args: what it is traced with.
      effects: whether to keep what has effects beside its results, such as printing,
        where no result needs it.
    """
    return _program(jax.make_jaxpr(fun)(*args), effects)


def _program(jaxpr: Any, effects: bool) -> Program:
    jaxpr, values = compat.opened(jaxpr)
    inputs = tuple(Variable(v.aval) for v in jaxpr.invars)
    build = _Builder(dict(zip(jaxpr.invars, inputs, strict=True)), effects)
    outputs = build.inline(jaxpr, values)
    return Program(
        inputs=inputs,
        equations=_needed(build.equations, outputs),
        constants=build.constants,
        outputs=tuple(outputs),
        known=build.known,
    )


def _needed(equations: list[Equation], outputs: Iterable[Atom]) -> tuple[Equation, ...]:
    """Those that the outputs are made of, or that do something beside."""
    wanted, kept = set(variables_of(outputs)), []
    for equation in reversed(equations):
        if equation.has_effects or wanted.intersection(equation.outputs):
            kept.append(equation)
            wanted.update(variables_of(equation.inputs))
    return tuple(reversed(kept))


class _Builder:
    """Collects the equations of one level, with variables of our own."""

    def __init__(self, env: dict[Any, Atom], effects: bool):
        self.equations: list[Equation] = []
        self.constants: dict[Variable, Any] = {}
        self.known: dict[Variable, np.ndarray] = {}
        self._columns: dict[Variable, positions.Columns] = {}
        self._env = env
        self._effects = effects
        self._source = ""

    def inline(self, jaxpr: Any, values: Sequence[Any]) -> list[Atom]:
        """Adds the equations of a jaxpr whose arguments are known already."""
        for variable, value in zip(jaxpr.constvars, values, strict=True):
            constant = Variable(variable.aval)
            self.constants[constant] = value
            self._env[variable] = constant
            self._know(constant, positions.constant(value))
        for equation in jaxpr.eqns:
            self._add(equation)
        return [self._read(atom) for atom in jaxpr.outvars]

    def _read(self, atom: Any) -> Atom:
        if compat.is_literal(atom):
            return Literal(atom.val, atom.aval)
        return self._env[atom]

    def _add(self, equation: Any) -> None:
        inputs = [self._read(atom) for atom in equation.invars]
        inner = compat.called(equation)
        if inner is not None:
            jaxpr, values = compat.opened(inner)
            # The jaxpr of a function that is called twice is one and the same.
            outer = self._env, self._source
            self._env = dict(zip(jaxpr.invars, inputs, strict=True))
            self._source = self._line(equation)
            outputs = self.inline(jaxpr, values)
            self._env, self._source = outer
        elif equation.primitive in _TRANSPARENT:
            outputs = inputs
        elif equation.primitive is compat.primitive("scan"):
            outputs = self._add_loop(equation, inputs)
        else:
            outputs = self._append(
                equation,
                inputs,
                bodies=tuple(_program(b, self._effects) for b in _bodies(equation)),
            )
        self._env.update(zip(equation.outvars, outputs, strict=True))

    def _append(self, equation: Any, inputs: Sequence[Atom], **more: Any) -> list[Atom]:
        outputs = tuple(Variable(v.aval) for v in equation.outvars)
        self.equations.append(
            Equation(
                equation.primitive,
                equation.params,
                tuple(inputs),
                outputs,
                self._line(equation),
                columns=self._indices(equation.primitive, inputs),
                has_effects=self._effects and bool(equation.effects),
                **more,
            )
        )
        self._learn(self.equations[-1])
        return list(outputs)

    def _line(self, equation: Any) -> str:
        # What is traced once and called again and again does not know its caller.
        return compat.source_line(equation) or self._source

    def _know(self, variable: Variable, value: np.ndarray | None) -> None:
        if value is not None:
            self.known[variable] = value

    def _value(self, atom: Atom) -> np.ndarray | None:
        if isinstance(atom, Literal):
            return positions.constant(np.asarray(atom.val))
        return self.known.get(atom)

    def _learn(self, equation: Equation) -> None:
        """Keeps the value of the result, or of its columns, if it is known."""
        if equation.primitive.multiple_results:
            return
        (output,), values = equation.outputs, list(map(self._value, equation.inputs))
        name, params, aval = equation.name, equation.params, output.aval
        self._know(output, positions.result(name, params, values, aval))
        if name == "concatenate" and params["dimension"] == len(aval.shape) - 1:
            self._columns[output] = sum(
                (
                    positions.columns_of(value, atom.aval.shape[-1])
                    for value, atom in zip(values, equation.inputs, strict=True)
                ),
                (),
            )

    def _indices(self, primitive: Any, inputs: Sequence[Atom]) -> positions.Columns:
        if primitive not in _INDEXED:
            return ()
        indices = inputs[1]
        if isinstance(indices, Variable) and indices in self._columns:
            return self._columns[indices]
        return positions.columns_of(self._value(indices), indices.aval.shape[-1])

    def _add_loop(self, equation: Any, inputs: list[Atom]) -> list[Atom]:
        body = _program(equation.params["jaxpr"], self._effects)
        num_constants, num_carry = compat.scan_layout(equation.params)
        loop = Loop(
            body,
            num_constants,
            num_carry,
            equation.params["length"],
            equation.params["reverse"],
        )
        constants, carry, stacked = loop.apart(inputs)
        constant_in, carry_in, stacked_in = loop.apart(body.inputs)
        changed = [
            i for i, variable in enumerate(carry_in) if variable is not body.outputs[i]
        ]
        for i in set(range(num_carry)) - set(changed):
            constants.append(carry[i])
            constant_in.append(carry_in[i])
        within = dict(zip(constant_in, constants, strict=True))
        kept = []
        for inner in body.equations:
            names = list(variables_of(inner.inputs))
            if names and not inner.has_effects and all(v in within for v in names):
                outer = self._moved_out(inner, within)
                constants += outer.outputs
                constant_in += inner.outputs
                within.update(zip(inner.outputs, outer.outputs, strict=True))
            else:
                kept.append(inner)
        results = [*(body.outputs[i] for i in changed), *body.outputs[num_carry:]]
        used = set(variables_of(results))
        for inner in kept:
            used.update(variables_of(inner.inputs))
        live = [i for i, v in enumerate(constant_in) if v in used]
        loop = loop._replace(
            body=Program(
                inputs=(
                    *(constant_in[i] for i in live),
                    *(carry_in[i] for i in changed),
                    *stacked_in,
                ),
                equations=tuple(kept),
                constants=body.constants,
                outputs=tuple(results),
                known=body.known,
            ),
            num_constants=len(live),
            num_carry=len(changed),
        )
        outputs: list[Any] = [Variable(v.aval) for v in equation.outvars]
        made = [*(outputs[i] for i in changed), *outputs[num_carry:]]
        self.equations.append(
            Equation(
                equation.primitive,
                equation.params,
                (*(constants[i] for i in live), *(carry[i] for i in changed), *stacked),
                tuple(made),
                self._line(equation),
                loop=loop,
                has_effects=self._effects and bool(equation.effects),
            )
        )
        for i in set(range(num_carry)) - set(changed):
            outputs[i] = carry[i]
        return outputs

    def _moved_out(self, inner: Equation, within: dict[Any, Atom]) -> Equation:
        outer = dataclasses.replace(
            inner,
            inputs=tuple(within.get(a, a) for a in inner.inputs),
            outputs=tuple(Variable(v.aval) for v in inner.outputs),
        )
        self.equations.append(outer)
        return outer


def _bodies(equation: Any) -> Sequence[Any]:
    if equation.primitive is compat.primitive("cond"):
        return equation.params["branches"]
    if equation.primitive is compat.primitive("while"):
        return equation.params["cond_jaxpr"], equation.params["body_jaxpr"]
    return ()


_INDEXED = {compat.primitive(name) for name in ("gather", "scatter", "scatter_add")}
_TRANSPARENT = {compat.primitive("optimization_barrier"), compat.primitive("name")}
