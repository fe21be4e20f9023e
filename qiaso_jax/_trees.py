"""Trees of parameters: which leaves move, and how updates and a displacement add up."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from qiaso_jax._arguments import PyTree


def is_inexact(leaf: Any) -> bool:
    """Whether a leaf is moved at all: integers and booleans are not."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def on_inexact(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """``optimizer`` on the leaves that move, and nothing on the others."""
    return optax.masked(optimizer, lambda tree: jax.tree.map(is_inexact, tree))


def update_if(
    condition: jax.Array,
    optimizer: optax.GradientTransformationExtraArgs,
    gradient: PyTree,
    opt_state: PyTree,
    params: PyTree,
) -> tuple[PyTree, PyTree]:
    """``optimizer.update`` in the dtypes of ``params``; zeros and no change else."""
    moved, new_state = optimizer.update(gradient, opt_state, params)
    moved = jax.tree.map(lambda m, p: m.astype(p.dtype), moved, params)
    return optax.tree.where(
        condition, (moved, new_state), (optax.tree.zeros_like(moved), opt_state)
    )


def arrays(tree: PyTree) -> PyTree:
    """Numbers as arrays of a definite dtype; shapes without values as they are."""

    def convert(leaf):
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        # Weakly typed leaves would turn strong in the first step, and recompile it.
        return jnp.asarray(leaf, jnp.result_type(leaf))

    return jax.tree.map(convert, tree)


def amplitude_dtype(params: PyTree) -> np.dtype:
    """Float32, or the real precision of the widest weights."""
    widest = jnp.dtype(jnp.float32)
    for leaf in jax.tree.leaves(params):
        if is_inexact(leaf):
            widest = jnp.promote_types(widest, jnp.finfo(leaf.dtype).dtype)
    return widest


def check_same_structure(name: str, tree: PyTree, params: PyTree) -> None:
    """Raises ``ValueError`` if ``tree``, called ``name``, is unlike ``params``."""
    structure, expected = jax.tree.structure(tree), jax.tree.structure(params)
    if structure != expected:
        raise ValueError(
            f"{name} must have the structure of params, {expected}; got {structure}."
        )


def updates_and_centre(
    updates: PyTree | None, params: PyTree | None
) -> tuple[PyTree, PyTree]:
    """The updates as arrays, zeros for ``None``, and the centre ``params + updates``.

    Raises:
      ValueError: if ``params`` are missing, or the trees differ.
    """
    if params is None:
        raise ValueError(
            "the optimizer needs the parameters: call update(updates, state, params, "
            "value_fn=...); got params=None."
        )
    params = arrays(params)
    if updates is None:
        return optax.tree.zeros_like(params), params
    check_same_structure("updates", updates, params)
    for update, param in zip(
        jax.tree.leaves(updates), jax.tree.leaves(params), strict=True
    ):
        if is_inexact(param) and jnp.shape(update) != param.shape:
            raise ValueError(
                "updates must have the shapes of params, "
                f"{param.shape} for one leaf; got {jnp.shape(update)}."
            )
    updates = arrays(updates)
    centre = jax.tree.map(
        lambda p, u: (p + u).astype(p.dtype) if is_inexact(p) else p, params, updates
    )
    return updates, centre


def added(updates: PyTree, displacement: PyTree) -> PyTree:
    """``updates + displacement`` in the dtypes of ``updates``."""
    return jax.tree.map(
        lambda u, d: (u + d).astype(u.dtype) if is_inexact(d) else u,
        updates,
        displacement,
    )
