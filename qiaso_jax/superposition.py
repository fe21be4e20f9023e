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

from qiaso_jax import _varying, factors
from qiaso_jax._arguments import PyTree
from qiaso_jax._trees import all_finite
from qiaso_jax.directions import Directions, Kind, kind_for

OfOffset = Callable[[PyTree], Any]
"""What is wanted of one candidate, a pytree of arrays, given its offset."""

OfOffsetIn = Callable[[PyTree, Any], Any]
"""The same, given also what its group has."""


@runtime_checkable
class Candidates(Protocol):
    """Candidates around a centre.

    Attributes:
      number: how many there are.
      batch_size: how many offsets may exist at a time; ``None`` for all.
    """

    @property
    def number(self) -> int:
        """How many there are."""
        ...

    @property
    def batch_size(self) -> int | None:
        """How many offsets may exist at a time."""
        ...

    def map(self, fun: OfOffset) -> Any:
        """``fun(offset)`` of all, stacked; leaves of offsets are arrays or factors."""
        ...

    def map_groups(self, fun: OfOffsetIn, data: PyTree) -> Any:
        """``fun(offset, data of its group)`` of all, stacked, group by group.

        Args:
          fun: of a candidate.
          data: a pytree of arrays with a leading axis of the groups.
        """
        ...

    def together(self, fun: "Callable[[Candidates], Any]") -> Any:
        """``fun`` of candidates, whose results have a leading axis of them, of all.

        It is called once, with all of them or with those that are here.
        """
        ...

    def weighted_offset(self, weights: Float[Array, " K"], centre: PyTree) -> PyTree:
        """Σ_k w_k δ_k, a pytree like ``centre``, summed in the weights' precision."""
        ...

    def is_finite(self, weights: Float[Array, " K"], total: PyTree) -> jax.Array:
        """Whether their weighted offset ``total`` is."""
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

        return _mapped(of_one, self.each, self.batch_size)

    def map_groups(self, fun: OfOffsetIn, data: PyTree) -> Any:
        """As ``Candidates`` says."""
        groups = jax.tree.leaves(data)[0].shape[0]

        def of_group(one):
            each, data = one
            return self._replace(each=each).map(lambda offset: fun(offset, data))

        each = jax.tree.map(lambda x: _cut(x, groups), self.each)
        results = _mapped(of_group, (each, data), _groups_at_a_time(self, groups))
        return jax.tree.map(_flat, results)

    def together(self, fun: Callable[[Candidates], Any]) -> Any:
        """As ``Candidates`` says."""
        return fun(self)

    def is_finite(self, weights: Float[Array, " K"], total: PyTree) -> jax.Array:
        """As ``Candidates`` says."""
        del weights
        return all_finite(total)

    def weighted_offset(self, weights: Float[Array, " K"], centre: PyTree) -> PyTree:
        """As ``Candidates`` says."""

        def summed(weights, each):
            offsets = jax.vmap(self.offset_of)(each)
            return jax.tree.map(
                lambda _, stacked: factors.weighted_sum(weights, stacked),
                centre,
                offsets,
            )

        return _in_runs(summed, weights, self.each, self.batch_size, centre)


def _mapped(fun: Callable[[Any], Any], each: PyTree, batch_size: int | None) -> Any:
    if batch_size is None:
        return jax.vmap(fun)(each)
    return jax.lax.map(fun, each, batch_size=batch_size)


def _groups_at_a_time(candidates: Candidates, groups: int) -> int | None:
    if candidates.batch_size is None:
        return None
    return max(1, candidates.batch_size * groups // candidates.number)


def _flat(x: jax.Array) -> jax.Array:
    """The first two axes as one."""
    return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])


