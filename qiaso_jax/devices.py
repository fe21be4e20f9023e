"""Devices: candidates along an axis of a mesh, each device with some of its own.

A device draws and evaluates its candidates from the key and their numbers. What crosses
are the K losses, and one sum of the size of the parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from qiaso_jax import _trees
from qiaso_jax._arguments import PyTree
from qiaso_jax.superposition import (
    Candidates,
    Drawn,
    OfOffset,
    OfOffsetIn,
    Superposition,
)


class Axis(NamedTuple):
    """An axis of a mesh, as the arguments ``mesh`` and ``axis_name`` say.

    Attributes:
      name: of the axis.
      mesh: ``None`` for the one that is known where ``update`` is called.
    """

    name: str
    mesh: Mesh | AbstractMesh | None

    @property
    def is_bound(self) -> bool:
        """Whether the code that is traced is of one device along the axis."""
        try:
            jax.lax.axis_size(self.name)
        except NameError:
            return False
        return True

    def run(
        self,
        fun: Callable[[Any, PyTree, PyTree], Any],
        state: Any,
        params: PyTree,
        kwargs: PyTree,
        places: Sequence[int | None] | None = None,
    ) -> Any:
        """``fun(state, params, kwargs)`` on every device along the axis.

        Args:
          fun: what it returns must be the same on all of them.
          state: the same on all.
          params: likewise.
          kwargs: arrays and others.
          places: along which axes the leaves of ``kwargs`` are divided; ``None`` for
            those that are not, or if none is.
        """
        if self.is_bound:
            return fun(state, params, kwargs)
        leaves, treedef = jax.tree.flatten((state, params, kwargs))
        divided = list(places or [None] * len(jax.tree.leaves(kwargs)))
        divided = [None] * (len(leaves) - len(divided)) + divided
        # What is no array is the same everywhere, and no operand.
        held = [
            i for i, x in enumerate(leaves) if isinstance(x, jax.Array | np.ndarray)
        ]

        def on_device(arrays):
            own = dict(zip(held, arrays, strict=True))
            return fun(*treedef.unflatten(own.get(i, x) for i, x in enumerate(leaves)))

        on_devices = jax.shard_map(
            on_device,
            mesh=self._found(),
            in_specs=([_spec({divided[i]: (self.name,)}) for i in held],),
            out_specs=PartitionSpec(),
            axis_names={self.name},
            check_vma=False,
        )
        return on_devices(
            [self._laid(jnp.asarray(leaves[i]), divided[i]) for i in held]
        )

    def _laid(self, x: jax.Array, place: int | None) -> jax.Array:
        """An array along whose axis ``place`` this one is, and along no other."""
        size = dict(self._found().shape)[self.name]
        if place is not None and x.shape[place] % size:
            raise ValueError(
                f"the {x.shape[place]} examples of the minibatch must be a multiple of "
                f"{size}, the number of devices along {self.name!r}."
            )
        lies = _explicit(x)
        if self.name not in lies.mesh.axis_names:
            return x
        names = {
            i: tuple(n for n in _names(entry) if n != self.name)
            for i, entry in enumerate(lies.spec)
        }
        if place is not None:
            names[place] = (*names.get(place, ()), self.name)
        return jax.sharding.reshard(x, NamedSharding(lies.mesh, _spec(names)))

    def _found(self) -> Mesh | AbstractMesh:
        mesh = jax.sharding.get_abstract_mesh() if self.mesh is None else self.mesh
        if self.name not in mesh.axis_names:
            raise ValueError(
                f"axis_name={self.name!r} is no axis here: call update within a "
                "jax.shard_map over it or under jax.set_mesh with a mesh that has it, "
                f"or give mesh=; found the axes {list(mesh.axis_names)}."
            )
        return mesh


def are_divided(axis: Axis | None, kwargs: PyTree) -> bool:
    """Whether arguments may be divided here, and not by the caller already."""
    if axis is not None:
        return not axis.is_bound
    arrays = (x for x in jax.tree.leaves(kwargs) if isinstance(x, jax.Array))
    return any(_explicit(x).mesh.axis_names for x in arrays)


def axis_along(leaves: Sequence[Any], places: Sequence[int | None]) -> Axis | None:
    """The explicit axis of a mesh that examples lie along, if they do along one.

    Args:
      leaves: arrays and others.
      places: which of their axes count the examples.

    Raises:
      ValueError: if they lie along several.
    """
    found = {}
    for x, place in zip(leaves, places, strict=True):
        if place is not None:
            lies = _explicit(x)
            names = dict(enumerate(lies.spec)).get(place)
            found.update(dict.fromkeys(_names(names), lies.mesh))
    if len(found) > 1:
        raise ValueError(
            f"the examples are divided over the axes {sorted(found)} of a mesh, and "
            "can be over one: reshape the mesh."
        )
    return next((Axis(name, mesh) for name, mesh in found.items()), None)


def _explicit(x: jax.Array) -> NamedSharding:
    """How an array lies over the explicit axes of a mesh."""
    lies = jax.typeof(x).sharding
    kinds = dict(zip(lies.mesh.axis_names, lies.mesh.axis_types, strict=True))
    if AxisType.Explicit in kinds.values():
        return lies
    return NamedSharding(AbstractMesh((), ()), PartitionSpec())


def _names(entry: Any) -> tuple[str, ...]:
    """The axes of a mesh in one entry of a ``PartitionSpec``."""
    if entry is None:
        return ()
    return (entry,) if isinstance(entry, str) else tuple(entry)


def _spec(names: Mapping[Any, tuple[str, ...]]) -> PartitionSpec:
    """The spec of arrays whose axes lie along those of a mesh that are named."""
    last = max((i for i in names if i is not None), default=-1)
    return PartitionSpec(*(names.get(i) or None for i in range(last + 1)))


def axis(mesh: Any, axis_name: Any) -> Axis | None:
    """The axis that arguments name, or our error; ``None`` if there is none."""
    if axis_name is not None and not isinstance(axis_name, str):
        raise TypeError(
            f"axis_name must be the name of one axis of a mesh, got {axis_name!r}."
        )
    if mesh is None:
        return None if axis_name is None else Axis(axis_name, None)
    if not isinstance(mesh, Mesh | AbstractMesh):
        raise TypeError(
            "mesh must be a jax.sharding.Mesh, as made by jax.make_mesh, "
            f"got {type(mesh).__name__}."
        )
    names = list(mesh.axis_names)
    if axis_name is None:
        if len(names) != 1:
            raise ValueError(
                f"axis_name must say along which of the axes {names} of mesh the "
                "candidates are divided; got None."
            )
        axis_name = names[0]
    if axis_name not in names:
        raise ValueError(
            f"axis_name must be one of the axes {names} of mesh, got {axis_name!r}."
        )
    return Axis(axis_name, mesh)


class Divided(NamedTuple):
    """Candidates of which every device along an axis has as many, pairs together.

    Attributes:
      own: those of this device.
      layout: of all.
      axis_name: of the devices.
    """

    own: Drawn
    layout: Superposition
    axis_name: str

    @property
    def number(self) -> int:
        """As ``Candidates`` says."""
        return self.layout.groups * self.layout.num_candidates

    @property
    def batch_size(self) -> int | None:
        """As ``Candidates`` says, on every device."""
        return self.own.batch_size

    def map(self, fun: OfOffset) -> Any:
        """As ``Candidates`` says."""
        return jax.tree.map(self._gathered, self.own.map(fun))

    def map_groups(self, fun: OfOffsetIn, data: PyTree) -> Any:
        """As ``Candidates`` says."""
        own = jax.tree.map(
            lambda x: x.reshape(self._devices, -1, *x.shape[1:])[self._index], data
        )
        return jax.tree.map(self._gathered, self.own.map_groups(fun, own))

    def together(self, fun: Callable[[Candidates], Any]) -> Any:
        """As ``Candidates`` says."""
        return jax.tree.map(self._gathered, fun(self.own))

    def weighted_offset(self, weights: Float[Array, " K"], centre: PyTree) -> PyTree:
        """As ``Candidates`` says."""
        own = weights.reshape(self._signs, self._devices, -1)[:, self._index]
        part = self.own.weighted_offset(own.reshape(-1), _trees.widened(centre))
        total = jax.lax.psum(part, self.axis_name)
        return jax.tree.map(lambda m, s: s.astype(m.dtype), centre, total)

    def is_finite(self, weights: Float[Array, " K"], total: PyTree) -> jax.Array:
        """As ``Candidates`` says."""
        return self.own.is_finite(weights, total)

    def _gathered(self, own: jax.Array) -> jax.Array:
        """The results of all devices, in the order of the candidates."""
        parts = own.reshape(self._signs, -1, *own.shape[1:])
        shape = (self._signs, self._devices, *parts.shape[1:])
        # A sum, unlike a gather, is known to be the same on all devices.
        placed = jnp.zeros(shape, own.dtype).at[:, self._index].set(parts)
        whole = jax.lax.psum(placed, self.axis_name).astype(own.dtype)
        return whole.reshape(-1, *own.shape[1:])

    @property
    def _signs(self) -> int:
        """In how many runs candidates are numbered; a device has a part of each."""
        return 1 if self.layout.groups > 1 else len(self.layout.signs)

    @property
    def _devices(self) -> int:
        return jax.lax.axis_size(self.axis_name)

    @property
    def _index(self) -> jax.Array:
        return jax.lax.axis_index(self.axis_name)


def divided(
    layout: Superposition,
    axis_name: str,
    key: jax.Array,
    like: PyTree,
    sigma: PyTree,
    batch_size: int | None,
) -> Divided:
    """The candidates of a key over the devices along an axis.

    Args:
      layout: of all candidates.
      axis_name: of the devices.
      key: as ``Superposition.candidates`` has it.
      like: likewise.
      sigma: likewise.
      batch_size: how many candidates may exist at a time on a device.

    Raises:
      ValueError: if there are not as many for each device.
    """
    devices = jax.lax.axis_size(axis_name)
    if layout.groups > 1:
        what, number, unit = "groups", layout.groups, devices
        mine = layout._replace(groups=number // devices)
    else:
        what, number = "num_candidates", layout.num_candidates
        unit = devices * len(layout.signs)
        mine = layout._replace(num_candidates=number // devices)
    if number % unit:
        pairs = "of pairs " if unit > devices else ""
        raise ValueError(
            f"{what} must be a multiple of {unit}, a whole number {pairs}for each of "
            f"the {devices} devices along {axis_name!r}; got {number}."
        )
    first = jax.lax.axis_index(axis_name) * (mine.groups * mine.num_rows)
    own = mine.candidates(key, like, sigma, batch_size, first)
    return Divided(own, layout, axis_name)
