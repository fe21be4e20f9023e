"""Which nodes can change anything: the only ones that are worth perturbing.

Only values are compared, never derivatives: the elementwise functions that follow a
node are evaluated at v − h, v and v + h, and where a maximum over windows follows, the
winners of the clean pass are looked up.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from qiaso_jax.interpret import ELEMENTWISE, Environment, Program, bind, is_literal
from qiaso_jax.sites import RESULT, Site

_REARRANGING = {"expand_dims", "reshape", "rev", "slice", "squeeze", "transpose"}


def reactive_nodes(
    program: Program, site: Site, clean: Environment, reach: Any
) -> jax.Array | None:
    """Where noise up to ``reach`` at a site can be seen by what follows.

    Args:
      program: a flattened function.
      site: in node space.
      clean: the values of all variables.
      reach: h > 0, scalar.

    Returns:
      A boolean array like v, or ``None`` if all nodes react.
    """
    return _reacting(program, site.variable, site.uses, clean, reach)


def _reacting(
    program: Program, variable: Any, uses: Any, clean: Environment, reach: Any
) -> jax.Array | None:
    value = clean[variable]
    step = jnp.asarray(reach, value.dtype)
    # Values at v − h and v + h of all that depends on v alone, node by node.
    moved = {variable: (value - step, value + step)}
    seen: list[jax.Array] = []
    for index, equation in enumerate(program.equations):
        inputs = {
            atom
            for atom in equation.invars
            if not is_literal(atom)
            and atom in moved
            and (atom is not variable or index in uses)
        }
        if not inputs:
            continue
        if _is_elementwise(equation, variable.aval.shape):
            moved[equation.outvars[0]] = tuple(
                bind(
                    equation,
                    [
                        _moved_or_clean(moved, clean, a, i, inputs)
                        for a in equation.invars
                    ],
                )[0]
                for i in (0, 1)
            )
            continue
        for atom in inputs:
            heard = _heard(program, equation, atom, clean, reach)
            if heard is None and atom is variable:
                return None
            changes = _changes(moved[atom], clean[atom])
            seen.append(changes if heard is None else changes & heard)
    if RESULT in uses and program.losses is variable:
        return None
    if not is_literal(program.losses) and program.losses in moved:
        seen.append(_changes(moved[program.losses], clean[program.losses]))
    if not seen:
        return jnp.zeros(value.shape, bool)
    mask = seen[0]
    for other in seen[1:]:
        mask = mask | other
    return mask


def _is_elementwise(equation: Any, shape: tuple[int, ...]) -> bool:
    return (
        equation.primitive.name in ELEMENTWISE
        and len(equation.outvars) == 1
        and equation.outvars[0].aval.shape == shape
    )


def _moved_or_clean(
    moved: Mapping[Any, Any], clean: Environment, atom: Any, i: int, inputs: set[Any]
) -> Any:
    if not is_literal(atom) and atom in inputs:
        return moved[atom][i]
    return clean.read(atom)


def _changes(moved: tuple[Any, ...], clean: Any) -> jax.Array:
    below, above = moved
    return (below != clean) | (above != clean)


def _heard(
    program: Program, equation: Any, atom: Any, clean: Environment, reach: Any
) -> jax.Array | None:
    """Where a change of ``atom`` gets through an equation, or None if everywhere."""
    name = equation.primitive.name
    if name not in _REARRANGING | {"reduce_max", "reduce_window_max"}:
        return None
    (output,) = equation.outvars
    uses = frozenset(
        i for i, e in enumerate(program.equations) if any(a is output for a in e.invars)
    )
    if program.losses is output:
        uses |= {RESULT}
    reacts = _reacting(program, output, uses, clean, reach)
    if name in _REARRANGING:
        if reacts is None and name != "slice":
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
    if name == "reduce_max":
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
