"""Noise at the sites: drawn by pair, added, and summed with weights.

Pairs are known by their index and drawn again from a key whenever they are needed, so
that no more of them than are evaluated at a time are ever stored. Of Rademacher noise
one random word holds up to 32 pairs, a bit each: a site's words are the size of one v.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.extend.random import threefry_2x32

from qiaso_jax.interpret import Environment, Program
from qiaso_jax.linear import example_map, pull_back
from qiaso_jax.reactive import reactive_nodes
from qiaso_jax.sites import Site, Sites
from qiaso_jax.spaces import Layout

PAIRS_PER_WORD = 32

REACH = {"rademacher": 1.0, "gaussian": 4.0}
"""How many σ the noise of each kind goes, but for a few of 10⁵ draws."""


class Directions(NamedTuple):
    """Random arrays z with E z = 0 and E z² = 1, one per pair.

    Attributes:
      shape: of z.
      dtype: of z.
      kind: a key of ``REACH``.
    """

    shape: tuple[int, ...]
    dtype: Any
    kind: str

    def scaled(self, source: jax.Array, pair: jax.Array, factor: jax.Array):
        """``factor · z`` of one pair, where ``factor`` broadcasts against z."""
        if self.kind == "gaussian":
            z = jax.random.normal(
                jax.random.fold_in(source, pair), self.shape, self.dtype
            )
            return factor * z
        # The pair's bit of the random words becomes the sign bit.
        bits = jnp.finfo(factor.dtype).bits
        pattern = jax.lax.bitcast_convert_type(factor, f"uint{bits}")
        drawn = (source >> pair.astype(source.dtype)).astype(pattern.dtype)
        flipped = pattern ^ (drawn << (bits - 1))
        return jax.lax.bitcast_convert_type(flipped, factor.dtype)


def draw(
    key: jax.Array, directions: Sequence[Directions], num_pairs: int
) -> list[jax.Array]:
    """The source of each direction, of which all pairs of one group are made.

    Args:
      key: a PRNG key.
      directions: all of one kind.
      num_pairs: how many pairs the group has, at most ``PAIRS_PER_WORD``.

    Returns:
      A key each for Gaussian directions; for Rademacher ones an array of random words
      of the shape of z, all from one draw, as many small ones cost more.
    """
    if directions[0].kind == "gaussian":
        return list(jax.random.split(key, len(directions)))
    width = next(w for w in (8, 16, PAIRS_PER_WORD) if num_pairs <= w)
    ends = list(itertools.accumulate(math.prod(d.shape) for d in directions))
    words = packed_bits(key, ends[-1], width)
    parts = jnp.split(words, ends[:-1])
    return [part.reshape(d.shape) for part, d in zip(parts, directions, strict=True)]


def packed_bits(key: jax.Array, size: int, width: int) -> jax.Array:
    """Random words of 8, 16 or 32 bits, all bits of what is drawn used.

    ``jax.random.bits`` draws 64 bits for every word, however narrow: as a threefry key
    gives both halves, they are taken from it directly.
    """
    num_drawn = -(-size // (32 // width))
    if str(jax.random.key_impl(key)) == "threefry2x32":
        counter = jnp.arange(num_drawn, dtype=jnp.uint32)
        drawn = threefry_2x32(jax.random.key_data(key), counter)
    else:
        drawn = jax.random.bits(key, (num_drawn,), jnp.uint32)
    return jax.lax.bitcast_convert_type(drawn, f"uint{width}").reshape(-1)[:size]


class SiteNoise(Protocol):
    """The noise at one site.

    Attributes:
      directions: what it is made of. The methods take the source of each, by ``draw``.
    """

    directions: list[Directions]

    def displacement(self, sources: Sequence[jax.Array], pair: jax.Array) -> jax.Array:
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

    def gradients(self, total: Any, clean: Environment) -> dict[int, jax.Array]:
        """What ``−total`` says about the parameters, by the index of the leaf."""
        ...


def site_noises(
    layout: Layout,
    clean: Environment,
    sigma: jax.Array,
    kind: str,
    reactive_only: bool,
    size: int,
) -> list[SiteNoise]:
    """The noise at each site.

    Args:
      layout: where noise goes.
      clean: the values of all variables of ``layout.program``.
      sigma: σ > 0.
      kind: a key of ``REACH``.
      reactive_only: whether only nodes that react get noise.
      size: b, the number of examples of the program.

    Returns:
      One per site, in their order.
    """
    program, sites = layout.program, layout.sites
    noises: list[SiteNoise] = []
    for site, space in zip(sites.sites, layout.spaces, strict=True):
        if space == "example" and layout.single is not None:
            single = layout.single
            noises.append(
                _ExampleNoise(program, single, sites, site, clean, sigma, kind, size)
            )
        else:
            noises.append(
                _NodeNoise(program, sites, site, clean, sigma, kind, reactive_only)
            )
    return noises


class _NodeNoise:
    """Noise at v itself: of every example its own, or in weight space shared."""

    def __init__(
        self,
        program: Program,
        sites: Sites,
        site: Site,
        clean: Environment,
        sigma: jax.Array,
        kind: str,
        reactive_only: bool,
    ):
        self._program, self._sites, self._site = program, sites, site
        aval = site.variable.aval
        self.directions = [Directions(aval.shape, aval.dtype, kind)]
        self._mask = None
        if reactive_only and site.axis is not None:
            self._mask = reactive_nodes(program, site, clean, sigma * REACH[kind])
        self._sigma = sigma.astype(aval.dtype)

    def displacement(self, sources: Sequence[jax.Array], pair: jax.Array) -> jax.Array:
        return self._reacting(self._scaled(sources, pair, self._sigma))

    def zero(self, dtype: Any) -> jax.Array:
        return jnp.zeros(self.directions[0].shape, dtype)

    def add(
        self,
        total: jax.Array,
        sources: Sequence[jax.Array],
        pair: jax.Array,
        weights: jax.Array,
    ) -> jax.Array:
        return total + self._scaled(sources, pair, self._at_nodes(weights))

    def _scaled(
        self, sources: Sequence[jax.Array], pair: jax.Array, factor: jax.Array
    ) -> jax.Array:
        return self.directions[0].scaled(sources[0], pair, factor)

    def _reacting(self, values: jax.Array) -> jax.Array:
        if self._mask is None:
            return values
        return jnp.where(self._mask, values, jnp.zeros_like(values))

    def _at_nodes(self, weights: jax.Array) -> jax.Array:
        if self._site.axis is None:
            return jnp.sum(weights)
        axis, repeats = self._site.axis
        rank = len(self.directions[0].shape)
        weights = jnp.repeat(weights, repeats) if repeats > 1 else weights
        return jnp.expand_dims(weights, [i for i in range(rank) if i != axis])

    def gradients(self, total: jax.Array, clean: Environment) -> dict[int, jax.Array]:
        total = -self._reacting(total)
        return {
            leaf: pull_back(self._program, self._sites, self._site, leaf, total, clean)
            for leaf in sorted(self._site.leaves)
        }


class _ExampleNoise:
    """Noise at the weights of every example for itself, brought to v by linearity."""

    def __init__(
        self,
        program: Program,
        single: Program,
        sites: Sites,
        site: Site,
        clean: Environment,
        sigma: jax.Array,
        kind: str,
        size: int,
    ):
        self._size = size
        self._leaves = sorted(site.leaves)
        self.directions, self._maps = [], []
        for leaf in self._leaves:
            aval = program.parameters[leaf].aval
            self.directions.append(Directions((size, *aval.shape), aval.dtype, kind))
            self._maps.append(
                example_map(program, single, sites, site, leaf, clean, size)
            )
        # The nodes are to move by σ, as they do at other sites, lest one site drown
        # the others. How far unit noise at the weights moves them is seen from a draw.
        first = jnp.zeros((), jnp.int32)
        sources = draw(jax.random.key(0), self.directions, 1)
        moves = self._mapped(sources, first, 1.0)
        moved = jnp.sqrt(jnp.mean(moves.astype(sigma.dtype) ** 2))
        self._ratio = jnp.where(moved > 0, moved, 1)
        self._sigma = sigma / self._ratio

    def _mapped(self, sources: Sequence[jax.Array], pair: jax.Array, factor: Any):
        parts = zip(self._maps, self.directions, sources, strict=True)
        first, *rest = (
            to_node(z.scaled(source, pair, jnp.asarray(factor, z.dtype)))
            for to_node, z, source in parts
        )
        return sum(rest, first)

    def displacement(self, sources: Sequence[jax.Array], pair: jax.Array) -> jax.Array:
        return self._mapped(sources, pair, self._sigma)

    def zero(self, dtype: Any) -> list[jax.Array]:
        return [jnp.zeros(z.shape[1:], dtype) for z in self.directions]

    def add(
        self,
        total: list[jax.Array],
        sources: Sequence[jax.Array],
        pair: jax.Array,
        weights: jax.Array,
    ) -> list[jax.Array]:
        def added(total, z, source):
            factor = weights.reshape(self._size, *[1] * (len(z.shape) - 1))
            return total + jnp.sum(z.scaled(source, pair, factor), axis=0)

        return list(map(added, total, self.directions, sources))

    def gradients(
        self, total: list[jax.Array], clean: Environment
    ) -> dict[int, jax.Array]:
        del clean
        # The weights of the pairs are for noise of size σ.
        parts = zip(self._leaves, total, strict=True)
        return {leaf: -value * self._ratio for leaf, value in parts}
