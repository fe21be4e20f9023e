"""Slack, limit and budget, against NumPy in float64."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from instances import (
    ROUNDING,
    etas,
    instances,
    oracle_kl,
    oracle_weights,
    property_test,
)

from qiaso_jax import theory


@property_test
@given(instances(), instances(lengths=[7]), etas)
def test_monotone_decrease_slack(instance, other, eta):
    """Of any p', whether it comes from these losses or from a minibatch before."""
    losses, p = instance
    p_next = oracle_weights(other[0][: len(p)], p, eta)
    decrease = (p.astype(float) - p_next) @ losses.astype(float)
    np.testing.assert_allclose(
        theory.monotone_decrease_slack(losses, p, p_next, eta),
        decrease - oracle_kl(p_next, p) / eta,
        rtol=1e-4,
        atol=ROUNDING * (20 + 20 / eta),
    )


class TestProjection:
    @property_test
    @given(instances(zeros=True))
    def test_keeps_the_minimisers_in_proportion(self, instance):
        losses, p = instance
        on_support = p > 0
        is_minimiser = on_support & (losses == losses[on_support].min())
        expected = np.where(is_minimiser, p, 0) / p[is_minimiser].sum(dtype=float)
        projected = theory.project_onto_minimisers(losses, p)
        np.testing.assert_allclose(projected, expected, rtol=1e-6)

    def test_minimiser_without_probability_stays_out(self):
        projected = theory.project_onto_minimisers([0.0, 1.0, 2.0], [0.0, 0.5, 0.5])
        np.testing.assert_array_equal(projected, [0, 1, 0])
        np.testing.assert_allclose(
            theory.exponential_weights([0.0, 1.0, 2.0], [0.0, 0.5, 0.5], 50.0),
            projected,
            atol=1e-6,
        )


@property_test
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 20, 200]))
def test_robbins_siegmund_budget_is_what_was_spent_and_wasted(seed, steps):
    rng = np.random.default_rng(seed)
    decreases, increases, slack = rng.exponential(size=(3, steps))
    noise = rng.normal(size=steps)
    x = np.cumsum([5.0, *(increases - decreases + noise - slack)])
    budget = theory.robbins_siegmund_budget(x[0], x[-1], increases, noise)
    np.testing.assert_allclose(
        budget, decreases.sum() + slack.sum(), atol=1e-6 * steps * 10
    )
