"""Noise at the sites: drawn by pair, added, and summed with weights.

Pairs are known by their index and drawn again from a key whenever they are needed, so
that no more of them than are evaluated at a time are ever stored. Of Rademacher noise
one random word holds up to 32 pairs, a bit each: a site's words are the size of one v.
"""

import math
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

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

    def source(self, key: jax.Array, num_pairs: int) -> jax.Array:
        """What all pairs of one group, ``PAIRS_PER_WORD`` at most, are made of."""
        if self.kind == "gaussian":
            return key
        width = next(w for w in (8, 16, PAIRS_PER_WORD) if num_pairs <= w)
        return packed_bits(key, self.shape, width)

    def scaled(self, source: jax.Array, pair: jax.Array, factor: jax.Array):
        """``factor · z`` of one pair, where ``factor`` broadcasts against z."""
        if self.kind == "gaussian":
            z = jax.random.normal(
                jax.random.fold_in(source, pair), self.shape, self.dtype
            )
            return factor * z
        bit = (source >> pair.astype(source.dtype)) & 1
        return jnp.where(bit == 1, factor, -factor)


def packed_bits(key: jax.Array, shape: tuple[int, ...], width: int) -> jax.Array:
    """Random words of 8, 16 or 32 bits, all bits of what is drawn used.

    ``jax.random.bits`` draws 64 bits for every word, however narrow.
    """
    size, words_each = math.prod(shape), 32 // width
    drawn = jax.random.bits(key, (-(-size // words_each),), jnp.uint32)
    words = jax.lax.bitcast_convert_type(drawn, f"uint{width}")
    return words.reshape(-1)[:size].reshape(shape)


class SiteNoise(Protocol):
    """The noise at one site."""

    def source(self, key: jax.Array, num_pairs: int) -> Any:
        """What all ``num_pairs`` pairs of one group are made of."""
        ...

    def displacement(self, source: Any, pair: jax.Array) -> jax.Array:
        """The noise at v of the first of a pair; the second has its negative."""
        ...

    def zero(self, dtype: Any) -> Any:
        """The sum of ``add`` over no pairs."""
        ...

    def add(self, total: Any, source: Any, pair: jax.Array, weights: jax.Array) -> Any:
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
        self._directions = Directions(aval.shape, aval.dtype, kind)
        self._mask = None
        if reactive_only and site.axis is not None:
            self._mask = reactive_nodes(program, site, clean, sigma * REACH[kind])
        amplitude = jnp.asarray(sigma, aval.dtype)
        if self._mask is not None:
            amplitude = jnp.where(self._mask, amplitude, jnp.zeros_like(amplitude))
        self._amplitude = amplitude

    def source(self, key: jax.Array, num_pairs: int) -> jax.Array:
        return self._directions.source(key, num_pairs)

    def displacement(self, source: jax.Array, pair: jax.Array) -> jax.Array:
        return self._directions.scaled(source, pair, self._amplitude)

    def zero(self, dtype: Any) -> jax.Array:
        return jnp.zeros(self._directions.shape, dtype)

    def add(
        self, total: jax.Array, source: jax.Array, pair: jax.Array, weights: jax.Array
    ) -> jax.Array:
        return total + self._directions.scaled(source, pair, self._at_nodes(weights))

    def _at_nodes(self, weights: jax.Array) -> jax.Array:
        if self._site.axis is None:
            return jnp.sum(weights)
        axis, repeats = self._site.axis
        rank = len(self._directions.shape)
        weights = jnp.repeat(weights, repeats) if repeats > 1 else weights
        return jnp.expand_dims(weights, [i for i in range(rank) if i != axis])

    def gradients(self, total: jax.Array, clean: Environment) -> dict[int, jax.Array]:
        if self._mask is not None:
            total = jnp.where(self._mask, total, jnp.zeros_like(total))
        return {
            leaf: pull_back(self._program, self._sites, self._site, leaf, -total, clean)
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
        self._maps, self._directions = {}, {}
        for leaf in sorted(site.leaves):
            aval = program.parameters[leaf].aval
            self._directions[leaf] = Directions((size, *aval.shape), aval.dtype, kind)
            self._maps[leaf] = example_map(
                program, single, sites, site, leaf, clean, size
            )
        # The nodes are to move by σ, as they do at other sites, lest one site drown
        # the others. How far unit noise at the weights moves them is seen from a draw.
        first = jnp.zeros((), jnp.int32)
        moves = self._mapped(self.source(jax.random.key(0), 1), first, 1.0)
        moved = jnp.sqrt(jnp.mean(moves.astype(sigma.dtype) ** 2))
        self._ratio = jnp.where(moved > 0, moved, 1)
        self._sigma = sigma / self._ratio

    def _mapped(self, source: dict[int, Any], pair: jax.Array, factor: Any):
        first, *rest = (
            self._maps[leaf](
                directions.scaled(
                    source[leaf], pair, jnp.asarray(factor, directions.dtype)
                )
            )
            for leaf, directions in self._directions.items()
        )
        return sum(rest, first)

    def source(self, key: jax.Array, num_pairs: int) -> dict[int, jax.Array]:
        return {
            leaf: directions.source(jax.random.fold_in(key, leaf), num_pairs)
            for leaf, directions in self._directions.items()
        }

    def displacement(self, source: dict[int, Any], pair: jax.Array) -> jax.Array:
        return self._mapped(source, pair, self._sigma)

    def zero(self, dtype: Any) -> dict[int, jax.Array]:
        return {
            leaf: jnp.zeros(directions.shape[1:], dtype)
            for leaf, directions in self._directions.items()
        }

    def add(
        self,
        total: dict[int, jax.Array],
        source: dict[int, Any],
        pair: jax.Array,
        weights: jax.Array,
    ) -> dict[int, jax.Array]:
        def added(leaf, directions):
            factor = weights.reshape(self._size, *[1] * (len(directions.shape) - 1))
            part = directions.scaled(source[leaf], pair, factor)
            return total[leaf] + jnp.sum(part, axis=0)

        return {leaf: added(leaf, d) for leaf, d in self._directions.items()}

    def gradients(
        self, total: dict[int, jax.Array], clean: Environment
    ) -> dict[int, jax.Array]:
        del clean
        # The weights of the pairs are for noise of size σ.
        return {leaf: -value * self._ratio for leaf, value in total.items()}
