import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qiaso_jax.resampling import systematic_draws


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from([0.0, 1e-6, 0.1, 1.0, 7.0]), min_size=1, max_size=8),
    st.integers(1, 12),
    st.floats(0, 0.875, width=32),
)
def test_each_is_drawn_as_often_as_its_share_rounded(weights, count, shift):
    weights = np.array(weights, np.float32)
    if not weights.sum():
        weights[0] = 1.0
    drawn = systematic_draws(jnp.float32(shift), jnp.asarray(weights), count)
    numbers = np.bincount(drawn, minlength=len(weights))
    shares = count * np.float64(weights) / np.float64(weights).sum()
    assert drawn.shape == (count,)
    assert (numbers[weights == 0] == 0).all()
    # One more or less where a quantile meets an edge in single precision.
    assert (numbers >= np.floor(shares - 1e-3)).all()
    assert (numbers <= np.ceil(shares + 1e-3)).all()
    assert (np.diff(drawn) >= 0).all()


@pytest.mark.parametrize("shift", [0.0, float(np.nextafter(np.float32(1), 0))])
def test_what_has_no_weight_is_not_drawn_at_either_end(shift):
    # Quantiles that are edges: the first at 0; the last is rounded to the sum.
    weights = jnp.array([0.0, 1.0, 1.0, 0.0])
    drawn = systematic_draws(jnp.float32(shift), weights, 3)
    assert set(np.asarray(drawn)) <= {1, 2}


def test_numbers_are_right_in_expectation():
    weights = jnp.array([0.5, 0.2, 0.0, 0.3])
    shifts = (jnp.arange(1000) + 0.5) / 1000
    drawn = jax.vmap(lambda u: systematic_draws(u, weights, 7))(shifts)
    numbers = np.bincount(np.ravel(drawn), minlength=4) / 1000
    np.testing.assert_allclose(numbers, 7 * np.float64(weights), atol=1e-2)