def _cut(x: jax.Array, groups: int) -> jax.Array:
    """The first axis as groups of equal length."""
    return x.reshape(groups, x.shape[0] // groups, *x.shape[1:])


def _run_length(number: int, at_most: int) -> int:
    """How many of ``number`` are gone through at a time: if possible, none is left."""
    divisor = max(d for d in range(1, min(number, at_most) + 1) if number % d == 0)
    return divisor if 3 * divisor >= 2 * min(number, at_most) else at_most


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
            return _varying.like(jnp.zeros(leaf.shape, dtype), weights, each)

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
    """The shape of a superposition, or of several alike.

    Attributes:
      num_candidates: K.
      antithetic: whether candidates come in pairs ±z; one of an odd number is alone.
      keeps_centre: whether candidate 0 has offset 0.
      directions: the kind of z; ``None`` for the one for so many weights.
      groups: how many superpositions there are, with directions of their own.
    """

    num_candidates: int
    antithetic: bool
    keeps_centre: bool
    directions: Kind | None = "gaussian"
    groups: int = 1

    @property
    def num_drawn(self) -> int:
        """Number of independent directions in a group."""
        moving = self.num_candidates - self.keeps_centre
        return -(-moving // 2) if self.antithetic else moving

    @property
    def signs(self) -> tuple[int, ...]:
        """Of the candidates that may share a direction."""
        return (1, -1) if self.antithetic else (1,)

    @property
    def members(self) -> list[tuple[int, int]]:
        """Direction and sign of the candidates of a group; 0 for the centre's sign."""
        moving = [(unit, sign) for sign in self.signs for unit in range(self.num_drawn)]
        members = [(0, 0)] * self.keeps_centre + moving
        return members[: self.num_candidates]

    @property
    def num_rows(self) -> int:
        """How many directions of a group are numbered."""
        return max(1, self.num_drawn)

    def candidates(
        self,
        key: jax.Array,
        like: PyTree,
        sigma: PyTree,
        batch_size: int | None,
        first: Any = 0,
    ) -> "Drawn":
        """The candidates of a key: all directions, or each drawn when it is needed.

        Args:
          key: of the directions.
          like: the parameters.
          sigma: σ of every leaf.
          batch_size: how many candidates may exist at a time; ``None`` for all.
          first: the number of their first direction.
        """
        directions = Directions(like, sigma, kind_for(self.directions, like))
        count = self.groups * self.num_rows
        known = None
        if batch_size is None or directions.are_small(count):
            known = directions.known(key, first, count)
        return Drawn(self, directions, key, batch_size, known, first)

    def offsets(self, key: jax.Array, like: PyTree, sigma: PyTree) -> PyTree:
        """All offsets, with a leading axis, of arrays or of factors."""
        if not jax.tree.leaves(like):  # optax asks with placeholders that have none
            return like
        return self.candidates(key, like, sigma, None).map(lambda offset: offset)


class Drawn(NamedTuple):
    """The candidates of a superposition, as what they are drawn from.

    Attributes:
      superposition: its shape.
      directions: their directions.
      key: of these.
      batch_size: how many candidates may exist at a time; ``None`` for all.
      known: what all directions are known by; ``None`` where they are drawn again.
      first: the number of their first direction.
    """

    superposition: Superposition
    directions: Directions
    key: jax.Array
    batch_size: int | None
    known: list[jax.Array] | None
    first: Any = 0

    @property
    def number(self) -> int:
        """As ``Candidates`` says."""
        return self.superposition.groups * self.superposition.num_candidates

    def map(self, fun: OfOffset) -> Any:
        """As ``Candidates`` says."""
        groups = self.superposition.groups
        if groups > 1:
            return self.map_groups(lambda offset, _: fun(offset), jnp.arange(groups))
        members, signs = self.superposition.members, self.superposition.signs
        size = max(1, (self.batch_size or self.number) // len(signs))
        shared = sum(sign == signs[-1] for _, sign in members)
        size = _run_length(max(1, shared), size)
        num_runs = shared // size
        if self.batch_size is None and shared * len(signs) < self.number:
            num_runs = 0  # a candidate without a partner is none to compile fun for
        evaluated = [(u, sign) for sign in signs for u in range(num_runs * size)]
        found = []
        if num_runs:
            found.append(self._of_runs(fun, num_runs, size))
        rest = sorted(set(members) - set(evaluated), key=members.index)
        if rest:
            found.append(self._of_rest(fun, rest))
        place = {member: i for i, member in enumerate([*evaluated, *rest])}
        order = np.array([place[member] for member in members])

        def joined(first, *others):
            whole = jnp.concatenate([first, *others]) if others else first
            in_order = np.array_equal(order, np.arange(len(order)))
            return whole if in_order else whole[order]

        return jax.tree.map(joined, *found)

    def map_groups(self, fun: OfOffsetIn, data: PyTree) -> Any:
        """As ``Candidates`` says."""
        layout = self.superposition
        alone = layout._replace(groups=1)

        def of_group(one):
            number, known, data = one
            first = self.first + number * layout.num_rows
            group = self._replace(superposition=alone, known=known, first=first)
            return group.map(lambda offset: fun(offset, data))

        known = jax.tree.map(lambda x: _cut(x, layout.groups), self.known)
        each = (jnp.arange(layout.groups), known, data)
        results = _mapped(of_group, each, _groups_at_a_time(self, layout.groups))
        return jax.tree.map(_flat, results)

    def together(self, fun: Callable[[Candidates], Any]) -> Any:
        """As ``Candidates`` says."""
        return fun(self)

    def _of_runs(self, fun: OfOffset, num_runs: int, size: int) -> Any:
        """Of ``num_runs`` times ``size`` directions with all signs, sign by sign."""
        signs = jnp.array(self.superposition.signs)
        directions = self.directions

        def of_run(run):
            ready = self._ready(run * size, size)

            def of_sign(sign):
                return jax.vmap(lambda one: fun(directions.offset(one, sign)))(ready)

            few = self.batch_size is not None and self.batch_size < len(signs)
            return _mapped(of_sign, signs, 1 if few else None)

        if num_runs == 1:
            results = jax.tree.map(lambda x: x[None], of_run(0))
        else:
            results = jax.lax.map(of_run, jnp.arange(num_runs))
        return jax.tree.map(lambda x: _flat(_flat(jnp.moveaxis(x, 0, 1))), results)

    def _of_rest(self, fun: OfOffset, rest: list[tuple[int, int]]) -> Any:
        """Of candidates one by one."""
        units, signs = (np.array(x) for x in zip(*rest, strict=True))
        first = units[signs != 0].min(initial=units.max())
        places = np.maximum(units - first, 0)
        ready = self._ready(int(first), int(places.max()) + 1)

        def of_one(one):
            return fun(self.directions.offset(*one))

        each = (jax.tree.map(lambda x: x[places], ready), jnp.asarray(signs))
        return _mapped(of_one, each, self.batch_size)

    def weighted_offset(self, weights: Float[Array, " K"], centre: PyTree) -> PyTree:
        """As ``Candidates`` says."""
        layout, directions = self.superposition, self.directions
        units, signs = (np.array(x) for x in zip(*layout.members, strict=True))
        each = jnp.zeros((layout.groups, layout.num_rows), weights.dtype)
        signed = weights.reshape(layout.groups, -1) * signs[None]
        each = each.at[:, units].add(signed).reshape(-1)
        at_a_time, size = None, each.shape[0]
        if self.batch_size is not None:
            at_a_time = max(1, self.batch_size // len(layout.signs))
            size = _run_length(size, max(at_a_time, directions.num_affordable))
        num_runs, rest = divmod(each.shape[0], size)

        def added(total, start, count):
            part = jax.lax.dynamic_slice_in_dim(each, start, count)
            known = self._known(start, count)
            offset = directions.weighted_offset(known, part, at_a_time)
            return offset if total is None else jax.tree.map(jnp.add, total, offset)

        def zeros(leaf):
            dtype = jnp.promote_types(leaf.dtype, weights.dtype)
            zeros = jnp.zeros(leaf.shape, dtype)
            return _varying.like(zeros, each, leaf, self.key, self.first)

        total = None
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

    def is_finite(self, weights: Float[Array, " K"], total: PyTree) -> jax.Array:
        """As ``Candidates`` says, but ``total`` need not have been made."""
        return self.directions.is_finite(jnp.sum(jnp.abs(weights)))

    def _ready(self, start: Any, count: int) -> list[Any]:
        return self.directions.ready(self._known(start, count))

    def _known(self, start: Any, count: int) -> list[jax.Array]:
        if self.known is None:
            return self.directions.known(self.key, self.first + start, count)
        if count == self.known[0].shape[0]:
            return self.known
        return [jax.lax.dynamic_slice_in_dim(x, start, count) for x in self.known]
