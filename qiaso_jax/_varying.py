"""What differs from device to device within ``jax.shard_map``, as JAX keeps book of it.

Along the axes of a mesh over which a ``shard_map`` is, arrays are the same on all
devices or vary. With ``check_vma=False`` JAX does not know, and nothing varies here.
"""

from typing import Any

import jax

from qiaso_jax._arguments import PyTree


def axes_there() -> frozenset[str]:
    """The axes of a mesh along which the code that is traced is of one device."""
    return frozenset(jax.sharding.get_abstract_mesh().manual_axes)


def axes_of(tree: PyTree) -> frozenset[str]:
    """The axes of a mesh along which any array of ``tree`` varies."""
    if not axes_there():
        return frozenset()
    arrays = (x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array))
    return frozenset().union(*(jax.typeof(x).manual_axis_type.varying for x in arrays))


def along(tree: PyTree, axes: frozenset[str]) -> PyTree:
    """``tree``, whose arrays count as varying along ``axes`` from here on."""

    def of_leaf(x: Any) -> Any:
        missing = axes - axes_of(x)
        if not missing or not isinstance(x, jax.Array):
            return x
        return jax.lax.pcast(x, tuple(sorted(missing)), to="varying")

    return jax.tree.map(of_leaf, tree) if axes else tree


def together(tree: PyTree) -> PyTree:
    """``tree``, whose arrays vary alike from here on."""
    return along(tree, axes_of(tree))


def like(tree: PyTree, *others: PyTree) -> PyTree:
    """``tree``, to be the first of a carry that varies as all of ``others`` do."""
    return along(tree, axes_of(others))


def summed(tree: PyTree, axis_name: str | None) -> PyTree:
    """The sum over the devices along an axis, if there is one."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def averaged(tree: PyTree, axis_name: str | None) -> PyTree:
    """The mean over the devices along an axis, if there is one."""
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)


def greatest(tree: PyTree, axis_name: str | None) -> PyTree:
    """The maximum over the devices along an axis, if there is one."""
    return tree if axis_name is None else jax.lax.pmax(tree, axis_name)


def mean_of_all(x: jax.Array) -> jax.Array:
    """The mean over all devices for which a number is another one."""
    axes = tuple(sorted(axes_of(x)))
    return jax.lax.pmean(x, axes) if axes else x


def check_reduced(losses: PyTree, centre: PyTree) -> None:
    """Raises ``ValueError`` for losses that vary where the parameters do not."""
    axes = sorted(axes_of(losses) - axes_of(centre))
    if axes:
        named = ", ".join(map(repr, axes))
        raise ValueError(
            f"the loss that value_fn returns varies over the mesh axis {named}, which "
            "the parameters do not vary over: every device would move them elsewhere. "
            "Reduce it in value_fn over all examples, as by "
            f"jax.lax.pmean(loss, {axes[0]!r})."
        )
