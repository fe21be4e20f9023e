import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.search.bounds import reflection


def mirrored(x, low, high):
    """Reflects at the bound that is crossed, until none is."""
    while not low <= x <= high:
        x = 2 * low - x if x < low else 2 * high - x
    return x


@pytest.mark.parametrize(
    ("low", "high"),
    [(-1.0, 2.0), (0.5, np.inf), (-np.inf, 0.25), (-np.inf, np.inf), (3.0, 3.5)],
)
def test_points_are_mirrored_at_the_bounds(low, high):
    x = np.linspace(-7, 7, 57, dtype=np.float32)
    start = jnp.full(x.shape, np.clip(0.0, low, high))
    reflected = reflection((low, high), start)(jnp.asarray(x))
    expected = [mirrored(float(v), low, high) for v in x]
    np.testing.assert_allclose(reflected, expected, atol=1e-5)


def test_integers_are_not_reflected():
    x0 = {"x": jnp.zeros(2), "n": jnp.array([5])}
    reflected = reflection((-1.0, 1.0), x0)({"x": jnp.full(2, 1.5), "n": x0["n"]})
    np.testing.assert_allclose(reflected["x"], [0.5, 0.5])
    np.testing.assert_array_equal(reflected["n"], [5])
