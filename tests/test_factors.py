"""Low-rank offsets are cut where they are said to be, and add up as arrays do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.factors import Factors, densified, split, weighted_sum


@pytest.mark.parametrize(
    ("shape", "rows"),
    [
        ((3, 3, 8, 16), 72),  # a convolution: its receptive field
        ((64, 4, 16), 64),  # attention: what is contracted
        ((4, 16, 64), 64),
        ((1000, 32), 1000),  # an embedding
        ((16, 24), 16),  # equinox: a linear layer
        ((16, 8, 3, 3), 16),  # and a convolution
    ],
)
def test_where_arrays_are_cut(shape, rows):
    end = split(shape, 1)
    assert np.prod(shape[:end]) == rows


@pytest.mark.parametrize("shape", [(), (5,), (1, 9), (9, 1), (2, 2), (0, 4), (64, 0)])
def test_small_arrays_are_not_cut(shape):
    assert split(shape, 1) is None


def test_factors_are_fewer_numbers_than_the_array():
    for rank in range(1, 30):
        assert (split((20, 30), rank) is None) == (rank * 50 >= 600)


@pytest.mark.parametrize("rank", [1, 3])
def test_sums_of_factors_are_sums_of_arrays(rank):
    random = np.random.default_rng(0)
    rows = random.normal(size=(7, rank, 2, 3))
    columns = random.normal(size=(7, rank, 4, 5))
    weights = random.normal(size=7)
    each = np.einsum("krab,krcd->kabcd", rows, columns)
    with jax.enable_x64(True):
        stacked = Factors(jnp.asarray(rows), jnp.asarray(columns))
        total = weighted_sum(jnp.asarray(weights), stacked)
        dense = jax.vmap(lambda one: one.dense(jnp.float64))(stacked)
    np.testing.assert_allclose(total, np.tensordot(weights, each, 1), atol=1e-13)
    np.testing.assert_allclose(dense, each, atol=1e-13)


def test_a_tree_of_offsets_as_arrays():
    like = {"w": jnp.zeros((2, 3), jnp.bfloat16), "b": jnp.zeros(3)}
    factors = Factors(jnp.ones((1, 2)), 2 * jnp.ones((1, 3)))
    dense = densified({"w": factors, "b": jnp.ones(3)}, like)
    assert dense["w"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(dense["w"], np.full((2, 3), 2.0))
    np.testing.assert_array_equal(dense["b"], np.ones(3))
