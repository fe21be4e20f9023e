"""Jumps, against SciPy's tails and sums and products in float64."""

import jax.numpy as jnp
import numpy as np
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from instances import ROUNDING, property_test

from qiaso_jax import theory

# Barriers in units of εσ whose escape probability is a normal float32.
reaches = st.floats(2**-6, 12.0, width=32)


class TestTotalTunnellingProbability:
    @property_test
    @given(
        st.floats(0, 1, width=32),
        st.floats(2**-12, 5, width=32),
        st.integers(1, 3000),
    )
    def test_is_the_sum(self, initial, decay, steps):
        summed = np.sum(initial * np.exp(-decay * np.arange(steps)))
        np.testing.assert_allclose(
            theory.total_tunnelling_probability(initial, decay, steps),
            summed,
            rtol=1e-5,
        )

    def test_infinite_sum_is_the_limit(self):
        infinite = theory.total_tunnelling_probability(0.7, 0.01)
        np.testing.assert_allclose(infinite, 0.7 / (1 - np.exp(-0.01)), rtol=1e-5)


class TestEscapeProbability:
    @property_test
    @given(reaches, st.floats(2**-6, 10, width=32), st.floats(2**-6, 10, width=32))
    def test_one_dimension(self, z, epsilon, sigma):
        probability = theory.escape_probability(z * epsilon * sigma, epsilon, sigma)
        # Q varies by a factor 1 ± (z² + 1)·(relative error of z).
        np.testing.assert_allclose(probability, scipy.stats.norm.sf(z), rtol=1e-4)

    @property_test
    @given(
        st.floats(-4, 4, width=32),
        st.sampled_from([1, 2, 3, 10, 100, 800, 900, 10_000, 10**6, 10**7]),
    )
    def test_n_dimensions(self, deviations, n):
        squared = n + deviations * np.sqrt(2 * n)
        z = np.float32(np.sqrt(max(squared, 0.01)))
        probability = theory.norm_escape_probability(z, 1.0, 1.0, n)
        expected = scipy.stats.chi2.sf(float(z) ** 2, n)
        np.testing.assert_allclose(
            probability, expected, atol=1e-5 if n <= 100 else 3e-4
        )
        assert 0 <= probability <= 1

    @property_test
    @given(reaches, st.floats(2**-3, 10, width=32))
    def test_one_and_two_weights(self, z, sigma):
        norm = [theory.norm_escape_probability(z * sigma, 1, sigma, n) for n in (1, 2)]
        # With one weight both signs count, with two the radius is Rayleigh's.
        exact = 2 * scipy.stats.norm.sf(z), scipy.stats.rayleigh.sf(z)
        np.testing.assert_allclose(norm, exact, rtol=1e-3)

    @property_test
    @given(reaches, st.floats(2**-3, 10, width=32))
    def test_printed_tail_is_rayleighs(self, z, sigma):
        arguments = z * sigma, 1.0, sigma
        np.testing.assert_allclose(
            (
                theory.chernoff_bound(*arguments),
                theory.escape_probability_as_printed(*arguments),
            ),
            (scipy.stats.rayleigh.sf(z), scipy.stats.rayleigh.cdf(z)),
            rtol=1e-3,
        )

    @property_test
    @given(reaches)
    def test_bounds_enclose_it(self, z):
        lower, upper = theory.escape_probability_bounds(z, 1.0, 1.0)
        exact = scipy.stats.norm.sf(z)
        assert lower <= exact * (1 + ROUNDING)
        assert exact <= upper * (1 + ROUNDING)
        # They are worth having only if they are close.
        assert upper <= 1.26 * lower

    def test_extreme_barriers_give_no_nan(self):
        for barrier in (1e-30, 1e30):
            for function in (
                theory.escape_probability,
                theory.chernoff_bound,
                theory.escape_probability_as_printed,
            ):
                assert function(barrier, 1.0, 1.0) in (0, 0.5, 1)
            for n in (1, 10, 10**6):
                probability = theory.norm_escape_probability(barrier, 1.0, 1.0, n)
                assert probability == (barrier < 1)
            bounds = theory.escape_probability_bounds(barrier, 1.0, 1.0)
            assert np.all(np.isfinite(bounds))


class TestCumulativeEscape:
    @property_test
    @given(
        st.lists(st.floats(0, 1, width=32), min_size=5, max_size=5),
        st.floats(0, 1, width=32),
    )
    def test_is_one_minus_the_product(self, p_t, escape):
        expected = 1 - np.prod(1 - np.array(p_t) * escape)
        np.testing.assert_allclose(
            theory.cumulative_escape_probability(p_t, escape),
            expected,
            rtol=1e-5,
            atol=1e-7,
        )

    def test_escape_may_change_with_the_step(self):
        cumulative = theory.cumulative_escape_probability([1.0, 0.5], [0.5, 0.5])
        np.testing.assert_allclose(cumulative, 1 - 0.5 * 0.75)
        assert theory.cumulative_escape_probability([0.3, 1.0], 1.0) == 1

    def test_keeps_probabilities_too_small_for_one_minus(self):
        cumulative = theory.cumulative_escape_probability(jnp.ones(10), 1e-12)
        np.testing.assert_allclose(cumulative, 1e-11, rtol=1e-5)
