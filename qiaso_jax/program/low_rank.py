"""A program with low-rank offsets at some of its inputs, evaluated without the sums.

Lazy values stay lazy where a rule keeps them so. In a product with something else, the
base's product is shared by all candidates, and what the factors add is two thin
products; what is taken by indices likewise. A convolution makes the kernels of the
candidates, on a CPU one after the other. All other operations make the array of a
candidate.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import sequential_vmap

from qiaso_jax import _varying
from qiaso_jax.program import compat, perturbed
from qiaso_jax.program.equations import Atom, Equation, Program, Variable, bind
from qiaso_jax.program.perturbed import (
    Axes,
    Dense,
    Lazy,
    Perturbed,
    Squared,
    over_rank,
    placed,
)

UNROLLED = 8
"""Up to this rank, products with factors are sums of elementwise products, which XLA
fuses with what is around them; beyond, they are products of matrices."""

Note = Callable[[int, Equation, bool, str], None]
"""Hears which leaf enters which operation, whether as factors, and else why not."""


def unheard(leaf: int, equation: Equation, factored: bool, why: str) -> None:
    """For those who do not listen."""
    del leaf, equation, factored, why


def evaluate(
    program: Program, inputs: Sequence[Any], note: Note = unheard
) -> list[jax.Array]:
    """The results of a program, some of whose inputs are perturbed."""
    own = [True] * len(inputs)
    return list(map(_dense, _run(program, inputs, own, note)))


def _dense(value: Any) -> Any:
    return value.dense() if isinstance(value, Lazy) else value


def _axes(values: Sequence[Any]) -> frozenset[str]:
    """The axes of a mesh along which any of the values varies."""
    return _varying.axes_of(
        [x.of.base if isinstance(x, Squared) else getattr(x, "base", x) for x in values]
    )


def _run(
    program: Program, inputs: Iterable[Any], are_own: Sequence[bool], note: Note
) -> list[Any]:
    values: dict[Variable, Any] = dict(program.constants)
    values.update(zip(program.inputs, inputs, strict=True))
    # What depends on a candidate, and so has an axis of them under vmap.
    own = {v for v, is_own in zip(program.inputs, are_own, strict=True) if is_own}

    def read(atom: Atom) -> Any:
        return values[atom] if isinstance(atom, Variable) else atom.val

    for equation in program.equations:
        operands = list(map(read, equation.inputs))
        shared = [a not in own for a in equation.inputs]
        outputs = _applied(equation, operands, shared, note)
        values.update(zip(equation.outputs, outputs, strict=True))
        if not all(shared):
            own.update(equation.outputs)
    return list(map(read, program.outputs))


def _applied(
    equation: Equation, operands: list[Any], shared: list[bool], note: Note
) -> list[Any]:
    lazy = [x for x in operands if isinstance(x, Lazy)]
    if not lazy:
        return bind(equation, operands)
    leaves = {x.leaf for x in lazy}
    if equation.loop is not None or equation.bodies:
        return _within(equation, operands, shared, note)
    try:
        if equation.primitive in _PRODUCTS:
            results = _PRODUCTS[equation.primitive](equation, operands, shared)
        elif equation.primitive in _RULES:
            results = _RULES[equation.primitive](equation, operands)
        else:
            raise Dense("it has no rule")
    except Dense as reason:
        for leaf in leaves:
            note(leaf, equation, False, str(reason))
        return bind(equation, map(_dense, operands))
    for leaf in leaves:
        note(leaf, equation, True, "")
    return results


def _product(equation: Equation, operands: list[Any], shared: list[bool]):
    lazy = [isinstance(x, Lazy) for x in operands]
    if all(lazy):
        raise Dense("both operands are perturbed")
    side = lazy.index(True)
    value, other = operands[side], jnp.asarray(operands[1 - side])
    if isinstance(value, Squared):
        raise Dense("it is the square of a weight")
    base = bind(equation, [other, value.base] if side else [value.base, other])[0]
    contracted, batched = equation.params["dimension_numbers"]
    # One name for every axis of the product: those of the other operand first.
    ndim = other.ndim
    names = {}
    for mine, its in (
        *zip(contracted[side], contracted[1 - side], strict=True),
        *zip(batched[side], batched[1 - side], strict=True),
    ):
        names[mine] = its
    free = [a for a in range(len(value.shape)) if a not in names]
    names |= {a: ndim + i for i, a in enumerate(free)}
    summed = list(contracted[1 - side])
    others = [a for a in range(ndim) if a not in summed and a not in batched[1 - side]]
    ends = [ndim + i for i in range(len(free))]
    out = [*batched[1 - side], *((others + ends) if side else (ends + others))]
    parts = [perturbed.in_order(x, [names[a] for a in axes]) for x, axes in value.parts]
    delta, axes = _through(other, parts, summed, shared[1 - side])
    delta = jnp.transpose(delta, [axes.index(a) for a in out if a in axes])
    delta = jnp.expand_dims(delta, [i for i, a in enumerate(out) if a not in axes])
    return [(base + delta).astype(base.dtype)]


def _through(
    other: jax.Array,
    parts: Sequence[tuple[jax.Array, Axes]],
    summed: Sequence[int],
    is_shared: bool,
) -> tuple[jax.Array, list[int]]:
    """Σ over some axes of ``other`` times both factors, and which axes are left.

    Args:
      other: its axes are 0, 1, ...
      parts: factors, their first axis the rank, with the axes of the others.
      summed: the axes that are summed over.
      is_shared: whether ``other`` is the same for all candidates, so that its product
        with the factors of all is one product of matrices.
    """
    dtype = jnp.promote_types(other.dtype, parts[0][0].dtype)
    other, all_axes = other.astype(dtype), list(range(other.ndim))
    (first, first_axes), (second, second_axes) = sorted(
        ((x.astype(dtype), axes) for x, axes in parts),
        key=lambda part: -sum(a in summed for a in part[1]),
    )
    early = [a for a in summed if a not in second_axes]
    late = [a for a in summed if a in second_axes]
    kept = sorted({*all_axes, *first_axes} - set(early))
    joined = sorted({*kept, *second_axes})
    left = [a for a in joined if a not in late]
    few = first.shape[0] <= UNROLLED

    def times_second(inner, second):
        product = _onto(inner, kept, joined) * _onto(second, second_axes, joined)
        return jnp.sum(product, [joined.index(a) for a in late]) if late else product

    if few and not is_shared and set(first_axes) <= set(all_axes):

        def times_both(first, second):
            product = other * _onto(first, first_axes, all_axes)
            return times_second(jnp.sum(product, early), second)

        return over_rank(times_both, first, second), left
    rank = 1 + max([*all_axes, *first_axes, *second_axes], default=0)
    inner = _einsum(other, all_axes, first, [rank, *first_axes], [rank, *kept])
    if few:
        return over_rank(times_second, inner, second), left
    return _einsum(inner, [rank, *kept], second, [rank, *second_axes], left), left


def _onto(x: jax.Array, axes: Sequence[int], more: Sequence[int]) -> jax.Array:
    """An array of some axes to be broadcast against one of ``more``, in order."""
    return jnp.expand_dims(x, [i for i, a in enumerate(more) if a not in axes])


def _einsum(*operands: Any) -> jax.Array:
    return jnp.einsum(*operands, precision=jax.lax.Precision.HIGHEST)


def _taken(equation: Equation, operands: list[Any], shared: list[bool]) -> list[Any]:
    value, indices = operands
    if not isinstance(value, Perturbed) or isinstance(indices, Lazy):
        raise Dense("it is the square of a weight")
    numbers, sizes = (
        equation.params["dimension_numbers"],
        equation.params["slice_sizes"],
    )
    if numbers.operand_batching_dims:
        raise Dense("it takes other entries along each index of an axis")
    indexed = set(numbers.start_index_map)
    if any(
        size != length
        for a, (size, length) in enumerate(zip(sizes, value.shape, strict=True))
        if a not in indexed
    ):
        raise Dense("it takes a part of an axis that it does not index")
    first, second = sorted(value.parts, key=lambda part: indexed.isdisjoint(part[1]))
    if not indexed.isdisjoint(second[1]):
        raise Dense("it indexes the rows and the columns of the weights")
    base = bind(equation, [value.base, indices])[0]
    ndim = len(value.shape)
    # Indices stay what they are, within the bounds or beyond.
    held = [a in first[1] or a in indexed for a in range(ndim)]
    lengths = np.where(held, value.shape, 1)
    params = {
        **equation.params,
        "slice_sizes": tuple(np.where(held, sizes, 1).tolist()),
        "fill_value": 0,
    }
    windows = [a for a in range(ndim) if a not in numbers.collapsed_slice_dims]
    place = dict(zip(windows, numbers.offset_dims, strict=True))

    def term(taken, other):
        operand = jnp.broadcast_to(placed(taken, first[1], ndim), lengths)
        (taken,) = compat.bind(equation.primitive, params, [operand, indices])
        return taken * placed(other, tuple(place[a] for a in second[1]), base.ndim)

    if indexed.isdisjoint(first[1]):
        raise Dense("its rows and columns do not vary along what it indexes")
    return [(base + over_rank(term, first[0], second[0])).astype(base.dtype)]


def _convolved(equation: Equation, operands: list[Any], shared: list[bool]):
    image, kernel = operands
    if not isinstance(kernel, Perturbed) or isinstance(image, Lazy):
        raise Dense("it is the image that is perturbed")

    kernel_axes = kernel.row_axes, kernel.column_axes

    def convolved(image, base, rows, columns):
        each = Perturbed(base, rows, columns, *kernel_axes, kernel.leaf)
        return bind(equation, [image, each.dense()])[0]

    # On a CPU one kernel after the other, as one grouped convolution is slow there.
    result = jax.lax.platform_dependent(
        image,
        *(kernel.base, kernel.rows, kernel.columns),
        cpu=sequential_vmap(convolved),
        default=convolved,
    )
    return [result]


def _within(
    equation: Equation, operands: list[Any], shared: list[bool], note: Note
) -> list[Any]:
    """Operations that have programs of their own."""

    def carried(values):
        for value in values:
            if isinstance(value, Lazy):
                note(
                    value.leaf,
                    equation,
                    False,
                    "it changes from iteration to iteration",
                )
        return list(map(_dense, values))

    own, axes = [not x for x in shared], _axes(operands)

    def results(program, inputs, own):
        return list(map(_dense, _run(program, inputs, own, note)))

    if equation.loop is not None:
        return _scanned(equation, operands, own, carried, results)
    if equation.name == "cond":
        index, *others = operands
        branches = [
            lambda body=body: _varying.along(results(body, others, own[1:]), axes)
            for body in equation.bodies
        ]
        return jax.lax.switch(_dense(index), branches)
    condition, body = equation.bodies
    start = equation.params["cond_nconsts"]
    end = start + equation.params["body_nconsts"]
    state_is_own = [True] * (len(operands) - end)

    def with_state(program, start, end, state):
        own_inputs = [*own[start:end], *state_is_own]
        return results(program, [*operands[start:end], *state], own_inputs)

    return jax.lax.while_loop(
        lambda state: with_state(condition, 0, start, state)[0],
        lambda state: _varying.along(with_state(body, start, end, state), axes),
        _varying.along(carried(operands[end:]), axes),
    )


def _scanned(
    equation: Equation,
    operands: list[Any],
    own: list[bool],
    carried: Callable[[list[Any]], list[Any]],
    results: Callable[[Program, list[Any], list[bool]], list[Any]],
) -> list[Any]:
    loop = equation.loop
    assert loop is not None
    own_constants, own_carry, own_stacked = loop.apart(own)
    own = [*own_constants, *[True] * len(own_carry), *own_stacked]
    constants, carry, stacked = loop.apart(operands)
    stacked = [x.dense() if isinstance(x, Squared) else x for x in stacked]
    slices = [perturbed.slices(x) if isinstance(x, Perturbed) else x for x in stacked]

    def step(carry, slices):
        inputs = [
            perturbed.sliced_along(x, one) if isinstance(x, Perturbed) else one
            for x, one in zip(stacked, slices, strict=True)
        ]
        outputs = results(loop.body, [*constants, *carry, *inputs], own)
        return outputs[: loop.num_carry], outputs[loop.num_carry :]

    carry = _varying.along(carried(carry), _axes(operands))
    final, ys = jax.lax.scan(
        step, carry, slices, length=loop.length, reverse=loop.reverse
    )
    return [*final, *ys]


_PRODUCTS = {
    compat.primitive("conv_general_dilated"): _convolved,
    compat.primitive("dot_general"): _product,
    compat.primitive("gather"): _taken,
}
_RULES = {compat.primitive(name): rule for name, rule in perturbed.RULES.items()}
