import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax._trees import moves
from qiaso_jax.search.bounds import box, spread
from qiaso_jax.search.coordinates import REACH, coordinates
from qiaso_jax.search.integers import which


def of(x0, bounds=None, sigma=1.0):
    x0 = jax.tree.map(jnp.asarray, x0)
    within = box(bounds, x0)
    spreads = spread(sigma, within, x0)
    return coordinates(x0, moves(x0, None), within, spreads, which(False, x0))


def test_a_vector_in_units_of_sigma():
    where = of({"a": np.ones((2, 2)), "n": np.arange(2), "b": 3.0}, sigma=2.0)
    assert where.size == 5
    point = where.point(jnp.arange(5.0))
    np.testing.assert_allclose(point["a"], [[1, 3], [5, 7]])
    np.testing.assert_array_equal(point["n"], [0, 1])
    np.testing.assert_allclose(point["b"], 3 + 2 * 4)


def test_the_start_is_itself_in_every_precision():
    x0 = {"half": jnp.asarray([1 / 3], jnp.bfloat16), "one": jnp.asarray(0.1)}
    where = of(x0, sigma=0.7)
    point = where.point(jnp.zeros(2))
    for name, leaf in x0.items():
        assert point[name].dtype == leaf.dtype
        np.testing.assert_array_equal(point[name], leaf)


def test_complex_numbers_are_two_coordinates():
    where = of({"z": jnp.asarray([1 + 2j, 0])}, sigma=3.0)
    assert where.size == 4
    u = jax.random.normal(jax.random.key(0), (20_000, 4))
    moved = np.asarray(jax.vmap(where.point)(u)["z"]) - np.array([1 + 2j, 0])
    variance = np.mean(np.abs(moved) ** 2, axis=0)
    np.testing.assert_allclose(variance, 9, rtol=0.05)
    np.testing.assert_allclose(np.mean(moved**2, axis=0), 0, atol=0.3)


def test_fixed_coordinates_are_left_out():
    low, high = np.array([-1.0, 0.5, -1]), np.array([1.0, 0.5, 1])
    where = of({"x": np.zeros(3)}, ({"x": low}, {"x": high}), sigma=0.5)
    assert where.size == 2
    np.testing.assert_array_equal(where.places, [0, 2])


def test_points_are_reflected_into_the_bounds():
    where = of(np.zeros(2), (-1.0, 2.0), sigma=1.0)
    point = where.point(jnp.asarray([2.5, -1.25]))
    np.testing.assert_allclose(point, [1.5, -0.75])


@pytest.mark.parametrize("bounds", [None, (-0.5, 0.5), (-np.inf, 0.5)])
def test_restarts_are_within_reach_and_bounds(bounds):
    where = of(np.zeros(3), bounds, sigma=2.0)
    keys = jax.random.split(jax.random.key(0), 500)
    starts = jax.vmap(where.space.start)(keys)
    x = np.asarray(jax.vmap(where.point)(starts))
    low, high = bounds or (-np.inf, np.inf)
    low, high = max(low, -2 * REACH), min(high, 2 * REACH)
    assert (x >= low).all()
    assert (x <= high).all()
    assert (np.ptp(x, axis=0) > 0.95 * (high - low)).all()
