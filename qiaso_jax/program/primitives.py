"""What is known of JAX's primitives: one registry, keyed by the primitive itself.

Whoever adds a primitive adds an entry here. A primitive without one is opaque: it may
mix all that it is given, and no affine chain goes through it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from qiaso_jax.program import compat, positions
from qiaso_jax.program.equations import Equation

Axes = tuple[int | None, ...]
"""For every axis of an operand the axis of the results that it becomes, position by
position; None where positions are lost or mixed."""


class Rule(NamedTuple):
    """What is known of one primitive.

    Attributes:
      axes: of an equation, where the axes of each operand go.
      elementwise: whether an entry of the result depends on the entries at its place.
      linear: the positions of the operands that it is linear in, given its operands.
      joint: whether it is linear in all of those together; else in each alone.
      with_data: whether an affine chain goes on through it where other operands, or
        its own, depend on the batch.
      reduces: the axes of each operand that are summed up, or the like.
      hears: how a change of the operand gets through, for ``reactive``: "moved" if
        every entry of the result is an entry of the operand, "max", "window_max".
    """

    axes: Callable[[Equation], Sequence[Axes]] | None = None
    elementwise: bool = False
    linear: Callable[[Equation], frozenset[int]] | None = None
    joint: bool = False
    with_data: bool = False
    reduces: Callable[[Equation], Sequence[tuple[int, ...]]] | None = None
    hears: str = ""


OPAQUE = Rule()


def rule(equation: Equation) -> Rule:
    """What is known of the primitive of an equation."""
    return RULES.get(equation.primitive, OPAQUE)


def _shape(atom: Any) -> tuple[int, ...]:
    return tuple(getattr(atom.aval, "shape", ()))


def _rank(atom: Any) -> int:
    return len(_shape(atom))


def _lost(atom: Any) -> Axes:
    return (None,) * _rank(atom)


def _kept_but(atom: Any, lost: Any) -> Axes:
    """All axes stay where they are, but those lost."""
    return tuple(None if i in lost else i for i in range(_rank(atom)))


def _removed(atom: Any, gone: Any) -> Axes:
    """The axes that are left move up."""
    gone = {i % max(_rank(atom), 1) for i in gone}
    places = iter(range(_rank(atom)))
    return tuple(None if i in gone else next(places) for i in range(_rank(atom)))


def _identity(equation: Equation) -> list[Axes]:
    rank = _rank(equation.outputs[0])
    return [
        tuple(range(rank)) if _rank(a) == rank else _lost(a) for a in equation.inputs
    ]


def _broadcast(equation: Equation) -> list[Axes]:
    axes = tuple(equation.params["broadcast_dimensions"])
    return [axes, *map(_lost, equation.inputs[1:])]


def _transposed(equation: Equation) -> list[Axes]:
    order = list(equation.params["permutation"])
    return [tuple(order.index(i) for i in range(len(order)))]


def _reduced(name: str) -> Callable[[Equation], list[Axes]]:
    return lambda e: [_removed(a, e.params[name]) for a in e.inputs]


def _axis(name: str) -> Callable[[Equation], list[Axes]]:
    """All axes stay but one."""

    def axes(equation: Equation) -> list[Axes]:
        return [
            _kept_but(a, {equation.params[name] % max(_rank(a), 1)})
            for a in equation.inputs
        ]

    return axes


def _top_k(equation: Equation) -> list[Axes]:
    (operand,) = equation.inputs
    axis = equation.params.get("axis", -1)
    return [_kept_but(operand, {axis % _rank(operand)})]


def _padded(equation: Equation) -> list[Axes]:
    operand, value = equation.inputs
    config = equation.params["padding_config"]
    lost = {i for i, one in enumerate(config) if tuple(one) != (0, 0, 0)}
    return [_kept_but(operand, lost), _lost(value)]


def _sliced(equation: Equation) -> list[Axes]:
    """The axes that are taken whole stay."""
    operand, *indices = equation.inputs
    strides = equation.params.get("strides") or (1,) * _rank(operand)
    sizes = zip(_shape(operand), _shape(equation.outputs[0]), strides, strict=True)
    lost = {
        i for i, (size, out, stride) in enumerate(sizes) if (size, 1) != (out, stride)
    }
    return [_kept_but(operand, lost), *map(_lost, indices)]


def _updated(equation: Equation) -> list[Axes]:
    operand, update, *indices = equation.inputs
    sizes = zip(_shape(operand), _shape(update), strict=True)
    lost = {i for i, (size, part) in enumerate(sizes) if size != part}
    return [_kept_but(operand, ()), _kept_but(update, lost), *map(_lost, indices)]


def _reversed(equation: Equation) -> list[Axes]:
    return [_kept_but(equation.inputs[0], set(equation.params["dimensions"]))]


def _stacked(equation: Equation) -> list[Axes]:
    axis = equation.params["axis"]
    return [tuple(i + (i >= axis) for i in range(_rank(a))) for a in equation.inputs]


def _unstacked(equation: Equation) -> list[Axes]:
    return [_removed(equation.inputs[0], [equation.params["axis"]])]


def _tiled(equation: Equation) -> list[Axes]:
    (operand,) = equation.inputs
    sizes = zip(_shape(operand), _shape(equation.outputs[0]), strict=True)
    return [_kept_but(operand, {i for i, (a, b) in enumerate(sizes) if a != b})]


def _product(equation: Equation) -> list[Axes]:
    contracted, batched = equation.params["dimension_numbers"]
    place = len(batched[0])
    found = []
    for atom, summed, shared in zip(equation.inputs, contracted, batched, strict=False):
        axes: list[int | None] = [None] * _rank(atom)
        for out, axis in enumerate(shared):
            axes[axis] = out
        for axis in range(_rank(atom)):
            if axis not in summed and axis not in shared:
                axes[axis] = place
                place += 1
        found.append(tuple(axes))
    return found


def _contracted(equation: Equation) -> list[tuple[int, ...]]:
    contracted, _ = equation.params["dimension_numbers"]
    return [tuple(axes) for axes in contracted]


def _convolved(equation: Equation) -> list[Axes]:
    image, kernel = equation.inputs
    numbers = equation.params["dimension_numbers"]
    axes: list[int | None] = [None] * _rank(image)
    if equation.params["batch_group_count"] == 1:
        axes[numbers.lhs_spec[0]] = numbers.out_spec[0]
    return [tuple(axes), _lost(kernel)]


def _windowed(equation: Equation) -> list[Axes]:
    """The axes that windows do not extend over stay."""
    params, rank = equation.params, _rank(equation.outputs[0])
    ones = (1,) * rank
    settings = zip(
        params["window_dimensions"],
        params["window_strides"],
        params["base_dilation"] or ones,
        params["window_dilation"] or ones,
        params["padding"],
        strict=True,
    )
    lost = {
        i
        for i, (size, stride, base, window, padding) in enumerate(settings)
        if (size, stride, base, window, *padding) != (1, 1, 1, 1, 0, 0)
    }
    return [
        _kept_but(a, lost) if _rank(a) == rank else _lost(a) for a in equation.inputs
    ]


def _gathered(equation: Equation) -> list[Axes]:
    operand, _ = equation.inputs
    numbers, sizes = (
        equation.params["dimension_numbers"],
        equation.params["slice_sizes"],
    )
    offsets = iter(numbers.offset_dims)
    lost: list[int | None] = [None] * _rank(operand)
    for axis in range(_rank(operand)):
        if (
            axis in numbers.collapsed_slice_dims
            or axis in numbers.operand_batching_dims
        ):
            continue
        out = next(offsets)
        whole = sizes[axis] == _shape(operand)[axis]
        if whole and axis not in numbers.start_index_map:
            lost[axis] = int(out)
    places = _index_places(equation)
    for axis, of_indices in zip(
        numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True
    ):
        lost[axis] = places[of_indices]
    for axis, place in positions.aligned(
        numbers.start_index_map, places, equation.columns, _shape(operand)
    ):
        lost[axis] = place
    return [tuple(lost), (*places, None)]


def _index_places(equation: Equation) -> list[int]:
    """Where the axes of the indices of a ``gather`` are in its result."""
    offsets = equation.params["dimension_numbers"].offset_dims
    return [i for i in range(_rank(equation.outputs[0])) if i not in offsets]


def _scattered(equation: Equation) -> list[Axes]:
    operand, indices, updates = equation.inputs
    numbers = equation.params["dimension_numbers"]
    into = dict(
        zip(
            numbers.scatter_indices_batching_dims,
            numbers.operand_batching_dims,
            strict=True,
        )
    )
    of_indices = [into.get(i) for i in range(_rank(indices) - 1)]
    for axis, place in positions.aligned(
        numbers.scatter_dims_to_operand_dims,
        range(_rank(indices) - 1),
        equation.columns or (None,) * len(numbers.scatter_dims_to_operand_dims),
        _shape(operand),
    ):
        of_indices[place] = axis
    window = [
        i
        for i in range(_rank(operand))
        if i not in numbers.inserted_window_dims
        and i not in numbers.operand_batching_dims
    ]
    places, windows = iter(of_indices), iter(window)
    of_updates: list[int | None] = []
    for axis in range(_rank(updates)):
        if axis not in numbers.update_window_dims:
            of_updates.append(next(places))
            continue
        target = next(windows)
        whole = _shape(updates)[axis] == _shape(operand)[target]
        free = target not in numbers.scatter_dims_to_operand_dims
        of_updates.append(target if whole and free else None)
    return [_kept_but(operand, ()), (*of_indices, None), tuple(of_updates)]


def _leading(number: int) -> Callable[[Equation], list[Axes]]:
    """All but the last axes stay, as in linear algebra of many matrices."""

    def axes(equation: Equation) -> list[Axes]:
        found = []
        for atom in equation.inputs:
            kept = max(_rank(atom) - number, 0)
            found.append((*range(kept), *[None] * (_rank(atom) - kept)))
        return found

    return axes


def _transformed(equation: Equation) -> list[Axes]:
    return _leading(len(equation.params["fft_lengths"]))(equation)


def _of_keys(equation: Equation) -> list[Axes]:
    rank = _rank(equation.outputs[0])
    found = []
    for atom in equation.inputs:
        kept = min(_rank(atom), rank)
        found.append((*range(kept), *[None] * (_rank(atom) - kept)))
    return found


def _positions(*positions: int) -> Callable[[Equation], frozenset[int]]:
    return lambda equation: frozenset(positions)


def _all(equation: Equation) -> frozenset[int]:
    return frozenset(range(len(equation.inputs)))


def _all_but_first(equation: Equation) -> frozenset[int]:
    return _all(equation) - {0}


def _reduces(name: str) -> Callable[[Equation], list[tuple[int, ...]]]:
    return lambda equation: [tuple(equation.params[name]) for _ in equation.inputs]


def _entries(names: str, entry: Rule) -> dict[Any, Rule]:
    return {
        found: entry
        for n in names.split()
        if (found := compat.primitive(n)) is not None
    }


_first = _positions(0)
_both = _positions(0, 1)
_sum = Rule(_identity, True, linear=_all, joint=True, with_data=True)
_moved = Rule(linear=_first, with_data=True, hears="moved")

RULES: dict[Any, Rule] = {
    **_entries(
        "abs acos acosh and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt "
        "ceil clamp clz complex conj cos cosh device_put digamma eq eq_to erf erf_inv "
        "erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag "
        "integer_pow is_finite le le_to lgamma log log1p log2 logistic lt lt_to max "
        "min mulhi ne nextafter not one_minus_square or polygamma polynomial "
        "population_count pow random_fold_in random_seed real reduce_precision "
        "regularized_incomplete_beta rem round rsqrt shift_left "
        "shift_right_arithmetic shift_right_logical sign sin sinh sqrt square "
        "stop_gradient tan tanh threefry2x32 xor zeta",
        Rule(_identity, True),
    ),
    **_entries("add add_jaxvals sub", _sum),
    **_entries("mul", Rule(_identity, True, linear=_both)),
    **_entries("div", Rule(_identity, True, linear=_first)),
    **_entries(
        "convert_element_type copy neg sharding_constraint",
        Rule(_identity, True, linear=_first, with_data=True),
    ),
    **_entries("select_n", Rule(_identity, True, linear=_all_but_first, joint=True)),
    **_entries("dot_general", Rule(_product, linear=_both, reduces=_contracted)),
    **_entries("conv_general_dilated", Rule(_convolved, linear=_both)),
    **_entries("reshape", _moved._replace(axes=None)),
    **_entries("transpose", _moved._replace(axes=_transposed)),
    **_entries("squeeze", _moved._replace(axes=_reduced("dimensions"))),
    **_entries("broadcast_in_dim", Rule(_broadcast, linear=_first)),
    **_entries("rev", Rule(_reversed, linear=_first, hears="moved")),
    **_entries("slice", Rule(_sliced, linear=_first, hears="moved")),
    **_entries("dynamic_slice", Rule(_sliced, linear=_first)),
    **_entries("dynamic_update_slice", Rule(_updated, linear=_both, joint=True)),
    **_entries("gather", Rule(_gathered, linear=_first)),
    **_entries("scatter_add", Rule(_scattered, linear=_positions(0, 2), joint=True)),
    **_entries(
        "scatter scatter_sub scatter_mul scatter_min scatter_max", Rule(_scattered)
    ),
    **_entries("pad", Rule(_padded, linear=_both, joint=True)),
    **_entries("concatenate", Rule(_axis("dimension"), linear=_all, joint=True)),
    **_entries("stack", Rule(_stacked, linear=_all, joint=True)),
    **_entries("unstack", Rule(_unstacked, linear=_first)),
    **_entries("split", Rule(_axis("axis"), linear=_first)),
    **_entries("tile", Rule(_tiled, linear=_first)),
    **_entries(
        "reduce_sum", Rule(_reduced("axes"), linear=_first, reduces=_reduces("axes"))
    ),
    **_entries(
        "reduce_max", Rule(_reduced("axes"), reduces=_reduces("axes"), hears="max")
    ),
    **_entries(
        "reduce_and reduce_min reduce_or reduce_prod reduce_xor argmax argmin",
        Rule(_reduced("axes"), reduces=_reduces("axes")),
    ),
    **_entries("cumsum", Rule(_axis("axis"), linear=_first)),
    **_entries("cumlogsumexp cummax cummin cumprod", Rule(_axis("axis"))),
    **_entries("sort", Rule(_axis("dimension"))),
    **_entries("top_k", Rule(_top_k)),
    **_entries("approx_top_k", Rule(_axis("reduction_dimension"))),
    **_entries("reduce_window_max", Rule(_windowed, hears="window_max")),
    **_entries("reduce_window reduce_window_min reduce_window_sum", Rule(_windowed)),
    **_entries("fft", Rule(_transformed)),
    **_entries(
        "cholesky eig eigh hessenberg householder_product lu qr schur svd "
        "triangular_solve tridiagonal",
        Rule(_leading(2)),
    ),
    **_entries("tridiagonal_solve", Rule(_leading(2))),
    **_entries(
        "random_bits random_gamma random_split random_unwrap random_wrap",
        Rule(_of_keys),
    ),
}
"""By primitive; see ``rule``."""
