"""The coordinates that are searched, as one vector in units of their spread."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree

from qiaso_jax._arguments import PyTree
from qiaso_jax._trees import moving, whole
from qiaso_jax.search.bounds import Box, into
from qiaso_jax.search.integers import rounded

REACH = 2.0
"""So many σ from the start a restart may be, in each coordinate."""


class Space(NamedTuple):
    """What is searched, where u = 0 is the start and a step of 1 is one σ.

    Attributes:
      origin: the start, shape ``[N]``.
      unit: σ of each coordinate, shape ``[N]``; 0 for one that traced bounds fix.
      lower: their bounds, shape ``[N]``.
      upper: likewise.
      whole: which are whole numbers, shape ``[N]``.
    """

    origin: jax.Array
    unit: jax.Array
    lower: jax.Array
    upper: jax.Array
    whole: jax.Array

    @property
    def offset(self) -> jax.Array:
        """The start in units of σ, shape ``[N]``."""
        return self.origin / jnp.where(self.unit > 0, self.unit, 1)

    def start(self, key: jax.Array) -> jax.Array:
        """A u to restart from: within the bounds, and not beyond ``REACH``."""
        dtype, shape = self.origin.dtype, self.origin.shape
        unit = jnp.where(self.unit > 0, self.unit, jnp.inf)
        low = jnp.maximum((self.lower - self.origin) / unit, -REACH)
        high = jnp.minimum((self.upper - self.origin) / unit, REACH)
        share = jax.random.uniform(key, shape, dtype)
        return low + (high - low) * share


class Coordinates(NamedTuple):
    """The coordinates of a pytree that are searched.

    Attributes:
      x0: the start, a pytree.
      moves: which of its leaves are searched, booleans like ``x0``.
      within: the bounds.
      integers: which coordinates are whole numbers, booleans or arrays of these.
      space: of the coordinates that are searched.
      places: which they are among the numbers of ``x0``, shape ``[N]``.
    """

    x0: PyTree
    moves: PyTree
    within: Box
    integers: PyTree
    space: Space
    places: np.ndarray

    @property
    def size(self) -> int:
        """N."""
        return len(self.places)

    def point(self, u: jax.Array) -> PyTree:
        """The x at ``u``, shape ``[N]``, reflected into the bounds, and rounded."""
        flat, restored = _raveled(moving(self.x0, self.moves))
        moved = (self.space.origin + self.space.unit * u).astype(flat.dtype)
        # The start is itself, whatever the precision of the sum.
        moved = jnp.where(u == 0, flat[self.places], moved)
        moved = restored(flat.at[self.places].set(moved))
        return rounded(self.integers, into(self.within, whole(self.x0, moved)))


class Outline(NamedTuple):
    """What ``Coordinates`` are but for their arrays of JAX; it can be compared.

    Attributes:
      treedef: the structure.
      known: of each leaf, dtype, shape and content if it is of NumPy, else ``None``.
    """

    treedef: Any
    known: tuple[tuple[Any, tuple[int, ...], bytes] | None, ...]

    def filled(self, arrays: list[Any]) -> Coordinates:
        """The coordinates with these arrays."""
        left = iter(arrays)
        return self.treedef.unflatten(
            next(left) if known is None else _restored(*known) for known in self.known
        )


def outlined(where: Coordinates) -> tuple[Outline, list[Any]]:
    """The outline of coordinates, and their arrays of JAX."""
    leaves, treedef = jax.tree.flatten(where)
    arrays = [leaf for leaf in leaves if isinstance(leaf, jax.Array)]
    known = (None if isinstance(leaf, jax.Array) else _content(leaf) for leaf in leaves)
    return Outline(treedef, tuple(known)), arrays


def _content(leaf: Any) -> tuple[Any, tuple[int, ...], bytes]:
    array = np.asarray(leaf)
    return array.dtype, array.shape, array.tobytes()


def _restored(dtype: Any, shape: tuple[int, ...], content: bytes) -> np.ndarray:
    return np.frombuffer(content, dtype).reshape(shape)


def coordinates(
    x0: PyTree, moves: PyTree, within: Box, sigma: PyTree, integers: PyTree
) -> Coordinates:
    """Those of ``x0``, less those that bounds fix where these are known.

    Args:
      x0: the start, within the bounds.
      moves: which leaves are searched.
      within: the bounds.
      sigma: σ of each coordinate, a pytree like ``x0``.
      integers: which coordinates are whole numbers, likewise.
    """

    def flat(tree):
        full = jax.tree.map(
            lambda value, x: jnp.broadcast_to(jnp.asarray(value, _real(x)), x.shape),
            tree,
            x0,
        )
        parts = jax.tree.map(
            lambda value, x: jnp.stack([value, value]) if _is_complex(x) else value,
            moving(full, moves),
            moving(x0, moves),
        )
        return ravel_pytree(parts)[0]

    origin, _ = _raveled(moving(x0, moves))
    free = [np.ones(x.shape, bool) for x in jax.tree.leaves(moving(x0, moves))]
    known = jax.tree.leaves(moving(within.free, moves))
    if not any(isinstance(part, Tracer) for part in known):
        free = [np.broadcast_to(a, b.shape) for a, b in zip(known, free, strict=True)]
    twice = [_is_complex(x) for x in jax.tree.leaves(moving(x0, moves))]
    chosen = [
        np.concatenate([part.ravel()] * (1 + double))
        for part, double in zip(free, twice, strict=True)
    ]
    places = np.flatnonzero(np.concatenate(chosen))
    dtype = jnp.promote_types(origin.dtype, jnp.float32)
    # A complex number of variance σ² has parts of half of it.
    halves = jax.tree.map(
        lambda s, x: s * np.sqrt(0.5).astype(s.dtype) if _is_complex(x) else s,
        jax.tree.map(jnp.asarray, sigma),
        x0,
    )
    parts = (halves, within.lower, within.upper)
    space = Space(
        origin.astype(dtype)[places],
        *(flat(tree).astype(dtype)[places] for tree in parts),
        whole=flat(integers)[places] > 0,
    )
    return Coordinates(x0, moves, within, integers, space, places)


def _is_complex(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.complexfloating)


def _real(x: jax.Array) -> Any:
    inexact = jnp.issubdtype(x.dtype, jnp.inexact)
    return jnp.finfo(x.dtype).dtype if inexact else jnp.float32


def _raveled(tree: PyTree) -> tuple[jax.Array, Any]:
    """Its numbers as one real vector, and the way back."""
    flat, restored = ravel_pytree(
        jax.tree.map(
            lambda x: jnp.stack([x.real, x.imag]) if _is_complex(x) else x, tree
        )
    )

    def back(flat):
        return jax.tree.map(
            lambda part, x: (
                jax.lax.complex(part[0], part[1]) if _is_complex(x) else part
            ),
            restored(flat),
            tree,
        )

    return flat, back
