"""Values with a low-rank offset, and what moves, takes, scales or sums their entries.

A lazy value is its base, which all candidates share, and two factors. The rules here
keep it lazy; where one cannot, it raises ``Dense`` with the reason.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qiaso_jax.factors import Factors
from qiaso_jax.program.equations import Equation, bind

Axes = tuple[int, ...]


class Dense(Exception):
    """Raised by a rule that has no lazy result, to say why."""


@dataclasses.dataclass(frozen=True)
class Perturbed:
    """The value ``base + δ``, δ[i…] = Σ_r rows[r, i over row_axes] · columns[r, …].

    δ does not vary along an axis that is of neither; of both is one along which each
    slice has factors of its own.

    Attributes:
      base: an array.
      rows: its first axis is r, the others are ``row_axes`` of the base, in order.
      columns: likewise.
      row_axes: in increasing order, none of length 1.
      column_axes: likewise.
      leaf: the number of the input that it comes from.
    """

    base: Any
    rows: Any
    columns: Any
    row_axes: Axes
    column_axes: Axes
    leaf: int

    @property
    def parts(self) -> tuple[tuple[Any, Axes], tuple[Any, Axes]]:
        """Both factors with their axes."""
        return (self.rows, self.row_axes), (self.columns, self.column_axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the value."""
        return self.base.shape

    def dense(self) -> jax.Array:
        """The value as an array."""
        ndim = len(self.shape)
        total = over_rank(
            lambda rows, columns: (
                placed(rows, self.row_axes, ndim)
                * placed(columns, self.column_axes, ndim)
            ),
            self.rows,
            self.columns,
        )
        return (self.base + total).astype(self.base.dtype)


@dataclasses.dataclass(frozen=True)
class Squared:
    """``of² + more``, of which sums may be wanted; ``more`` is an array."""

    of: Perturbed
    more: Any = 0.0

    @property
    def base(self) -> Any:
        """What all candidates share."""
        return self.of.base * self.of.base + self.more

    @property
    def leaf(self) -> int:
        """The number of the input that it comes from."""
        return self.of.leaf

    def dense(self) -> jax.Array:
        """The value as an array."""
        return self.of.dense() ** 2 + self.more


Lazy = Perturbed | Squared


def perturbed(base: jax.Array, offset: Any, leaf: int) -> Any:
    """An input with its offset: an array, or one of ``Factors`` as a lazy value."""
    if not isinstance(offset, Factors):
        return base + offset
    end = offset.rows.ndim - 1
    axes = tuple(range(base.ndim))
    return _normal(base, (offset.rows, axes[:end]), (offset.columns, axes[end:]), leaf)


def _normal(
    base: Any, rows: tuple[Any, Axes], columns: tuple[Any, Axes], leaf: int
) -> Perturbed:
    """With axes in order, and none of length 1."""

    def tidy(part, axes):
        dropped = tuple(i + 1 for i, a in enumerate(axes) if base.shape[a] == 1)
        kept = [a for a in axes if base.shape[a] > 1]
        return in_order(jnp.squeeze(part, dropped), kept)

    (a, row_axes), (b, column_axes) = tidy(*rows), tidy(*columns)
    return Perturbed(base, a, b, row_axes, column_axes, leaf)


def in_order(part: jax.Array, axes: Sequence[int]) -> tuple[jax.Array, Axes]:
    """A factor whose axes are in increasing order."""
    places = sorted(range(len(axes)), key=axes.__getitem__)
    ordered = tuple(axes[i] for i in places)
    return jnp.transpose(part, (0, *(i + 1 for i in places))), ordered


def over_rank(term: Callable[[Any, Any], Any], rows: Any, columns: Any) -> Any:
    """Σ_r of a product that is linear in both factors."""
    terms = (term(rows[r], columns[r]) for r in range(rows.shape[0]))
    return sum(terms, start=next(terms))


def placed(part: jax.Array, axes: Axes, ndim: int) -> jax.Array:
    """A factor without its rank, to be broadcast against arrays of ``ndim`` axes."""
    return jnp.expand_dims(part, [i for i in range(ndim) if i not in axes])


def _only(operands: Sequence[Any]) -> Perturbed:
    """The first operand, if it alone is lazy, and linearly so."""
    first, *others = operands
    if not isinstance(first, Perturbed):
        raise Dense("it is the square of a weight, or another operand than the first")
    if any(isinstance(x, Lazy) for x in others):
        raise Dense("two of its operands are perturbed")
    return first


def _same(equation: Equation, value: Any) -> Any:
    return bind(equation, [value])[0]


def _moved(
    value: Perturbed, base: Any, place: Callable[[int], int | None]
) -> Perturbed:
    """The axes of the base are elsewhere; those at None had length 1."""

    def part(x, axes):
        places = [place(a) for a in axes]
        if None in places:
            raise Dense("an axis along which it varies is lost")
        return x, tuple(p for p in places if p is not None)

    return _with_parts(value, base, part)


