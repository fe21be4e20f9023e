"""Superposition: preparing K candidates around a centre, θ_k = μ + δ_k (Eq 1).

A candidate is known by its index. Antithetic candidates share a direction z_u and
differ in sign, and a superposition may keep its candidate 0 at the centre:

    δ_k = sign(k) · σ · z_{unit(k)},

with a spread σ of every leaf, or of every weight, by ``spread``. In the order of their
indices come the centre, the candidates +z_u, and as many −z_u as are left.

Any direction can be drawn again from the key, without the others: of those that are
evaluated at a time, partners of a pair are together, and nothing else exists.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from qiaso_jax import factors
from qiaso_jax._arguments import PyTree
from qiaso_jax.directions import Directions, Kind
from qiaso_jax.factors import is_factors

OfOffset = Callable[[PyTree], Any]
"""What is wanted of one candidate, a pytree of arrays, given its offset."""


@runtime_checkable
class Candidates(Protocol):
    """Candidates around a centre.

    Attributes:
      number: how many there are.
    """

    @property
    def number(self) -> int:
        """How many there are."""
        ...

    def map(self, fun: OfOffset) -> Any:
        """``fun(offset)`` of all, stacked; leaves of offsets are arrays or factors."""
        ...

    def weighted_offset(self, weights: Float[Array, " K"], centre: PyTree) -> PyTree:
        """Σ_k w_k δ_k, a pytree like ``centre``, summed in the weights' precision."""
        ...


def arrays(candidates: Candidates, centre: PyTree) -> PyTree:
    """μ + δ of all, a pytree like ``centre`` with a leading axis."""
    return candidates.map(partial(displaced, centre))


def displaced(centre: PyTree, offset: PyTree) -> PyTree:
    """The candidate μ + δ."""
    return jax.tree.map(jnp.add, centre, factors.densified(offset, centre))


class Listed(NamedTuple):
    """Candidates of any kind.

    Attributes:
      each: a pytree of arrays with a leading axis of the candidates: their indices,
        and whatever is stored of them.
      offset_of: the offset δ of one, from its part of ``each``.
      batch_size: how many offsets may exist at a time; ``None`` for all.
    """

    each: PyTree
    offset_of: Callable[[Any], PyTree]
    batch_size: int | None

    @property
    def number(self) -> int:
        """As ``Candidates`` says."""
        return jax.tree.leaves(self.each)[0].shape[0]

    def map(self, fun: OfOffset) -> Any:
        """As ``Candidates`` says."""

        def of_one(one):
            return fun(self.offset_of(one))

        if self.batch_size is None:
            return jax.vmap(of_one)(self.each)
        return jax.lax.map(of_one, self.each, batch_size=self.batch_size)

    def weighted_offset(self, weights: Float[Array, " K"], centre: PyTree) -> PyTree:
        """As ``Candidates`` says."""

        def summed(weights, each):
            offsets = jax.vmap(self.offset_of)(each)
            return jax.tree.map(partial(_sum, weights), centre, offsets)

        return _in_runs(summed, weights, self.each, self.batch_size, centre)


def _sum(weights: jax.Array, leaf: jax.Array, offsets: Any) -> jax.Array:
    if is_factors(offsets):
        return factors.weighted_sum(weights, offsets)
    dtype = jnp.promote_types(leaf.dtype, weights.dtype)
    return jnp.tensordot(
        weights.astype(dtype),
        offsets.astype(dtype),
        axes=1,
        precision=jax.lax.Precision.HIGHEST,
    )


