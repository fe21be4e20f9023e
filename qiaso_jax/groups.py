"""Groups: candidates that each see a slice of the minibatch of their own."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from qiaso_jax._arguments import BatchArgnames


def slices_of(
    kwargs: dict[str, Any], groups: int, batch_argnames: BatchArgnames
) -> tuple[list[Any], Callable[[list[Any]], dict[str, Any]]]:
    """The arrays of a minibatch cut into slices, one for each group.

    Args:
      kwargs: the arguments of ``value_fn``.
      groups: how many slices.
      batch_argnames: names of the arguments that carry the examples, along the first
        axes of their arrays or the ones named; ``None`` for all that have arrays.

    Returns:
      The arrays, their slices along a new first axis; and the arguments that
      ``value_fn`` gets of the arrays of one slice.

    Raises:
      ValueError: if there is nothing to cut, or it cannot be cut evenly.
    """
    unknown = [name for name in batch_argnames or () if name not in kwargs]
    if unknown:
        raise ValueError(
            f"batch_argnames must be arguments that value_fn takes, "
            f"{', '.join(kwargs) or 'of which it was given none'}; got {unknown[0]!r}."
        )
    axes = batch_argnames if isinstance(batch_argnames, Mapping) else {}
    flat, treedef = jax.tree_util.tree_flatten_with_path(kwargs)
    values = [x for _, x in flat]
    names = [path[0].key for path, _ in flat]  # pyright: ignore[reportAttributeAccessIssue]
    for name, x in zip(names, values, strict=True):
        if name in (batch_argnames or ()) and jnp.ndim(x) <= axes.get(name, 0):
            raise ValueError(
                f"batch_argnames must name arguments whose arrays have the axis that "
                f"counts the examples, {axes.get(name, 0)} for {name}; got shape "
                f"{jnp.shape(x)}."
            )
    cut = [
        i
        for i, (name, x) in enumerate(zip(names, values, strict=True))
        if hasattr(x, "dtype")
        and jnp.ndim(x) > axes.get(name, 0)
        and (batch_argnames is None or name in batch_argnames)
    ]
    sizes = {i: values[i].shape[axes.get(names[i], 0)] for i in cut}
    _check(groups, {names[i]: size for i, size in sizes.items()}, set(sizes.values()))

    def slices(i):
        x, axis = jnp.asarray(values[i]), axes.get(names[i], 0)
        shape = (*x.shape[:axis], groups, -1, *x.shape[axis + 1 :])
        return jnp.moveaxis(x.reshape(shape), axis, 0)

    def arguments(arrays):
        own = dict(zip(cut, arrays, strict=True))
        return treedef.unflatten(own.get(i, x) for i, x in enumerate(values))

    return [slices(i) for i in cut], arguments


def _check(groups: int, found: dict[str, int], sizes: set[int]) -> None:
    if not sizes:
        raise ValueError(
            f"groups={groups} gives each group a slice of the minibatch: hand its "
            "arrays to update as keyword arguments that value_fn takes; got none."
        )
    if len(sizes) > 1:
        lengths = ", ".join(f"{name}: {size}" for name, size in found.items())
        raise ValueError(
            "groups cuts the arrays that carry the examples, which must be of one "
            "length; name their arguments by batch_argnames=, with the axis that "
            f"counts the examples if it is not the first. Got {lengths}."
        )
    (size,) = sizes
    if size % groups:
        raise ValueError(
            f"groups must divide the number of examples, {size}; got groups={groups}."
        )