def _with_parts(
    value: Perturbed, base: Any, part: Callable[[Any, Axes], tuple[Any, Axes]]
) -> Perturbed:
    rows, columns = (part(x, axes) for x, axes in value.parts)
    return _normal(base, rows, columns, value.leaf)


def _transpose(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value = _only(operands)
    order = list(equation.params["permutation"])
    return [_moved(value, _same(equation, value.base), order.index)]


def _squeeze(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value = _only(operands)
    gone = {d % len(value.shape) for d in equation.params["dimensions"]}
    kept = [a for a in range(len(value.shape)) if a not in gone]
    place = {a: i for i, a in enumerate(kept)}
    return [_moved(value, _same(equation, value.base), place.get)]


def _broadcast(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value = _only(operands)
    if len(operands) > 1:
        raise Dense("its shape is not known")
    places = equation.params["broadcast_dimensions"]
    return [_moved(value, _same(equation, value.base), lambda a: places[a])]


def _reshape(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value = _only(operands)
    if len(operands) > 1 or equation.params.get("dimensions") is not None:
        raise Dense("its shape is not known")
    old, new = value.shape, equation.outputs[0].aval.shape
    groups = _regrouped(old, new)

    def part(x, axes):
        shape, places = [], []
        for before, after in groups:
            varying = [a for a in before if old[a] > 1]
            inside = [a for a in varying if a in axes]
            if inside and inside != varying:
                raise Dense("it joins an axis of the rows with one of the columns")
            if inside:
                shape += [new[a] for a in after]
                places += after
        return x.reshape(x.shape[0], *shape), tuple(places)

    base = _same(equation, value.base)
    return [_with_parts(value, base, part)]


def _regrouped(old: Sequence[int], new: Sequence[int]) -> list[tuple[list, list]]:
    """The least groups of neighbouring axes with equal sizes before and after."""
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        before, after, left, right = [], [], 1, 1
        while True:
            if left <= right and i < len(old) and (left < right or not before):
                left *= old[i]
                before.append(i)
                i += 1
            elif j < len(new) and (right < left or not after):
                right *= new[j]
                after.append(j)
                j += 1
            elif left == right:
                break
            else:
                raise Dense("it has no entries")
        groups.append((before, after))
    return groups


def _convert(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value = _only(operands)
    if not jnp.issubdtype(equation.outputs[0].aval.dtype, jnp.floating):
        raise Dense("it is rounded")
    # What a narrower type would lose of an offset is kept beside the base.
    return [dataclasses.replace(value, base=_same(equation, value.base))]


def _identity(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value = _only(operands)
    return [dataclasses.replace(value, base=_same(equation, value.base))]


def _negated(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value = _only(operands)
    return [
        dataclasses.replace(value, base=_same(equation, value.base), rows=-value.rows)
    ]


def _multiplied(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    left, right = operands
    if left is right and isinstance(left, Perturbed):
        return [Squared(left)]
    value, factor = (left, right) if isinstance(left, Perturbed) else (right, left)
    return _scaled(equation, value, factor, operator.mul)


def _divided(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value, divisor = operands
    if isinstance(divisor, Lazy):
        raise Dense("it divides by a weight")
    return _scaled(equation, value, divisor, operator.truediv)


def _scaled(
    equation: Equation, value: Any, operand: Any, scale: Callable[[Any, Any], Any]
) -> list[Any]:
    if isinstance(operand, Lazy) or not isinstance(value, Perturbed):
        raise Dense("two of its operands are perturbed")
    if jnp.size(operand) != 1 or jnp.ndim(operand) > len(value.shape):
        raise Dense("it scales the entries differently")
    if not jnp.issubdtype(jnp.result_type(operand), jnp.floating):
        raise Dense("its operands are of different kinds")
    return [
        dataclasses.replace(
            value,
            base=bind(equation, [value.base, operand])[0],
            rows=scale(value.rows, jnp.reshape(operand, ())),
        )
    ]


def _added(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    left, right = operands
    if isinstance(left, Lazy) and isinstance(right, Lazy):
        raise Dense("two of its operands are perturbed")
    value = left if isinstance(left, Lazy) else right
    if equation.outputs[0].aval.shape != value.base.shape:
        raise Dense("its operands are of different shapes")
    subtracted = equation.name == "sub" and value is right
    if isinstance(value, Squared):
        if equation.name == "sub":
            raise Dense("it is the square of a weight")
        return [Squared(value.of, value.more + (right if value is left else left))]
    base = bind(equation, [value.base if x is value else x for x in operands])[0]
    rows = -value.rows if subtracted else value.rows
    return [dataclasses.replace(value, base=base, rows=rows)]


def _squared(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value = _only(operands)
    if equation.params.get("y", 2) != 2:
        raise Dense("it is a power other than the square")
    return [Squared(value)]


def _sliced(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value = _only(operands)
    starts, limits = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(starts)
    base = _same(equation, value.base)

    def part(x, axes):
        index = (slice(starts[a], limits[a], strides[a]) for a in axes)
        return x[(slice(None), *index)], axes

    return [_with_parts(value, base, part)]


def _dynamically_sliced(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value, starts = _only(operands), operands[1:]
    sizes = equation.params["slice_sizes"]
    base = bind(equation, [value.base, *starts])[0]

    def part(x, axes):
        for i, a in enumerate(axes):
            # JAX has counted negative indices from the end already.
            x = jax.lax.dynamic_slice_in_dim(
                x, starts[a], sizes[a], i + 1, allow_negative_indices=False
            )
        return x, axes

    return [_with_parts(value, base, part)]


def _split(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value = _only(operands)
    axis, sizes = equation.params["axis"], equation.params["sizes"]
    ends = list(np.cumsum(sizes)[:-1])
    bases = bind(equation, [value.base])

    def parts(x, axes):
        if axis not in axes:
            return [x] * len(sizes)
        return jnp.split(x, ends, axes.index(axis) + 1)

    return [
        _normal(base, (a, value.row_axes), (b, value.column_axes), value.leaf)
        for base, a, b in zip(
            bases,
            parts(value.rows, value.row_axes),
            parts(value.columns, value.column_axes),
            strict=True,
        )
    ]


def _reversed(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    value = _only(operands)
    turned = equation.params["dimensions"]

    def part(x, axes):
        return jnp.flip(x, [i + 1 for i, a in enumerate(axes) if a in turned])

    return [
        dataclasses.replace(
            value,
            base=_same(equation, value.base),
            rows=part(value.rows, value.row_axes),
            columns=part(value.columns, value.column_axes),
        )
    ]


_LETTERS = "abcdefghijklmnopqstuvwxyzABCDEFGHIJKLMNOPQSTUVWXYZ"
_RANK, _RANK2 = "r", "R"
"""Of einsum: the names of axes, and of the rank."""


def _named(axes: Iterable[int]) -> str:
    return "".join(_LETTERS[a] for a in axes)


def _einsum(expression: str, *operands: Any) -> Any:
    return jnp.einsum(expression, *operands, precision=jax.lax.Precision.HIGHEST)


def _summed(equation: Equation, operands: Sequence[Any]) -> list[Any]:
    (value,) = operands
    base = _same(equation, value.base)
    axes = set(equation.params["axes"])
    squares = isinstance(value, Squared)
    of = value.of if squares else value
    kept = [a for a in range(len(of.shape)) if a not in axes]
    used = {*of.row_axes, *of.column_axes}
    # Along an axis of neither factor δ is the same: it counts as often as it is long.
    repeats = np.prod([of.shape[a] for a in axes - used], dtype=float)
    rows, columns = _named(of.row_axes), _named(of.column_axes)
    wide = jnp.promote_types(of.base.dtype, jnp.float32)
    a, b = of.rows.astype(wide), of.columns.astype(wide)
    out = _named(a for a in kept if a in used)
    whole = _named(range(len(of.shape)))

    def at_kept(x):
        return jnp.expand_dims(x, [i for i, a in enumerate(kept) if a not in used])

    if not squares:
        added = _einsum(f"{_RANK}{rows},{_RANK}{columns}->{out}", a, b)
        return [(base + at_kept(repeats * added)).astype(base.dtype)]
    crossed = _einsum(
        f"{whole},{_RANK}{rows},{_RANK}{columns}->{_named(kept)}",
        of.base.astype(wide),
        a,
        b,
    )
    quadratic = _einsum(
        f"{_RANK}{rows},{_RANK2}{rows},{_RANK}{columns},{_RANK2}{columns}->{out}",
        a,
        a,
        b,
        b,
    )
    return [(base + 2 * crossed + at_kept(repeats * quadratic)).astype(base.dtype)]


def slices(value: Perturbed) -> tuple[Any, Any, Any]:
    """What a loop over the first axis slices: base, rows, columns; None if constant."""
    rows, columns = (
        jnp.moveaxis(x, 1, 0) if 0 in axes else None for x, axes in value.parts
    )
    return value.base, rows, columns


def sliced_along(value: Perturbed, one: tuple[Any, Any, Any]) -> Perturbed:
    """An iteration's slice of ``value``, from that of its ``slices``."""
    base, *parts = one

    def part(x, sliced, axes):
        return (x if sliced is None else sliced), tuple(a - 1 for a in axes if a > 0)

    rows, columns = (
        part(x, sliced, axes)
        for sliced, (x, axes) in zip(parts, value.parts, strict=True)
    )
    return _normal(base, rows, columns, value.leaf)


RULES: dict[str, Callable[[Equation, Sequence[Any]], list[Any]]] = {
    "add": _added,
    "add_any": _added,
    "broadcast_in_dim": _broadcast,
    "convert_element_type": _convert,
    "copy": _identity,
    "div": _divided,
    "dynamic_slice": _dynamically_sliced,
    "integer_pow": _squared,
    "mul": _multiplied,
    "neg": _negated,
    "pvary": _identity,
    "reduce_sum": _summed,
    "reshape": _reshape,
    "rev": _reversed,
    "slice": _sliced,
    "split": _split,
    "square": _squared,
    "squeeze": _squeeze,
    "sub": _added,
    "transpose": _transpose,
}
"""By the name of the primitive: the results of an equation with a lazy operand."""