def _in_runs(
    summed: Callable[[jax.Array, PyTree], PyTree],
    weights: jax.Array,
    each: PyTree,
    size: int | None,
    like: PyTree,
) -> PyTree:
    """``summed`` over runs of ``size``, added up, in the dtypes of ``like``."""
    number = weights.shape[0]
    if size is None or size >= number:
        total = summed(weights, each)
    else:
        num_runs = -(-number // size)
        missing = num_runs * size - number

        def in_runs(x):
            # The last one fills the last run up, with weight 0.
            x = jnp.concatenate([x, jnp.repeat(x[-1:], missing, axis=0)])
            return x.reshape(num_runs, size, *x.shape[1:])

        def zeros(leaf):
            dtype = jnp.promote_types(leaf.dtype, weights.dtype)
            return jnp.zeros(leaf.shape, dtype)

        def add(total, run):
            return jax.tree.map(jnp.add, total, summed(*run)), None

        weights = jnp.pad(weights, (0, missing)).reshape(num_runs, size)
        runs = (weights, jax.tree.map(in_runs, each))
        total, _ = jax.lax.scan(add, jax.tree.map(zeros, like), runs)
    return jax.tree.map(lambda m, s: s.astype(m.dtype), like, total)


def stored(offsets: PyTree, number: int, batch_size: int | None = None) -> Listed:
    """Candidates whose offsets exist, with a leading axis."""
    return Listed((jnp.arange(number), offsets), lambda one: one[1], batch_size)


class Superposition(NamedTuple):
    """The shape of a superposition.

    Attributes:
      num_candidates: K.
      antithetic: whether candidates come in pairs ±z; one of an odd number is alone.
      keeps_centre: whether candidate 0 has offset 0.
      directions: the kind of z.
    """

    num_candidates: int
    antithetic: bool
    keeps_centre: bool
    directions: Kind = "gaussian"

    @property
    def num_drawn(self) -> int:
        """Number of independent directions."""
        moving = self.num_candidates - self.keeps_centre
        return -(-moving // 2) if self.antithetic else moving

    @property
    def signs(self) -> tuple[int, ...]:
        """Of the candidates that may share a direction."""
        return (1, -1) if self.antithetic else (1,)

    @property
    def members(self) -> list[tuple[int, int]]:
        """The direction and the sign of every candidate; 0 for the centre's sign."""
        moving = [(unit, sign) for sign in self.signs for unit in range(self.num_drawn)]
        members = [(0, 0)] * self.keeps_centre + moving
        return members[: self.num_candidates]

    def candidates(
        self,
        key: jax.Array,
        like: PyTree,
        sigma: PyTree,
        batch_size: int | None,
    ) -> "Drawn":
        """The candidates of a key: all directions, or each drawn when it is needed."""
        directions = Directions(like, sigma, self.directions)
        known = None
        count = max(1, self.num_drawn)
        if batch_size is None or directions.are_small(count):
            known = directions.known(key, 0, count)
        return Drawn(self, directions, key, batch_size, known)

    def offsets(self, key: jax.Array, like: PyTree, sigma: PyTree) -> PyTree:
        """All offsets, with a leading axis K, of arrays or of factors."""
        return self.candidates(key, like, sigma, None).map(lambda offset: offset)


class Drawn(NamedTuple):
    """The candidates of a superposition, as what they are drawn from.

    Attributes:
      superposition: its shape.
      directions: their directions.
      key: of these.
      batch_size: how many candidates may exist at a time; ``None`` for all.
      known: what all directions are known by; ``None`` where they are drawn again.
    """

    superposition: Superposition
    directions: Directions
    key: jax.Array
    batch_size: int | None
    known: list[jax.Array] | None

    @property
    def number(self) -> int:
        """As ``Candidates`` says."""
        return self.superposition.num_candidates

    def map(self, fun: OfOffset) -> Any:
        """As ``Candidates`` says."""
        members, signs = self.superposition.members, self.superposition.signs
        size = max(1, (self.batch_size or self.number) // len(signs))
        shared = sum(sign == signs[-1] for _, sign in members)
        num_runs = shared // size
        if self.batch_size is None and shared * len(signs) < self.number:
            num_runs = 0  # a candidate without a partner is none to compile fun for
        evaluated = [(u, sign) for sign in signs for u in range(num_runs * size)]
        found = []
        if num_runs:
            found.append(self._of_runs(fun, num_runs, size))
        rest = [member for member in members if member not in set(evaluated)]
        if rest:
            found.append(self._of_rest(fun, rest))
        place = {member: i for i, member in enumerate([*evaluated, *rest])}
        order = np.array([place[member] for member in members])

        def joined(*parts):
            whole = jnp.concatenate(parts) if len(parts) > 1 else parts[0]
            in_order = np.array_equal(order, np.arange(len(order)))
            return whole if in_order else whole[order]

        return jax.tree.map(joined, *found)

    def _of_runs(self, fun: OfOffset, num_runs: int, size: int) -> Any:
        """Of ``num_runs`` times ``size`` directions with all signs, sign by sign."""
        signs = jnp.array(self.superposition.signs)

        def of_run(run):
            ready = self._ready(run * size, size)

            def of_sign(sign):
                return jax.vmap(lambda one: fun(self.directions.offset(one, sign)))(
                    ready
                )

            if self.batch_size is not None and self.batch_size < len(signs):
                return jax.lax.map(of_sign, signs)
            return jax.vmap(of_sign)(signs)

        if num_runs == 1:
            results = jax.tree.map(lambda x: x[None], of_run(0))
        else:
            results = jax.lax.map(of_run, jnp.arange(num_runs))
        return jax.tree.map(
            lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[3:]), results
        )

    def _of_rest(self, fun: OfOffset, rest: list[tuple[int, int]]) -> Any:
        """Of candidates one by one."""
        units, signs = (np.array(x) for x in zip(*rest, strict=True))
        first = units[signs != 0].min(initial=units.max())
        places = np.maximum(units - first, 0)
        ready = self._ready(first, int(places.max()) + 1)
        each = jax.tree.map(lambda x: x[places], ready)

        def of_one(one):
            return fun(self.directions.offset(*one))

        each = (each, jnp.asarray(signs))
        if self.batch_size is None:
            return jax.vmap(of_one)(each)
        return jax.lax.map(of_one, each, batch_size=self.batch_size)

    def weighted_offset(self, weights: Float[Array, " K"], centre: PyTree) -> PyTree:
        """As ``Candidates`` says."""
        layout, directions = self.superposition, self.directions
        number = max(1, layout.num_drawn)
        units, signs = (np.array(x) for x in zip(*layout.members, strict=True))
        each = jnp.zeros(number, weights.dtype).at[units].add(weights * signs)
        at_a_time = (self.batch_size or self.number) // len(layout.signs)
        size = max(1, at_a_time, directions.num_affordable)
        num_runs = number // size

        def added(total, start, count):
            part = jax.lax.dynamic_slice_in_dim(each, start, count)
            offset = directions.weighted_offset(self._known(start, count), part)
            return offset if total is None else jax.tree.map(jnp.add, total, offset)

        def zeros(leaf):
            dtype = jnp.promote_types(leaf.dtype, weights.dtype)
            return jnp.zeros(leaf.shape, dtype)

        total, rest = None, number - num_runs * size
        if num_runs == 1:
            total = added(None, 0, size)
        elif num_runs:
            total, _ = jax.lax.scan(
                lambda total, run: (added(total, run * size, size), None),
                jax.tree.map(zeros, centre),
                jnp.arange(num_runs),
            )
        if rest:
            total = added(total, num_runs * size, rest)
        return jax.tree.map(lambda m, s: s.astype(m.dtype), centre, total)

    def _ready(self, start: Any, count: int) -> list[Any]:
        return self.directions.ready(self._known(start, count))

    def _known(self, start: Any, count: int) -> list[jax.Array]:
        if self.known is None:
            return self.directions.known(self.key, start, count)
        if count == max(1, self.superposition.num_drawn):
            return self.known
        return [jax.lax.dynamic_slice_in_dim(x, start, count) for x in self.known]
