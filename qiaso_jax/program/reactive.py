"""Which nodes can change anything: the only ones that are worth perturbing.

Only values are compared, never derivatives: the elementwise functions that follow a
node are evaluated at v − h, v and v + h, and where a maximum over windows follows, the
winners of the clean pass are looked up.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from qiaso_jax.program.axes import Use
from qiaso_jax.program.equations import (
    Atom,
    Environment,
    Equation,
    Program,
    Variable,
    bind,
)
from qiaso_jax.program.primitives import rule


def reactive_nodes(
    program: Program,
    variable: Variable,
    uses: Collection[Use],
    clean: Environment,
    reach: Any,
) -> jax.Array | None:
    """Where noise up to ``reach`` at a variable can be seen by what follows.

    Args:
      program: a flattened function, or the body of one of its loops.
      variable: v, of ``program``.
      uses: those that see the noise.
      clean: the values of all variables of ``program``.
      reach: h > 0, scalar.

    Returns:
      A boolean array like v, or ``None`` if all nodes react.
    """
    value = clean[variable]
    step = jnp.asarray(reach, value.dtype)
    # Values at v − h and v + h of all that depends on v alone, node by node.
    moved: dict[Variable, tuple[Any, Any]] = {variable: (value - step, value + step)}
    seen: list[jax.Array] = []
    for equation in program.equations:
        inputs = {
            atom
            for position, atom in enumerate(equation.inputs)
            if isinstance(atom, Variable)
            and atom in moved
            and (atom is not variable or (equation, position) in uses)
        }
        if not inputs:
            continue
        if _is_elementwise(equation, variable.aval.shape):
            moved[equation.outputs[0]] = tuple(
                bind(
                    equation,
                    [
                        _moved_or_clean(moved, clean, a, i, inputs)
                        for a in equation.inputs
                    ],
                )[0]
                for i in (0, 1)
            )  # pyright: ignore[reportArgumentType]
            continue
        for atom in inputs:
            heard = _heard(program, equation, atom, clean, reach)
            if heard is None and atom is variable:
                return None
            changes = _changes(moved[atom], clean[atom])
            seen.append(changes if heard is None else changes & heard)
    for position, atom in enumerate(program.outputs):
        if atom is variable and (program, position) in uses:
            return None
        if isinstance(atom, Variable) and atom is not variable and atom in moved:
            seen.append(_changes(moved[atom], clean[atom]))
    if not seen:
        return jnp.zeros(value.shape, bool)
    mask = seen[0]
    for other in seen[1:]:
        mask = mask | other
    return mask


def _is_elementwise(equation: Equation, shape: tuple[int, ...]) -> bool:
    return (
        rule(equation).elementwise
        and len(equation.outputs) == 1
        and equation.outputs[0].aval.shape == shape
    )


def _moved_or_clean(
    moved: Mapping[Any, Any],
    clean: Environment,
    atom: Atom,
    i: int,
    inputs: set[Variable],
) -> Any:
    return moved[atom][i] if atom in inputs else clean.read(atom)


def _changes(moved: tuple[Any, ...], clean: Any) -> jax.Array:
    below, above = moved
    return (below != clean) | (above != clean)


def _heard(
    program: Program, equation: Equation, atom: Variable, clean: Environment, reach: Any
) -> jax.Array | None:
    """Where a change of ``atom`` gets through an equation, or None if everywhere."""
    hears = rule(equation).hears
    if not hears:
        return None
    (output,) = equation.outputs
    uses = {
        (owner, position)
        for owner, atoms in [
            *((e, e.inputs) for e in program.equations),
            (program, program.outputs),
        ]
        for position, a in enumerate(atoms)
        if a is output
    }
    reacts = reactive_nodes(program, output, uses, clean, reach)
    if hears == "moved":
        if reacts is None and output.aval.size == atom.aval.size:
            return None
        if reacts is None:
            reacts = jnp.ones(output.aval.shape, bool)
        # The transpose brings every entry of the output back to where it came from.
        back = jax.linear_transpose(
            lambda value: bind(equation, [value])[0],
            jax.ShapeDtypeStruct(atom.aval.shape, jnp.float32),
        )
        return back(reacts.astype(jnp.float32))[0] > 0
    value, highest = clean[atom], clean[output]
    nowhere = jnp.asarray(jnp.inf, value.dtype)
    if reacts is not None:
        highest = jnp.where(reacts, highest, nowhere)
    if hears == "max":
        return value >= jnp.expand_dims(highest, equation.params["axes"])
    return _winners(equation.params, value, highest, nowhere)


def _winners(
    params: dict[str, Any], value: jax.Array, highest: jax.Array, nowhere: jax.Array
) -> jax.Array | None:
    """Where ``value`` reaches the maximum of one of its windows."""
    window, strides = params["window_dimensions"], params["window_strides"]
    dilations = (*params["base_dilation"], *params["window_dilation"])
    if any(d != 1 for d in dilations) or any(
        low >= size or high >= size
        for (low, high), size in zip(params["padding"], window, strict=True)
    ):
        return None
    # It does if it reaches the lowest of the maxima of its windows, which the
    # transposed arrangement of windows brings together.
    padding = []
    for size, length, count, stride, (low, _) in zip(
        window, value.shape, highest.shape, strides, params["padding"], strict=True
    ):
        before = size - 1 - low
        padding.append((before, length + size - 2 - before - (count - 1) * stride))
    lowest = jax.lax.reduce_window(
        highest,
        nowhere,
        jax.lax.min,
        window,
        (1,) * len(window),
        padding,
        base_dilation=strides,
    )
    return value >= lowest
