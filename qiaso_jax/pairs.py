"""Going through the antithetic pairs, some at a time, with their noise drawn anew."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax.noise import PAIRS_PER_WORD, SiteNoise


class Pairs(NamedTuple):
    """All antithetic pairs of a step.

    Attributes:
      key: of the noise.
      noises: one per site.
      num_pairs: P = K/2.
      at_a_time: how many pairs are gone through at once, at most; a divisor of the
        number of pairs that share their random words is used.
    """

    key: jax.Array
    noises: Sequence[SiteNoise]
    num_pairs: int
    at_a_time: int

    def map(self, fun: Callable[[list[Any], jax.Array], jax.Array]) -> jax.Array:
        """``fun(sources, pair)`` of every pair, stacked."""

        def of_group(group):
            vectorised = jax.vmap(partial(fun, self._sources(group)))
            return jax.lax.map(vectorised, self._indices())

        results = self._each(of_group)
        return results.reshape(self.num_pairs, *results.shape[-2:])

    def sum(
        self,
        add: Callable[[Any, list[Any], jax.Array, jax.Array], Any],
        zero: Any,
        weights: jax.Array,
    ) -> Any:
        """``add(total, sources, pair, weights[pair])`` one after the other."""
        groups = self.num_pairs // self._group
        weights = weights.reshape(groups, -1, self._chunk, weights.shape[-1])

        def of_group(totals, inputs):
            group, rows = inputs
            sources = self._sources(group)

            def of_chunk(totals, inputs):
                pairs, rows = inputs
                for i in range(self._chunk):
                    totals = add(totals, sources, pairs[i], rows[i])
                return totals, None

            totals, _ = jax.lax.scan(of_chunk, totals, (self._indices(), rows))
            return totals, None

        totals, _ = jax.lax.scan(of_group, zero, (jnp.arange(groups), weights))
        return totals

    @property
    def _group(self) -> int:
        return _largest_divisor(self.num_pairs, PAIRS_PER_WORD)

    @property
    def _chunk(self) -> int:
        return _largest_divisor(self._group, self.at_a_time)

    def _indices(self) -> jax.Array:
        return jnp.arange(self._group).reshape(-1, self._chunk)

    def _each(self, of_group):
        groups = self.num_pairs // self._group
        if groups == 1:
            return of_group(0)
        return jax.lax.map(of_group, jnp.arange(groups))

    def _sources(self, group: Any) -> list[Any]:
        keys = jax.random.split(jax.random.fold_in(self.key, group), len(self.noises))
        return [n.source(k) for n, k in zip(self.noises, keys, strict=True)]


def _largest_divisor(number: int, at_most: int) -> int:
    return max(d for d in range(1, min(number, at_most) + 1) if number % d == 0)
