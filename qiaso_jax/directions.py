"""Random directions of the parameters, known by a key and a number.

A direction z has E z = 0 and E z² = 1 of every weight. What it is made of is drawn of a
run of numbers in one go, and any of them can be drawn again without the others.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from qiaso_jax import _arguments, _varying, factors
from qiaso_jax._arguments import PyTree
from qiaso_jax.factors import Factors
from qiaso_jax.words import (
    Pair,
    normals,
    pairs_of_normals,
    pairs_of_signs,
    rows_of_pairs,
    signs_times,
)

_FARTHEST = {"rademacher": 1.0, "gaussian": 8.3}
"""How large a number of a direction can be, in the widest precision."""

MANY = 100
"""Weights for which signs are directions enough: of N there are 2^(N − 1) pairs."""

UNROLLED = 32
"""How many directions of signs are added up in one pass over the memory."""

BLOCKS = 4
"""In how many parts a matrix is made where factors of all would be larger."""


@dataclasses.dataclass(frozen=True)
class LowRank:
    """Directions of low rank, made by ``low_rank``."""

    rank: int
    factors: Literal["rademacher", "gaussian"]


def low_rank(
    rank: int = 1, *, factors: Literal["rademacher", "gaussian"] = "rademacher"
) -> LowRank:
    r"""Directions that are products of thin matrices, for ``qiaso(directions=...)``.

    .. math:: z = A B^\top / \sqrt{r}, \qquad A ∈ ℝ^{m×r}, \; B ∈ ℝ^{n×r},

    with independent entries of unit variance, so that E z = 0 and E z² = 1: m + n
    numbers for m·n weights. The loss of such a candidate is evaluated without the
    matrix μ + σz: :math:`x (μ + σ z) = x μ + (σ/\sqrt r) (x A) B^\top`, of which x μ is
    shared by all candidates where x is.

    A leaf of more than two axes is cut in two where rows and columns together are
    fewest; scalars, vectors, and leaves with no more weights than the factors would
    have numbers get independent signs (or normal numbers) instead, and so do complex
    leaves and those whose ``sigma`` is an array. What else a function does with its
    weights than multiply by them makes the matrix of a candidate:
    ``low_rank_sites`` lists where.

    With factors of signs every weight moves by σ exactly for r = 1, and the variance of
    the pseudo-gradient is that of independent signs.

    Args:
      rank: r ≥ 1.
      factors: entries of A and B, ±1 or normal.

    Returns:
      What ``directions`` of ``qiaso`` takes; ``"low_rank"`` there is ``low_rank(1)``.

    Raises:
      TypeError: if ``rank`` is no integer.
      ValueError: if ``rank`` is below 1, or ``factors`` unknown.

    Examples:
      >>> import jax.numpy as jnp, qiaso_jax
      >>> tx = qiaso_jax.qiaso(4, directions=qiaso_jax.low_rank(2))
      >>> params = {"kernel": jnp.zeros((30, 20)), "bias": jnp.zeros(20)}
      >>> candidates = qiaso_jax.ask(tx, tx.init(params), params)
      >>> print(jnp.linalg.matrix_rank(candidates["kernel"]))
      [2 2 2 2]
    """
    rank = _arguments.positive_int("rank", rank)
    _arguments.one_of("factors", factors, ("rademacher", "gaussian"))
    return LowRank(rank, factors)


def summed_in_runs(
    summed: Callable[[jax.Array, jax.Array], jax.Array],
    known: jax.Array,
    weights: jax.Array,
    at_a_time: int,
) -> jax.Array:
    """``summed(known, weights)`` of so many directions at a time, added up."""
    whole = len(known) // at_a_time * at_a_time
    if whole < 2 * at_a_time:
        whole = 0 if len(known) < at_a_time else at_a_time
    parts = []
    if whole == at_a_time:
        parts.append(summed(known[:whole], weights[:whole]))
    elif whole:
        runs = tuple(
            x[:whole].reshape(-1, at_a_time, *x.shape[1:]) for x in (known, weights)
        )
        like = jax.eval_shape(summed, known[:1], weights[:1])
        total, _ = jax.lax.scan(
            lambda total, run: (total + summed(*run), None),
            _varying.like(jnp.zeros(like.shape, like.dtype), known, weights),
            runs,
        )
        parts.append(total)
    if whole < len(known):
        parts.append(summed(known[whole:], weights[whole:]))
    return sum(parts[1:], start=parts[0])


Kind = Literal["gaussian", "rademacher"] | LowRank


def checked_kind(directions: Any) -> Kind | None:
    """What the argument ``directions`` of ``qiaso`` names, or is."""
    if directions is None or isinstance(directions, LowRank):
        return directions
    names = ("gaussian", "rademacher", "low_rank")
    if not isinstance(directions, str) or directions not in names:
        raise ValueError(
            f"directions must be one of {', '.join(map(repr, names))}, "
            f"qiaso_jax.low_rank(...) or None; got {directions!r}."
        )
    return LowRank(1, "rademacher") if directions == "low_rank" else directions


def kind_for(kind: Kind | None, like: PyTree) -> Kind:
    """The kind that is asked for; if none is, the one for so many weights."""
    if kind is not None:
        return kind
    return "gaussian" if _size(like) < MANY else "rademacher"


def _size(tree: PyTree) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


class _OfLeaf(Protocol):
    """How the directions of one leaf are made of random words.

    Attributes:
      num_pairs: of one direction.
      num_known: how many numbers one direction is known by.
    """

    @property
    def num_pairs(self) -> int: ...

    @property
    def num_known(self) -> int: ...

    def known(self, pair: Pair) -> jax.Array:
        """What is kept of directions: of pairs of shape ``[rows, num_pairs]`` each."""
        ...

    def ready(self, known: jax.Array) -> Any:
        """What ``offset`` takes of those that are evaluated together."""
        ...

    def offset(self, one: Any, factor: jax.Array) -> jax.Array | Factors:
        """``factor · z`` of one, by its part of what is ready."""
        ...

    def weighted_sum(
        self, known: jax.Array, weights: jax.Array, at_a_time: int | None
    ) -> jax.Array:
        """Σ_u w_u z_u, in the wider of the precisions of weights and leaf.

        Args:
          known: of the directions.
          weights: w.
          at_a_time: of how many directions all that is made of them may exist; ``None``
            for all.
        """
        ...


class _Normal(NamedTuple):
    shape: tuple[int, ...]
    dtype: Any

    @property
    def num_pairs(self) -> int:
        return pairs_of_normals(math.prod(self.shape), self.dtype)

    @property
    def num_known(self) -> int:
        return math.prod(self.shape)

    def known(self, pair: Pair) -> jax.Array:
        z = normals(pair, math.prod(self.shape), self.dtype)
        return z.reshape(z.shape[0], *self.shape)

    def ready(self, known: jax.Array) -> jax.Array:
        return known

    def offset(self, one: jax.Array, factor: jax.Array) -> jax.Array:
        return factor * one

    def weighted_sum(
        self, known: jax.Array, weights: jax.Array, at_a_time: int | None
    ) -> jax.Array:
        del at_a_time
        return factors.weighted_sum(weights, known)


class _Signs(NamedTuple):
    shape: tuple[int, ...]
    dtype: Any

    @property
    def num_pairs(self) -> int:
        return pairs_of_signs(self.shape)

    @property
    def num_known(self) -> int:
        return 2 * self.num_pairs

    def known(self, pair: Pair) -> jax.Array:
        return jnp.concatenate(pair, axis=1)

    def ready(self, known: jax.Array) -> jax.Array:
        return known

    def offset(self, one: jax.Array, factor: jax.Array) -> jax.Array:
        return signs_times(one, jnp.broadcast_to(factor, self.shape))

    def weighted_sum(
        self, known: jax.Array, weights: jax.Array, at_a_time: int | None
    ) -> jax.Array:
        del at_a_time
        weights = weights.astype(jnp.promote_types(self.dtype, weights.dtype))

        def summed(words, weights):
            terms = map(self.offset, words, weights)
            return sum(terms, start=jnp.zeros(self.shape, weights.dtype))

        return summed_in_runs(summed, known, weights, UNROLLED)


class _LowRank(NamedTuple):
    shape: tuple[int, ...]
    dtype: Any
    end: int
    rank: int
    entries: type[_Normal] | type[_Signs]

    @property
    def _parts(self) -> tuple[_Normal | _Signs, _Normal | _Signs]:
        dtype = jnp.promote_types(self.dtype, jnp.float32)
        rows, columns = self.shape[: self.end], self.shape[self.end :]
        return (
            self.entries((self.rank, *rows), dtype),
            self.entries((self.rank, *columns), dtype),
        )

    @property
    def num_pairs(self) -> int:
        return sum(part.num_pairs for part in self._parts)

    @property
    def num_known(self) -> int:
        return 2 * self.num_pairs

    def known(self, pair: Pair) -> jax.Array:
        return jnp.concatenate(pair, axis=1)

    def ready(self, known: jax.Array) -> Factors:
        # Else XLA may unpack them again for every example.
        return jax.lax.optimization_barrier(self._entries(known))

    def _entries(self, known: jax.Array) -> Factors:
        rows, columns = self._parts
        one = jnp.ones((), rows.dtype)

        def entries(part, pair):
            return jax.vmap(lambda x: part.offset(x, one))(part.known(pair))

        end = rows.num_pairs
        of_rows, of_columns = zip(
            *((half[:, :end], half[:, end:]) for half in jnp.split(known, 2, axis=1)),
            strict=True,
        )
        scaled = entries(rows, of_rows) / math.sqrt(self.rank)
        return Factors(scaled, entries(columns, of_columns))

    def offset(self, one: Factors, factor: jax.Array) -> Factors:
        return Factors(one.rows, factor.astype(one.columns.dtype) * one.columns)

    def weighted_sum(
        self, known: jax.Array, weights: jax.Array, at_a_time: int | None
    ) -> jax.Array:
        length, width = (math.prod(part.shape[1:]) for part in self._parts)
        affordable = length * width // (self.rank * (length + width))
        if at_a_time is None or len(known) <= max(at_a_time, affordable):
            return factors.weighted_sum(weights, self.ready(known))
        size, in_run = -(-length // BLOCKS), max(1, at_a_time, affordable // BLOCKS)

        def of_block(number, total):
            def summed(known, weights):
                each = self._entries(known)
                flat = each.rows.reshape(*each.rows.shape[:2], length)
                block = jax.lax.dynamic_slice_in_dim(flat, number * size, size, axis=2)
                return factors.weighted_sum(weights, Factors(block, each.columns))

            block = summed_in_runs(summed, known, weights, in_run)
            block = block.reshape(size, width)
            # The last one begins early where it would end late, here and above.
            return jax.lax.dynamic_update_slice_in_dim(total, block, number * size, 0)

        dtype = jnp.promote_types(self._parts[0].dtype, weights.dtype)
        total = _varying.like(jnp.zeros((length, width), dtype), known, weights)
        total = jax.lax.fori_loop(0, -(-length // size), of_block, total)
        return total.reshape(self.shape)


class _Complex(NamedTuple):
    """Real and imaginary parts with half of the variance each."""

    parts: _Normal | _Signs

    @property
    def num_pairs(self) -> int:
        return self.parts.num_pairs

    @property
    def num_known(self) -> int:
        return self.parts.num_known

    def known(self, pair: Pair) -> jax.Array:
        return self.parts.known(pair)

    def ready(self, known: jax.Array) -> jax.Array:
        return known

    def offset(self, one: jax.Array, factor: jax.Array) -> jax.Array:
        return jax.lax.complex(*self.parts.offset(one, factor * math.sqrt(0.5)))

    def weighted_sum(
        self, known: jax.Array, weights: jax.Array, at_a_time: int | None
    ) -> jax.Array:
        weights = weights * math.sqrt(0.5)
        return jax.lax.complex(*self.parts.weighted_sum(known, weights, at_a_time))


def _of_leaf(kind: Kind, leaf: Any, sigma: Any) -> _OfLeaf:
    entries = kind.factors if isinstance(kind, LowRank) else kind
    made_of = {"gaussian": _Normal, "rademacher": _Signs}[entries]
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return _Complex(made_of((2, *leaf.shape), jnp.finfo(leaf.dtype).dtype))
    if isinstance(kind, LowRank) and not jnp.ndim(sigma):
        end = factors.split(leaf.shape, kind.rank)
        if end is not None:
            return _LowRank(leaf.shape, leaf.dtype, end, kind.rank, made_of)
    return made_of(leaf.shape, leaf.dtype)


class Directions(NamedTuple):
    """The directions of a pytree of parameters.

    Attributes:
      like: the parameters, or their shapes and dtypes.
      sigma: σ of every leaf, each a scalar or of the leaf's shape.
      kind: how they are drawn.
    """

    like: PyTree
    sigma: PyTree
    kind: Kind

    def known(self, key: jax.Array, start: Any, count: int) -> list[jax.Array]:
        """What ``count`` directions from number ``start`` on are known by.

        A list with an entry for each leaf, arrays with a leading axis.
        """
        each, leaves = self._each(), jax.tree.leaves(self.like)
        rows = jnp.arange(count, dtype=jnp.uint32) + jnp.asarray(start, jnp.uint32)
        known: list[Any] = [None] * len(each)
        # Parts of a parameter that is split over devices are different ones.
        axes = [tuple(sorted(_varying.axes_of(leaf))) for leaf in leaves]
        for alike in dict.fromkeys(axes):
            places = [i for i, own in enumerate(axes) if own == alike]
            pairs = rows_of_pairs(
                jax.random.fold_in(key, jax.lax.axis_index(alike)) if alike else key,
                rows,
                [each[i].num_pairs for i in places],
                fused=self.kind == "gaussian",
            )
            for i, pair in zip(places, pairs, strict=True):
                known[i] = each[i].known(pair)
        return known

    def ready(self, known: list[jax.Array]) -> list[Any]:
        """What ``offset`` takes of those that are evaluated together."""
        return [leaf.ready(x) for leaf, x in zip(self._each(), known, strict=True)]

    def offset(self, one: list[Any], sign: Any) -> PyTree:
        """± σ z of one that is ready: an array or ``Factors`` for every leaf."""
        leaves, treedef = jax.tree.flatten(self.like)
        sigma = jax.tree.leaves(self.sigma)
        return treedef.unflatten(
            of_leaf.offset(x, jnp.asarray(s * sign).astype(_real(leaf.dtype)))
            for of_leaf, x, s, leaf in zip(
                self._each(), one, sigma, leaves, strict=True
            )
        )

    def weighted_offset(
        self,
        known: list[jax.Array],
        weights: jax.Array,
        at_a_time: int | None = None,
    ) -> PyTree:
        """Σ_u w_u σ z_u, in the precision of the weights or a wider one.

        Args:
          known: of the directions.
          weights: w.
          at_a_time: of how many directions all that is made of them may exist; ``None``
            for all.
        """
        treedef = jax.tree.structure(self.like)

        def of_leaf(leaf, x, s):
            total = leaf.weighted_sum(x, weights, at_a_time)
            return jnp.asarray(s).astype(_real(total.dtype)) * total

        return treedef.unflatten(
            map(of_leaf, self._each(), known, jax.tree.leaves(self.sigma))
        )

    def is_finite(self, size: jax.Array) -> jax.Array:
        """Whether Σ_u w_u σ z_u is finite, by the size Σ_u |w_u| of the weights."""
        entries = self.kind.factors if isinstance(self.kind, LowRank) else self.kind
        reach = _FARTHEST[entries]
        if isinstance(self.kind, LowRank):
            reach = reach**2 * math.sqrt(self.kind.rank)
        leaves = zip(
            jax.tree.leaves(self.like), jax.tree.leaves(self.sigma), strict=True
        )
        bounded = [
            size * jnp.max(sigma, initial=0).astype(size.dtype) * reach
            <= float(jnp.finfo(leaf.dtype).max)
            for leaf, sigma in leaves
        ]
        return jnp.all(jnp.stack(bounded))

    @property
    def num_affordable(self) -> int:
        """How many directions are known by as many numbers as there are weights."""
        return _size(self.like) // max(1, sum(leaf.num_known for leaf in self._each()))

    def are_small(self, count: int) -> bool:
        """Whether ``count`` directions are known by less than half the weights."""
        pairs = sum(leaf.num_pairs for leaf in self._each())
        return 4 * count * pairs <= _size(self.like)

    def _each(self) -> list[_OfLeaf]:
        leaves = jax.tree.leaves(self.like)
        return list(
            map(partial(_of_leaf, self.kind), leaves, jax.tree.leaves(self.sigma))
        )


def normal_directions(key: jax.Array, stacked: PyTree, count: int) -> PyTree:
    """Normal directions of the shapes and dtypes of arrays with a leading axis.

    Args:
      key: a PRNG key.
      stacked: a pytree of arrays.
      count: the length of their leading axes.
    """
    like = jax.tree.map(lambda x: x[0], stacked)
    ones = jax.tree.map(lambda x: jnp.ones((), _real(x.dtype)), like)
    directions = Directions(like, ones, "gaussian")
    each = directions.known(key, 0, count)
    return jax.vmap(lambda one: directions.offset(one, 1), axis_size=count)(each)


def _real(dtype: Any) -> Any:
    return jnp.finfo(dtype).dtype
