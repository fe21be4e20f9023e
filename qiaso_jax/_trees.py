"""Trees of parameters: which leaves move, and how updates and a displacement add up.

What moves are leaves of floating or complex numbers that the mask does not leave out.
A kernel, and the inner optimizer, see a tree with ``None`` in the place of all others.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from qiaso_jax._arguments import PyTree

Mask = PyTree | Callable[[PyTree], PyTree] | None
"""A pytree (prefix) of booleans, or a function of the parameters that returns one."""


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf has floating or complex numbers."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def is_number(leaf: Any) -> bool:
    """Whether a leaf is an array of numbers or booleans, which may have an update."""
    return hasattr(leaf, "dtype") and (
        jnp.issubdtype(leaf.dtype, np.number) or leaf.dtype == bool
    )


def name_of(path: Any, tree: str = "params") -> str:
    """A leaf as it would be written in Python, such as ``params['dense']['bias']``."""
    return tree + jax.tree_util.keystr(path)


def arrays(tree: PyTree) -> PyTree:
    """Numbers as arrays of a definite dtype; shapes and all other objects as are."""
    return jax.tree.map(_array, tree)


def _array(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array | np.ndarray | np.generic):
        has_numbers = is_number(leaf)
    else:
        has_numbers = isinstance(leaf, bool | int | float | complex)
    if has_numbers:
        # Weakly typed leaves would turn strong in the first step, and recompile it.
        return jnp.asarray(leaf, jnp.result_type(leaf))
    return jnp.asarray(leaf) if hasattr(leaf, "__jax_array__") else leaf


def broadcast(name: str, kinds: str, prefix: PyTree, tree: PyTree, of: str) -> PyTree:
    """``prefix`` as a pytree like ``tree``, or our error.

    Args:
      name: of the argument that ``prefix`` is.
      kinds: what its leaves may be, in words.
      prefix: a leaf, or a pytree that ``tree`` goes on from.
      tree: a pytree.
      of: what ``tree`` is called.
    """
    try:
        return jax.tree.broadcast(prefix, tree)
    except ValueError as error:
        raise ValueError(
            f"{name} must be {kinds}, or a pytree of these that is a prefix of {of}, "
            f"whose structure is {jax.tree.structure(tree)}; got "
            f"{jax.tree.structure(prefix)}."
        ) from error


def moves(params: PyTree, mask: Mask) -> PyTree:
    """Which leaves move: a pytree of booleans like ``params``.

    Raises:
      TypeError: if the mask has other leaves than booleans; if a leaf that would move
        is of a dtype that offsets cannot be added in; within ``optax.masked``.
      ValueError: if the mask is no prefix of ``params``, or no leaf moves.
    """
    _refuse_masked_nodes(params)
    chosen = mask(params) if callable(mask) else True if mask is None else mask
    chosen = broadcast("mask", "a boolean", chosen, params, "params")

    def of_leaf(path, leaf, chosen):
        if not isinstance(chosen, bool | np.bool_):
            raise TypeError(
                f"mask must be of booleans, got {chosen!r} for {name_of(path)}."
            )
        if not (chosen and is_inexact(leaf)):
            return False
        if jnp.finfo(leaf.dtype).bits < 16:
            raise TypeError(
                f"{name_of(path)} has dtype {leaf.dtype}, in which offsets are lost to "
                "rounding; keep weights that move in float16 or wider, or leave this "
                "one out by mask=."
            )
        return True

    return jax.tree_util.tree_map_with_path(of_leaf, params, chosen)


def _refuse_masked_nodes(params: PyTree) -> None:
    def is_masked(node):
        return isinstance(node, optax.MaskedNode)

    if any(map(is_masked, jax.tree.leaves(params, is_leaf=is_masked))):
        raise TypeError(
            "value_fn would not get the parameters that optax.masked, optax.partition "
            "or optax.multi_transform leave out; name the leaves that move by mask= of "
            "the optimizer itself, and value_fn sees all of them."
        )


def check_any(params: PyTree, moves: PyTree) -> None:
    """Raises ``ValueError`` if no leaf moves."""
    if any(jax.tree.leaves(moves)):
        return
    kinds = sorted(
        {
            str(leaf.dtype) if hasattr(leaf, "dtype") else type(leaf).__name__
            for leaf in jax.tree.leaves(params)
        }
    )
    raise ValueError(
        "params must have a leaf of floating or complex numbers that mask does not "
        f"leave out, or there is nothing to move; got {', '.join(kinds) or 'no leaf'}."
    )


def moving(tree: PyTree, moves: PyTree) -> PyTree:
    """``tree`` with ``None`` in the place of the leaves that stay."""
    return jax.tree.map(lambda m, leaf: leaf if m else None, moves, tree)


def whole(tree: PyTree, moved: PyTree) -> PyTree:
    """``tree`` with the leaves of ``moved``, which has ``None`` for all others."""
    return jax.tree.map(lambda leaf, m: leaf if m is None else m, tree, moved)


def whole_candidates(tree: PyTree, moved: PyTree) -> PyTree:
    """The same for candidates: ``moved`` has a leading axis, and so have all arrays."""
    number = jax.tree.leaves(moved)[0].shape[0]

    def repeated(leaf):
        is_array = hasattr(leaf, "shape")
        return jnp.broadcast_to(leaf, (number, *leaf.shape)) if is_array else leaf

    return whole(jax.tree.map(repeated, tree), moved)


def amplitude_dtype(params: PyTree) -> np.dtype:
    """Float32, or the real precision of the widest weights."""
    widest = jnp.dtype(jnp.float32)
    for leaf in jax.tree.leaves(params):
        widest = jnp.promote_types(widest, jnp.finfo(leaf.dtype).dtype)
    return widest


def updates_and_centre(updates: PyTree | None, params: PyTree) -> tuple[PyTree, PyTree]:
    """The updates, zeros for ``None``, and the centre ``params + updates``.

    What is no number has no update: it stays ``None``.

    Raises:
      ValueError: if the trees differ in structure or shape.
    """
    if updates is None:
        zeros = jax.tree.map(
            lambda p: jnp.zeros_like(p) if is_number(p) else None, params
        )
        return zeros, params
    structure = jax.tree.structure(params)
    try:
        given = structure.flatten_up_to(updates)
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"updates must have the structure of params, {structure}; got "
            f"{jax.tree.structure(updates)}."
        ) from error
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    added = [
        _update_and_leaf(path, update, leaf)
        for update, (path, leaf) in zip(given, leaves, strict=True)
    ]
    return (
        structure.unflatten([update for update, _ in added]),
        structure.unflatten([leaf for _, leaf in added]),
    )


def _update_and_leaf(path: Any, update: Any, leaf: Any) -> tuple[Any, Any]:
    if not is_inexact(leaf):
        return update, leaf
    if update is None:
        return jnp.zeros_like(leaf), leaf
    if not jax.tree_util.all_leaves([update]):
        raise ValueError(
            f"updates must have the structure of params; got {update!r} for the leaf "
            f"{name_of(path)}."
        )
    update = arrays(update)
    if jnp.shape(update) != leaf.shape:
        raise ValueError(
            f"updates must have the shapes of params, {leaf.shape} for "
            f"{name_of(path)}; got {jnp.shape(update)}."
        )
    return update, (leaf + update).astype(leaf.dtype)


def zeros_unless_given(updates: Any, params: PyTree) -> Any:
    """Zeros for ``None``, which wrappers around an optimizer of ours do not take."""
    return updates_and_centre(None, arrays(params))[0] if updates is None else updates


def all_finite(tree: PyTree) -> jax.Array:
    """Whether all numbers of a tree of arrays are finite."""
    finite = [jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]
    return jnp.all(jnp.stack(finite))


def added(updates: PyTree, displacement: PyTree) -> PyTree:
    """``updates + displacement`` in the dtypes of ``updates``."""
    return jax.tree.map(
        lambda u, d: u if d is None else (u + d).astype(u.dtype),
        updates,
        displacement,
        is_leaf=lambda leaf: leaf is None,
    )


def widened(tree: PyTree) -> PyTree:
    """Float16 as float32, as squares of a pseudo-gradient leave its range."""

    def widen(leaf):
        if leaf.dtype != jnp.float16:
            return leaf
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return jax.ShapeDtypeStruct(leaf.shape, jnp.float32)
        return leaf.astype(jnp.float32)

    return jax.tree.map(widen, tree)


def sharded_like(tree: PyTree, like: PyTree) -> PyTree:
    """``tree`` over the devices as ``like`` is, where a mesh has explicit axes."""

    def leaf_like(x, like):
        sharding = jax.typeof(like).sharding
        explicit = jax.sharding.AxisType.Explicit in sharding.mesh.axis_types
        return jax.sharding.reshard(x, sharding) if explicit else x

    return jax.tree.map(leaf_like, tree, like)


def copied(state: PyTree) -> PyTree:
    """Every leaf an array of its own, so that a state can be donated."""
    return jax.tree.map(lambda x: x.copy() if isinstance(x, jax.Array) else x, state)
