import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.search.steps import annealed


def test_the_spread_falls_faster_in_the_last_quarter():
    rates = np.where(np.arange(40) < 30, 0.5, 1.4)
    expected = np.exp(-np.cumsum([0, *rates]) / 8)
    found = annealed(jnp.arange(41), num_steps=40, size=8)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_spread_does_not_fall_below_single_precision():
    assert annealed(jnp.int32(1000), 1000, 1) == pytest.approx(1e-8)
