"""Directions of weights: their rank, moments, and what an estimate from them varies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crosses import crossed

import qiaso_jax
from qiaso_jax.directions import Directions, LowRank, checked_kind, normal_directions
from qiaso_jax.factors import is_factors

KINDS = ["gaussian", "rademacher", LowRank(1, "rademacher"), LowRank(2, "gaussian")]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=str)


def drawn(like, kind, number, sigma=1.0, seed=0):
    """z of all, as arrays."""
    spread = jax.tree.map(lambda _: sigma, like)
    directions = Directions(like, spread, kind)
    ready = directions.ready(directions.known(jax.random.key(seed), 0, number))

    def of_one(one):
        return jax.tree.map(
            lambda d, x: d.dense(x.dtype) if is_factors(d) else d,
            directions.offset(one, 1.0),
            like,
            is_leaf=is_factors,
        )

    return jax.vmap(of_one)(ready)


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [
        ((3, 3, 8, 16), (72, 16)),
        ((64, 4, 16), (64, 64)),
        ((4, 16, 64), (64, 64)),
        ((100, 20), (100, 20)),
        ((16, 24), (16, 24)),
        ((16, 8, 3, 3), (16, 72)),
    ],
)
@pytest.mark.parametrize("rank", [1, 3])
def test_the_rank_of_offsets(shape, matrix, rank):
    z = drawn(jnp.zeros(shape), LowRank(rank, "gaussian"), 2)
    ranks = np.linalg.matrix_rank(np.asarray(z).reshape(2, *matrix), tol=1e-3)
    np.testing.assert_array_equal(ranks, rank)


def test_what_is_small_complex_or_spread_by_weight_is_dense():
    like = {
        "small": jnp.zeros((2, 2)),
        "vector": jnp.zeros(50),
        "complex": jnp.zeros((20, 20), jnp.complex64),
        "spread": jnp.zeros((20, 20)),
        "empty": jnp.zeros((0, 4)),
    }
    sigma = jax.tree.map(lambda _: 1.0, like) | {"spread": jnp.full((20, 20), 2.0)}
    for factors in ("rademacher", "gaussian"):
        directions = Directions(like, sigma, LowRank(1, factors))
        ready = directions.ready(directions.known(jax.random.key(0), 0, 3))
        offsets = jax.vmap(lambda one, d=directions: d.offset(one, 1.0))(ready)
        for name, leaf in like.items():
            assert offsets[name].shape == (3, *leaf.shape)
            assert offsets[name].dtype == leaf.dtype
        if factors == "rademacher":
            np.testing.assert_array_equal(np.abs(offsets["spread"]), 2)


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64"])
def test_moments_of_directions(kind, dtype):
    number = 4000
    like = {"a": jnp.zeros((5, 7), dtype), "b": jnp.zeros((5, 7), dtype)}
    z = drawn(like, kind, number)
    dtype = complex if dtype == "complex64" else float
    flat = np.concatenate(
        [np.asarray(x).astype(dtype).reshape(number, -1) for x in z.values()], axis=1
    )
    # E z = 0, E |z|² = 1, and no entries correlate: products of normal numbers have a
    # variance of up to 9 − 1; seven standard errors, as their tails are long.
    bound = 7 / number**0.5
    assert np.abs(flat.mean(axis=0)).max() < bound
    moments = flat.T @ flat.conj() / number
    assert np.abs(moments - np.eye(70)).max() < bound * 8**0.5


@every_kind
def test_a_direction_is_drawn_without_the_others(kind):
    like = {"w": jnp.zeros((9, 11)), "b": jnp.zeros(3)}
    directions = Directions(like, {"w": 1.0, "b": 2.0}, kind)
    key = jax.random.key(0)
    together = directions.known(key, 0, 9)
    apart = directions.known(key, 5, 2)
    for whole, part in zip(together, apart, strict=True):
        np.testing.assert_array_equal(whole[5:7], part)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("rademacher", 2047),
        ("gaussian", 2049),
        (LowRank(1, "rademacher"), 2047),
        (LowRank(1, "gaussian"), 2243),
    ],
    ids=str,
)
def test_the_variance_of_a_gradient_from_one_direction(kind, expected):
    r"""Σ Var(ĝ)/‖g‖² of ĝ = ⟨g, z⟩ z, where g is random and N = 64 × 32 = 2,048.

    E‖z‖²⟨g, z⟩² / ‖g‖² − 1: ‖z‖² = N for signs, and N − 1 it is for both kinds of them,
    as ⟨g, z⟩² has mean ‖g‖². For normal numbers it is N + 2 − 1; for products of them
    ‖a‖²‖b‖²⟨a, g b⟩², with E ‖a‖² a aᵀ = (m + 2) 1, is (m + 2)(n + 2) − 1.
    """
    like = jnp.zeros((64, 32))
    g = np.random.default_rng(0).normal(size=(64, 32))
    values = []
    for seed in range(8):
        z = np.asarray(drawn(like, kind, 1000, seed=seed), np.float64)
        values.append(np.einsum("kij,kij->k", z, z) * np.einsum("kij,ij->k", z, g) ** 2)
    values = np.concatenate(values) / np.sum(g**2) - 1
    error = values.std() / len(values) ** 0.5
    assert error < 0.04 * expected
    assert abs(values.mean() - expected) < 5 * error


def test_kinds_are_checked():
    assert checked_kind("low_rank") == qiaso_jax.low_rank() == LowRank(1, "rademacher")
    assert checked_kind("gaussian") == "gaussian"
    with pytest.raises(ValueError, match="directions must be one of 'gaussian'"):
        checked_kind("sobol")
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        qiaso_jax.low_rank(0)
    with pytest.raises(ValueError, match="factors must be one of 'rademacher'"):
        qiaso_jax.low_rank(1, factors="uniform")


def test_normal_directions_are_like_what_is_stacked():
    stacked = {"n": None, "w": jnp.ones((4, 2, 3), jnp.bfloat16)}
    z = normal_directions(jax.random.key(0), stacked, 4)
    assert z["n"] is None
    assert (z["w"].shape, z["w"].dtype) == ((4, 2, 3), jnp.bfloat16)
    assert len(np.unique(np.asarray(z["w"], np.float32))) > 15
    assert normal_directions(jax.random.key(0), {}, 4) == {}


@pytest.mark.parametrize(
    ("of", "entries", "count"),
    crossed(
        [((13, 7), 1), ((7, 40), 2), ((17, 3, 5), 1), ((64, 64), 3)],
        ["rademacher", "gaussian"],
        [1, 2, 9, 70],
    ),
)
def test_the_weighted_sum_of_low_rank_directions(of, entries, count):
    shape, rank = of
    like, kind = jnp.zeros(shape), LowRank(rank, entries)
    directions = Directions(like, jnp.asarray(0.3), kind)
    known = directions.known(jax.random.key(3), 5, count)
    weights = jax.random.normal(jax.random.key(4), (count,))
    ((rows, columns),) = directions.ready(known)
    rows, columns = (
        np.asarray(x, np.float64).reshape(count, rank, -1) for x in (rows, columns)
    )
    total = 0.3 * np.einsum("u,uri,urj->ij", np.asarray(weights), rows, columns)
    for at_a_time in (None, 1, 4):
        found = directions.weighted_offset(known, weights, at_a_time)
        np.testing.assert_allclose(found, total.reshape(shape), rtol=1e-5, atol=1e-5)


def test_signs_are_the_default_for_many_weights():
    for size, expected in [(99, 99), (100, 1)]:
        tx = qiaso_jax.qiaso(4, 0.5)
        candidates = qiaso_jax.ask(tx, tx.init(jnp.zeros(size)), jnp.zeros(size))
        assert len(np.unique(np.abs(candidates[0]))) == expected
