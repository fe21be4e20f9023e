"""Integers that are known before anything runs, and rows that are looked up by them.

``logits[jnp.arange(B), y]`` gathers for row n from row n. That the indices are 0, 1, 2…
is a matter of their values: they are computed here, from constants and ``iota`` alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.core import Tracer

MAX_SIZE = 2**20
"""Arrays of more entries are not looked into."""


def constant(value: Any) -> np.ndarray | None:
    """A constant of a program, if it is an array of integers that is known."""
    if isinstance(value, Tracer) or not _integers(getattr(value, "dtype", None)):
        return None
    return np.asarray(value) if np.size(value) <= MAX_SIZE else None


def _integers(dtype: Any) -> bool:
    # NumPy does not know of the dtypes of PRNG keys.
    return isinstance(dtype, np.dtype) and dtype.kind in "iub"


def result(
    name: str,
    params: Mapping[str, Any],
    operands: Sequence[np.ndarray | None],
    aval: Any,
) -> np.ndarray | None:
    """The value of an equation on known integers, if that is known too."""
    compute = _COMPUTE.get(name)
    if (
        compute is None
        or any(operand is None for operand in operands)
        or not _integers(aval.dtype)
        or aval.size > MAX_SIZE
    ):
        return None
    return np.asarray(compute(params, aval, *operands)).astype(aval.dtype)


Columns = tuple[np.ndarray | None, ...]
"""Of an array of indices, along its last axis; None for those not known."""


def columns_of(value: np.ndarray | None, number: int) -> Columns:
    """The columns of a known array, or as many that are not known."""
    return tuple(None if value is None else value[..., i] for i in range(number))


def aligned(
    axes: Sequence[int], places: Sequence[int | None], known: Columns, shape: Any
) -> list[tuple[int, int]]:
    """The axes of an operand that are looked up by 0, 1, 2…, and where they end.

    Args:
      axes: of the operand, one per column of the indices.
      places: where the axes of the indices are in the result.
      known: the columns of the indices, or None for those that are not known.
      shape: of the operand.
    """
    pairs = []
    for axis, column in zip(axes, known, strict=True):
        if column is None:
            continue
        for i, place in enumerate(places):
            if place is None or column.shape[i] != shape[axis]:
                continue
            count = np.arange(shape[axis]).reshape(-1, *[1] * (column.ndim - i - 1))
            if np.array_equal(column, np.broadcast_to(count, column.shape)):
                pairs.append((axis, place))
    return pairs


def _iota(params: Mapping[str, Any], aval: Any) -> np.ndarray:
    axis = params["dimension"]
    count = np.arange(aval.shape[axis])
    return np.broadcast_to(
        count.reshape(-1, *[1] * (len(aval.shape) - axis - 1)), aval.shape
    )


def _broadcast(params: Mapping[str, Any], aval: Any, value: np.ndarray) -> np.ndarray:
    shape = [1] * len(aval.shape)
    for axis, size in zip(params["broadcast_dimensions"], value.shape, strict=True):
        shape[axis] = size
    return np.broadcast_to(value.reshape(shape), aval.shape)


def _reshaped(params: Mapping[str, Any], aval: Any, value: np.ndarray) -> np.ndarray:
    del params
    return value.reshape(aval.shape)


def _plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, aval, *operands: function(*operands)


_COMPUTE: dict[str, Callable[..., Any]] = {
    "iota": _iota,
    "broadcast_in_dim": _broadcast,
    "reshape": _reshaped,
    "squeeze": _reshaped,
    "convert_element_type": _plainly(lambda x: x),
    "select_n": _plainly(lambda which, *cases: np.choose(which.astype(int), cases)),
    "add": _plainly(np.add),
    "sub": _plainly(np.subtract),
    "mul": _plainly(np.multiply),
    "lt": _plainly(np.less),
    "ge": _plainly(np.greater_equal),
}
