"""One amplification, against NumPy and SciPy in float64 and closed forms.

That the paper's statements hold of it is tested in tests/benchmarks/test_paper_theory.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from instances import (
    ROUNDING,
    distribution_pairs,
    etas,
    instances,
    oracle_kl,
    oracle_weights,
    property_test,
)

from qiaso_jax import theory

pytestmark = pytest.mark.slow


class TestKLDivergence:
    @property_test
    @given(distribution_pairs())
    def test_is_the_sum_it_is_defined_by(self, pair):
        np.testing.assert_allclose(
            theory.kl_divergence(*pair), oracle_kl(*pair), rtol=1e-5, atol=2e-6
        )

    def test_zeros(self):
        assert theory.kl_divergence([0.0, 1.0], [0.0, 1.0]) == 0
        assert theory.kl_divergence([0.5, 0.5], [0.0, 1.0]) == jnp.inf

    @property_test
    @given(instances())
    def test_is_never_negative_however_close_the_arguments(self, instance):
        p = instance[1]
        q = np.nextafter(p, np.float32(2))
        assert theory.kl_divergence(q, p) >= 0
        assert theory.kl_divergence(p, q) >= 0

    @property_test
    @given(distribution_pairs())
    def test_pinsker_slack(self, pair):
        q, p = pair
        expected = np.sqrt(2 * max(oracle_kl(q, p), 0)) - np.abs(q - p).sum()
        np.testing.assert_allclose(
            theory.pinsker_slack(q, p), expected, rtol=1e-4, atol=2e-3
        )


class TestWeights:
    @pytest.mark.parametrize(
        "function", [theory.exponential_weights, theory.mirror_step]
    )
    @property_test
    @given(instance=instances(zeros=True), eta=etas)
    def test_match_the_oracle(self, function, instance, eta):
        losses, p = instance
        np.testing.assert_allclose(
            function(losses, p, eta),
            oracle_weights(losses, p, eta),
            rtol=1e-3,
            atol=1e-6,
        )

    @property_test
    @given(instances(), etas)
    def test_lowest_objective_is_the_free_energy(self, instance, eta):
        losses, p = instance
        free_energy = -scipy.special.logsumexp(-eta * losses.astype(float), b=p) / eta
        p_next = theory.exponential_weights(losses, p, eta)
        np.testing.assert_allclose(
            theory.variational_objective(p_next, losses, p, eta),
            free_energy,
            atol=ROUNDING * (10 + 20 / eta),
        )

    def test_large_losses_lose_no_digits(self):
        losses = np.float32(2**22) + np.float32([0.5, 1.0, 2.0])
        p = np.full(3, 1 / 3)
        np.testing.assert_allclose(
            theory.exponential_weights(losses, p, 1.7),
            oracle_weights(losses, p, 1.7),
            rtol=1e-5,
        )

    @property_test
    @given(instances(), etas)
    def test_gibbs(self, instance, eta):
        losses, _ = instance
        boltzmann = scipy.special.softmax(-eta * losses.astype(float))
        np.testing.assert_allclose(
            theory.gibbs(losses, eta), boltzmann, rtol=1e-4, atol=1e-6
        )


class TestMirrorMap:
    @property_test
    @given(instances())
    def test_is_the_gradient_of_the_negative_entropy(self, instance):
        p = jnp.asarray(instance[1])
        gradient = jax.grad(lambda x: jnp.sum(x * jnp.log(x)))(p)
        np.testing.assert_allclose(theory.mirror_map(p), gradient, rtol=1e-6)

    @property_test
    @given(instances(zeros=True), st.floats(-50, 50, width=32))
    def test_inverse_undoes_it_up_to_a_constant(self, instance, constant):
        p = instance[1]
        back = theory.inverse_mirror_map(theory.mirror_map(p) + constant)
        np.testing.assert_allclose(back, p, rtol=1e-4)


@property_test
@given(instances(zeros=True), etas)
def test_amplification_bounds(instance, eta):
    losses, p = instance
    p_next = oracle_weights(losses, p, eta)
    expected = (
        oracle_kl(p_next, p),
        eta * (p.astype(float) - p_next) @ losses,
        eta * p.astype(float) @ losses,
    )
    np.testing.assert_allclose(
        theory.amplification_bounds(losses, p, eta),
        expected,
        rtol=1e-4,
        atol=ROUNDING * (1 + 20 * eta),
    )
