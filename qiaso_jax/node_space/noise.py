"""Noise at the sites: drawn by pair, added, and summed with weights.

Pairs are known by their index and drawn again from a key whenever they are needed, so
that no more of them than are evaluated at a time are ever stored. Of Rademacher noise
one random word holds up to 32 pairs, a bit each: a site's words are the size of one v.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from qiaso_jax import _varying
from qiaso_jax.node_space.directions import Directions, draw
from qiaso_jax.program.axes import LOSSES
from qiaso_jax.program.sites import Site


class SiteNoise(Protocol):
    """The noise at one site.

    Attributes:
      directions: what it is made of. The methods take the source of each, by ``draw``.
    """

    directions: list[Directions]

    def feed(self, sources: Sequence[jax.Array], pair: jax.Array) -> Any:
        """What ``at`` makes the noise of a pair of, stacked over the loops around v."""
        ...

    def at(self, feed: Any, pair: jax.Array) -> jax.Array:
        """The noise at v of the first of a pair; the second has its negative."""
        ...

    def zero(self, dtype: Any) -> Any:
        """The sum of ``add`` over no pairs."""
        ...

    def add(
        self,
        total: Any,
        sources: Sequence[jax.Array],
        pair: jax.Array,
        weights: jax.Array,
    ) -> Any:
        """``total`` + Σ_n weights_n · z_n of one pair, where ``weights`` is ``[b]``."""
        ...


class NodeNoise:
    """Noise at v itself: of every example its own, or in weight space shared.

    Args:
      site: where v is.
      axis: where v counts the examples; None for noise that they share.
      kind: a key of ``directions.REACH``.
      size: how far v moves.
      mask: which entries of v do; None for all.
      ratio: of σ, which the weights of pairs are for, to ``size``.
    """

    def __init__(
        self,
        site: Site,
        kind: str,
        size: jax.Array,
        mask: jax.Array | None,
        ratio: jax.Array | float = 1.0,
    ):
        """Takes what the class says."""
        aval = site.variable.aval
        self._axis, self._mask, self._ratio = site.axis, mask, ratio
        self.directions = [Directions(site.shape, aval.dtype, kind, site.axis)]
        self._size = size.astype(aval.dtype)

    def feed(self, sources: Sequence[jax.Array], pair: jax.Array) -> Any:
        """As ``SiteNoise`` says."""
        (direction,), (source,) = self.directions, sources
        if direction.kind == "gaussian":
            return direction.scaled(source, pair, self._moves())
        return source, jnp.broadcast_to(self._moves(), direction.shape)

    def at(self, feed: Any, pair: jax.Array) -> jax.Array:
        """As ``SiteNoise`` says."""
        if self.directions[0].kind == "gaussian":
            return feed
        source, moves = feed
        return self.directions[0].scaled(source, pair, moves)

    def _moves(self) -> jax.Array:
        if self._mask is None:
            return self._size
        return jnp.where(self._mask, self._size, jnp.zeros_like(self._size))

    def zero(self, dtype: Any) -> jax.Array:
        """As ``SiteNoise`` says."""
        return jnp.zeros(self.directions[0].shape, dtype)

    def add(
        self,
        total: jax.Array,
        sources: Sequence[jax.Array],
        pair: jax.Array,
        weights: jax.Array,
    ) -> jax.Array:
        """As ``SiteNoise`` says."""
        factor = self._at_nodes(weights)
        return total + self.directions[0].scaled(sources[0], pair, factor)

    def _at_nodes(self, weights: jax.Array) -> jax.Array:
        if self._axis is None:
            return jnp.sum(weights)
        axis, repeats = self._axis
        shape = self.directions[0].shape
        weights = jnp.repeat(weights, repeats) if repeats > 1 else weights
        weights = jnp.tile(weights, shape[axis] // weights.size)
        return jnp.expand_dims(weights, [i for i in range(len(shape)) if i != axis])

    def cotangent(self, total: jax.Array) -> jax.Array:
        """What is known about v from the sum of all pairs, with the sign of descent."""
        total = -total * jnp.asarray(self._ratio, total.dtype)
        return total if self._mask is None else jnp.where(self._mask, total, 0)


class ExampleNoise:
    """Noise at the weights of every example for itself, brought to v by linearity.

    Args:
      shapes: of the parameters that v is affine in.
      move: brings a displacement of their weights, a list of arrays with a leading
        axis of the examples, to v.
      kind: a key of ``directions.REACH``.
      sigma: how far v is to move, in root mean square.
      rows: the numbers of the examples, shape ``[b]``.
      axis_name: of the devices that have others.
    """

    def __init__(
        self,
        shapes: Sequence[jax.ShapeDtypeStruct],
        move: Callable[[list[jax.Array]], jax.Array],
        kind: str,
        sigma: jax.Array,
        rows: jax.Array,
        axis_name: str | None,
    ):
        """Takes what the class says."""
        self._size, self._move = rows.shape[0], move
        self.directions = [
            Directions((self._size, *x.shape), x.dtype, kind, LOSSES) for x in shapes
        ]
        # The nodes are to move by σ, as they do at other sites, lest one site drown
        # the others. How far unit noise at the weights moves them is seen from a draw.
        first = jnp.zeros((), jnp.int32)
        sources = draw(jax.random.key(0), self.directions, 1, rows)
        moves = self._moved(sources, first, 1.0).astype(sigma.dtype)
        moved = jnp.sqrt(_varying.averaged(jnp.mean(moves**2), axis_name))
        self._ratio = jnp.where(moved > 0, moved, 1)
        self._sigma = sigma / self._ratio

    def _moved(self, sources: Sequence[jax.Array], pair: jax.Array, factor: Any):
        return self._move(
            [
                z.scaled(source, pair, jnp.asarray(factor, z.dtype))
                for z, source in zip(self.directions, sources, strict=True)
            ]
        )

    def feed(self, sources: Sequence[jax.Array], pair: jax.Array) -> Any:
        """As ``SiteNoise`` says."""
        return self._moved(sources, pair, self._sigma)

    def at(self, feed: Any, pair: jax.Array) -> jax.Array:
        """As ``SiteNoise`` says."""
        del pair
        return feed

    def zero(self, dtype: Any) -> list[jax.Array]:
        """As ``SiteNoise`` says."""
        return [jnp.zeros(z.shape[1:], dtype) for z in self.directions]

    def add(
        self,
        total: list[jax.Array],
        sources: Sequence[jax.Array],
        pair: jax.Array,
        weights: jax.Array,
    ) -> list[jax.Array]:
        """As ``SiteNoise`` says."""

        def added(total, z, source):
            factor = weights.reshape(self._size, *[1] * (len(z.shape) - 1))
            return total + jnp.sum(z.scaled(source, pair, factor), axis=0)

        return list(map(added, total, self.directions, sources))

    def gradients(self, total: list[jax.Array]) -> list[jax.Array]:
        """What ``-total`` says about the parameters."""
        # The weights of the pairs are for noise of size σ.
        return [-value * self._ratio for value in total]
