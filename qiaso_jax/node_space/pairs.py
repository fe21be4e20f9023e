"""Going through the antithetic pairs, some at a time, with their noise drawn anew."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp

from qiaso_jax import _varying
from qiaso_jax.node_space.directions import NUMBERS_PER_WORD, draw
from qiaso_jax.node_space.noise import SiteNoise


@dataclasses.dataclass(frozen=True)
class Pairs:
    """All antithetic pairs of a step.

    Pairs that share their random words are a group. A single group's words are drawn
    once, several groups' whenever they are needed.

    Attributes:
      key: of the noise.
      rows: the numbers of the examples, shape ``[b]``.
      noises: one per site.
      num_pairs: P = K/2.
      at_a_time: how many pairs are gone through at once, at most; a divisor of the
        number of pairs that share their random words is used.
    """

    key: jax.Array
    rows: jax.Array
    noises: Sequence[SiteNoise]
    num_pairs: int
    at_a_time: int

    def map(self, fun: Callable[[list[Any], jax.Array], jax.Array]) -> jax.Array:
        """``fun(sources, pair)`` of every pair, stacked."""

        def of_group(sources):
            return jax.lax.map(jax.vmap(partial(fun, sources)), self._indices())

        if self._groups == 1:
            results = of_group(self._only_sources)
        else:
            results = jax.lax.map(
                lambda group: of_group(self._sources(group)), jnp.arange(self._groups)
            )
        return results.reshape(self.num_pairs, *results.shape[-2:])

    def sum(
        self,
        add: Callable[[Any, list[Any], jax.Array, jax.Array], Any],
        zero: Any,
        weights: jax.Array,
    ) -> Any:
        """``add(total, sources, pair, weights[pair])`` one after the other."""
        zero = _varying.like(zero, weights)
        weights = weights.reshape(self._groups, -1, self._chunk, weights.shape[-1])

        def of_group(totals, sources, rows):
            def of_chunk(totals, inputs):
                pairs, rows = inputs
                for i in range(self._chunk):
                    totals = add(totals, sources, pairs[i], rows[i])
                return totals, None

            return jax.lax.scan(of_chunk, totals, (self._indices(), rows))[0]

        if self._groups == 1:
            return of_group(zero, self._only_sources, weights[0])

        def of_each(totals, inputs):
            group, rows = inputs
            return of_group(totals, self._sources(group), rows), None

        inputs = (jnp.arange(self._groups), weights)
        return jax.lax.scan(of_each, zero, inputs)[0]

    @property
    def _group(self) -> int:
        return _largest_divisor(self.num_pairs, NUMBERS_PER_WORD)

    @property
    def _groups(self) -> int:
        return self.num_pairs // self._group

    @property
    def _chunk(self) -> int:
        return _largest_divisor(self._group, self.at_a_time)

    def _indices(self) -> jax.Array:
        return jnp.arange(self._group).reshape(-1, self._chunk)

    @cached_property
    def _only_sources(self) -> list[list[jax.Array]]:
        return self._sources(0)

    def _sources(self, group: Any) -> list[list[jax.Array]]:
        key = self.key if self._groups == 1 else jax.random.fold_in(self.key, group)
        directions = [z for noise in self.noises for z in noise.directions]
        drawn = iter(draw(key, directions, self._group, self.rows))
        return [[next(drawn) for _ in noise.directions] for noise in self.noises]


def _largest_divisor(number: int, at_most: int) -> int:
    return max(d for d in range(1, min(number, at_most) + 1) if number % d == 0)
