"""The paper's statements, on random instances, against float64 oracles.

Tolerances: a function that sums K terms of size S in float32 is trusted to within
``1e-5 · S``. Where an inequality is tested, it may fail by that much and no more.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from qiaso_jax import theory

ROUNDING = 1e-5

property_test = settings(deadline=None, derandomize=True, max_examples=60)

etas = st.floats(2**-6, 30.0, width=32)
# Barriers in units of εσ whose escape probability is a normal float32.
reaches = st.floats(2**-6, 12.0, width=32)


# A fixed few lengths, since every new one compiles every function again.
@st.composite
def instances(draw, low=-10.0, zeros=False, lengths=(1, 2, 7)):
    """Losses with frequent ties, and a prior, both exact in float32."""
    k = draw(st.sampled_from(lengths))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    losses = rng.uniform(low, 10.0, k)
    if draw(st.booleans()):
        losses = np.maximum(np.round(losses), low)
    p = rng.dirichlet(np.full(k, draw(st.sampled_from([0.3, 1.0, 10.0]))))
    p = np.maximum(p, 1e-6)
    if zeros and k > 1:
        p[rng.permutation(k)[: rng.integers(0, k)]] = 0.0
    return losses.astype(np.float32), (p / p.sum()).astype(np.float32)


@st.composite
def distribution_pairs(draw):
    _, q = draw(instances(zeros=True))
    _, p = draw(instances(zeros=True, lengths=[len(q)]))
    return q, p


def oracle_weights(losses, p, eta):
    with np.errstate(divide="ignore"):
        return scipy.special.softmax(
            np.log(p.astype(float)) - eta * losses.astype(float)
        )


def oracle_kl(q, p):
    return scipy.special.rel_entr(np.asarray(q, float), np.asarray(p, float)).sum()


def oracle_objective(q, losses, p, eta):
    return q @ losses.astype(float) + oracle_kl(q, p) / eta


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
    @given(instances(), etas)
    def test_is_the_bregman_divergence_of_the_negative_entropy(self, instance, eta):
        losses, p = instance
        q = oracle_weights(losses, p, eta)
        gap = scipy.special.xlogy(q, q).sum() - scipy.special.xlogy(p, p).sum()
        bregman = gap - theory.mirror_map(p) @ (q - p)
        np.testing.assert_allclose(theory.kl_divergence(q, p), bregman, atol=1e-4)


class TestExponentialWeights:
    @property_test
    @given(instances(zeros=True), etas)
    def test_matches_the_oracle(self, instance, eta):
        losses, p = instance
        np.testing.assert_allclose(
            theory.exponential_weights(losses, p, eta),
            oracle_weights(losses, p, eta),
            rtol=1e-4,
            atol=1e-6,
        )

    @settings(property_test, max_examples=25)
    @given(instances(), st.floats(2**-4, 2.0, width=32))
    def test_is_the_numerical_minimiser(self, instance, eta):
        losses, p = instance
        numerical = scipy.optimize.minimize(
            lambda q: oracle_objective(np.clip(q, 0, 1), losses, p, eta),
            np.full(len(p), 1 / len(p)),
            method="SLSQP",
            bounds=[(0, 1)] * len(p),
            constraints={"type": "eq", "fun": lambda q: np.sum(q) - 1},
            options={"ftol": 1e-13, "maxiter": 500},
        )
        closed_form = theory.exponential_weights(losses, p, eta)
        np.testing.assert_allclose(closed_form, numerical.x, atol=1e-3)
        np.testing.assert_allclose(
            theory.variational_objective(closed_form, losses, p, eta),
            numerical.fun,
            rtol=1e-4,
            atol=1e-4,
        )

    @property_test
    @given(instances(), etas, st.integers(0, 2**32 - 1))
    def test_no_other_point_has_a_lower_objective(self, instance, eta, seed):
        losses, p = instance
        q = np.random.default_rng(seed).dirichlet(np.full(len(p), 0.5))
        best = theory.variational_objective(
            theory.exponential_weights(losses, p, eta), losses, p, eta
        )
        other = theory.variational_objective(q, losses, p, eta)
        assert best <= other + ROUNDING * (10 + 20 / eta)

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
    def test_uniform_prior_gives_the_gibbs_distribution(self, instance, eta):
        losses, _ = instance
        uniform = np.full(len(losses), 1 / len(losses))
        gibbs = theory.gibbs(losses, eta)
        boltzmann = scipy.special.softmax(-eta * losses.astype(float))
        np.testing.assert_allclose(gibbs, boltzmann, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(
            gibbs, theory.exponential_weights(losses, uniform, eta), rtol=1e-4
        )


class TestMirrorDescent:
    @property_test
    @given(instances())
    def test_mirror_map_is_the_gradient_of_the_negative_entropy(self, instance):
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
    def test_step_equals_exponential_weights(self, instance, eta):
        losses, p = instance
        np.testing.assert_allclose(
            theory.mirror_step(losses, p, eta),
            theory.exponential_weights(losses, p, eta),
            rtol=1e-3,
            atol=1e-6,
        )

    def test_printed_dual_equation_is_not_normalised(self):
        """Eq 29 as it stands is off the simplex; Eq 30 divides by the sum."""
        p, losses = np.array([0.5, 0.5]), np.array([1.0, 2.0])
        as_printed = p * np.exp(-losses)
        assert as_printed.sum() < 0.3
        np.testing.assert_allclose(
            theory.mirror_step(losses, p, 1.0), as_printed / as_printed.sum(), rtol=1e-6
        )


class TestAmplificationBounds:
    @property_test
    @given(instances(zeros=True), etas)
    def test_kl_is_at_most_the_decrease_bound(self, instance, eta):
        losses, p = instance
        bounds = theory.amplification_bounds(losses, p, eta)
        assert bounds.kl <= bounds.decrease_bound + ROUNDING * (1 + 20 * eta)

    @property_test
    @given(instances(zeros=True), etas)
    def test_members_match_the_oracle(self, instance, eta):
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

    @property_test
    @given(instances(low=0.0), etas)
    def test_loss_bound_holds_for_non_negative_losses(self, instance, eta):
        losses, p = instance
        bounds = theory.amplification_bounds(losses, p, eta)
        assert bounds.decrease_bound <= bounds.loss_bound + ROUNDING * 20 * eta

    @property_test
    @given(instances(), etas)
    def test_second_inequality_needs_a_non_negative_expectation(self, instance, eta):
        losses, p = instance
        bounds = theory.amplification_bounds(losses, p, eta)
        expected_after = eta * oracle_weights(losses, p, eta) @ losses.astype(float)
        np.testing.assert_allclose(
            bounds.loss_bound - bounds.decrease_bound,
            expected_after,
            atol=ROUNDING * 20 * eta,
        )

    def test_loss_bound_fails_for_negative_losses(self):
        """Counter-example to Eq 33: a divergence cannot be below −1.5."""
        bounds = theory.amplification_bounds([-2.0, -1.0], [0.5, 0.5], 1.0)
        assert bounds.loss_bound == -1.5
        assert bounds.loss_bound < 0 < bounds.kl < bounds.decrease_bound

    @property_test
    @given(distribution_pairs())
    def test_pinsker(self, pair):
        q, p = pair
        slack = theory.pinsker_slack(q, p)
        assert slack >= -1e-3
        expected = np.sqrt(2 * max(oracle_kl(q, p), 0)) - np.abs(q - p).sum()
        np.testing.assert_allclose(slack, expected, rtol=1e-4, atol=2e-3)

    def test_pinsker_constant_cannot_be_smaller(self):
        """With 1.98 for the 2 under the root, close distributions violate it."""
        q, p = np.array([0.55, 0.45]), np.array([0.5, 0.5])
        l1 = np.abs(q - p).sum()
        slack = float(theory.pinsker_slack(q, p))
        assert slack > 0
        assert (slack + l1) * np.sqrt(1.98 / 2) < l1


class TestMonotoneDecrease:
    @property_test
    @given(instances(zeros=True), etas)
    def test_slack_is_the_reverse_divergence(self, instance, eta):
        losses, p = instance
        p_next = theory.exponential_weights(losses, p, eta)
        slack = theory.monotone_decrease_slack(losses, p, p_next, eta)
        tolerance = ROUNDING * (20 + 20 / eta)
        assert slack >= -tolerance
        if np.min(p_next, where=p > 0, initial=1) > 1e-30:
            reverse = oracle_kl(p, oracle_weights(losses, p, eta)) / eta
            np.testing.assert_allclose(slack, reverse, rtol=1e-4, atol=tolerance)

    @property_test
    @given(instances(), etas)
    def test_is_the_first_bound_of_lemma_2_1_divided_by_eta(self, instance, eta):
        losses, p = instance
        p_next = theory.exponential_weights(losses, p, eta)
        bounds = theory.amplification_bounds(losses, p, eta)
        np.testing.assert_allclose(
            theory.monotone_decrease_slack(losses, p, p_next, eta),
            (bounds.decrease_bound - bounds.kl) / eta,
            atol=ROUNDING * (20 + 20 / eta),
        )

    def test_fails_across_minibatches(self):
        """Counter-example to Eq 44: amplified on one minibatch, judged on another."""
        p = [0.5, 0.5]
        p_next = theory.exponential_weights([0.0, 1.0], p, 1.0)
        assert theory.monotone_decrease_slack([0.0, 1.0], p, p_next, 1.0) > 0
        assert theory.monotone_decrease_slack([1.0, 0.0], p, p_next, 1.0) < -0.2


class TestProjection:
    @property_test
    @given(instances(zeros=True))
    def test_is_the_limit_of_exponential_weights(self, instance):
        losses, p = instance
        on_support = p > 0
        is_minimiser = on_support & (losses == losses[on_support].min())
        expected = np.where(is_minimiser, p, 0) / p[is_minimiser].sum(dtype=float)
        projected = theory.project_onto_minimisers(losses, p)
        np.testing.assert_allclose(projected, expected, rtol=1e-6)

        others = on_support & ~is_minimiser
        if others.any():
            gap = float(losses[others].min()) - float(losses[is_minimiser][0])
            outside = p[others].sum(dtype=float) / p[is_minimiser].sum(dtype=float)
            for exponent in (1, 10, 100):
                eta = exponent / gap
                error = np.abs(theory.exponential_weights(losses, p, eta) - projected)
                assert error.sum() <= 2 * outside * np.exp(-exponent) + 1e-5

    def test_ties_share_in_proportion(self):
        projected = theory.project_onto_minimisers(
            [3.0, 1.0, 1.0, 2.0], [0.25, 0.125, 0.375, 0.25]
        )
        np.testing.assert_array_equal(projected, [0, 0.25, 0.75, 0])

    def test_minimiser_without_probability_stays_out(self):
        projected = theory.project_onto_minimisers([0.0, 1.0, 2.0], [0.0, 0.5, 0.5])
        np.testing.assert_array_equal(projected, [0, 1, 0])
        np.testing.assert_allclose(
            theory.exponential_weights([0.0, 1.0, 2.0], [0.0, 0.5, 0.5], 50.0),
            projected,
            atol=1e-6,
        )


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
        long = theory.total_tunnelling_probability(0.7, 0.01, 10_000)
        np.testing.assert_allclose(infinite, long, rtol=1e-6)
        np.testing.assert_allclose(infinite, 0.7 / (1 - np.exp(-0.01)), rtol=1e-5)


class TestRobbinsSiegmund:
    @property_test
    @given(st.integers(0, 2**32 - 1), st.integers(1, 200))
    def test_budget_covers_the_decreases_at_every_horizon(self, seed, steps):
        rng = np.random.default_rng(seed)
        decreases = rng.exponential(size=steps)
        increases = rng.exponential(size=steps) * 0.9 ** np.arange(steps)
        noise = rng.normal(size=steps)
        slack = rng.exponential(size=steps) * rng.integers(0, 2)
        x = np.cumsum([5.0, *(increases - decreases + noise - slack)])
        budget = theory.robbins_siegmund_budget(x[0], x[-1], increases, noise)
        # The telescoped sum is exact, so that what the steps wasted is what is left.
        np.testing.assert_allclose(
            budget - decreases.sum(), slack.sum(), atol=1e-6 * steps * 10
        )
        floor = theory.robbins_siegmund_budget(x[0], x.min(), increases, noise)
        assert floor >= budget

    def test_covers_a_run_whose_candidates_tunnel(self):
        rng = np.random.default_rng(0)
        eta, losses, p = 2.0, rng.uniform(0, 1, 8), np.full(8, 1 / 8)
        p_t = optax.exponential_decay(0.5, 1, 0.9)
        x, decreases, increases = [p @ losses], [], []
        for step in range(60):
            p_next = np.asarray(theory.exponential_weights(losses, p, eta), float)
            moved = rng.random(8) < float(p_t(step))
            jumped = np.where(moved, np.abs(losses + 0.3 * rng.normal(size=8)), losses)
            decreases.append(oracle_kl(p_next, p) / eta)
            increases.append(p_next @ (jumped - losses))
            losses, p = jumped, p_next
            x.append(p @ losses)
        assert np.sum(np.abs(increases)) > 0.1
        budget = theory.robbins_siegmund_budget(x[0], x[-1], increases)
        assert np.sum(decreases) <= budget + 1e-4
        assert np.sum(decreases) <= theory.robbins_siegmund_budget(x[0], 0, increases)

    def test_noise_of_mean_zero_drops_out_in_expectation(self):
        """Passes wrongly or fails wrongly with probability below 1e-6 (5 σ)."""
        rng = np.random.default_rng(1)
        runs, steps = 2000, 20
        decreases = rng.exponential(size=(runs, steps))
        noise = rng.normal(size=(runs, steps))
        final = np.sum(noise - decreases, axis=1)
        budgets = jax.vmap(
            lambda last: theory.robbins_siegmund_budget(0.0, last, jnp.zeros(steps))
        )(jnp.asarray(final))
        error = np.mean(np.asarray(budgets) - decreases.sum(1))
        assert abs(error) < 5 * np.sqrt(steps / runs)
        assert np.max(decreases.sum(1) - np.asarray(budgets)) > 1

    def test_printed_condition_lets_an_unbounded_sum_through(self):
        """X_t = −t obeys Eq 59 with a_t = 1, b_t = ζ_t = 0, yet Σ a_t diverges."""
        budgets = [
            theory.robbins_siegmund_budget(0.0, -steps, jnp.zeros(steps))
            for steps in (1, 10, 1000)
        ]
        assert budgets == [1, 10, 1000]


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
        np.testing.assert_allclose(
            norm[0], 2 * theory.escape_probability(z, 1.0, 1.0), rtol=1e-3
        )
        np.testing.assert_allclose(
            norm[1], theory.chernoff_bound(z, 1.0, 1.0), rtol=1e-3
        )

    def test_matches_sampled_jumps(self):
        """Each of the two fails wrongly with probability below 1e-6 (5 σ)."""
        samples, epsilon, sigma = 20_000, 0.5, 2.0
        jumps = epsilon * sigma * jax.random.normal(jax.random.key(0), (samples, 5))
        for sampled, exact in (
            (jumps[:, 0] >= 1.5, theory.escape_probability(1.5, epsilon, sigma)),
            (
                jnp.linalg.norm(jumps, axis=1) >= 2.5,
                theory.norm_escape_probability(2.5, epsilon, sigma, 5),
            ),
        ):
            error = np.sqrt(exact * (1 - exact) / samples)
            assert abs(jnp.mean(sampled) - exact) < 5 * error

    @property_test
    @given(reaches)
    def test_bounds_enclose_it(self, z):
        lower, upper = theory.escape_probability_bounds(z, 1.0, 1.0)
        exact = scipy.stats.norm.sf(z)
        assert lower <= exact * (1 + ROUNDING)
        assert exact <= upper * (1 + ROUNDING)
        # They are worth having only if they are close.
        assert upper <= 1.26 * lower
        assert theory.chernoff_bound(z, 1.0, 1.0) >= upper * (1 - ROUNDING)

    @property_test
    @given(st.floats(2**-3, 6, width=32), st.integers(3, 50))
    def test_chernoff_bound_fails_for_the_norm_of_more_than_two(self, z, n):
        norm = theory.norm_escape_probability(z, 1.0, 1.0, n)
        assert norm > theory.chernoff_bound(z, 1.0, 1.0)

    def test_printed_bound_has_a_counter_example(self):
        """Eq 69: a barrier of 3 standard deviations "at least" 98.9 % of the time."""
        printed = theory.escape_probability_as_printed(3.0, 1.0, 1.0)
        np.testing.assert_allclose(printed, 0.98889, rtol=1e-5)
        assert theory.escape_probability(3.0, 1.0, 1.0) < 0.0014

    @property_test
    @given(reaches)
    def test_where_the_printed_bound_is_wrong(self, z):
        printed = theory.escape_probability_as_printed(z, 1.0, 1.0)
        exact = theory.escape_probability(z, 1.0, 1.0)
        if abs(z - 0.7286) > 1e-3:
            assert (printed > exact) == (z > 0.7286)

    def test_printed_bound_falls_with_the_scale_of_the_jump(self):
        epsilon = jnp.linspace(0.5, 2.0, 10)
        assert jnp.all(jnp.diff(theory.escape_probability(1.0, epsilon, 1.0)) > 0)
        printed = theory.escape_probability_as_printed(1.0, epsilon, 1.0)
        assert jnp.all(jnp.diff(printed) < 0)


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

    @pytest.mark.parametrize("z", [1.0, 3.0, 5.0])
    def test_is_below_one_for_ever(self, z):
        """A4 caps it at P Σ p_t, and with the paper's decay at 200 P."""
        schedule = optax.exponential_decay(0.9, 1, 0.995)
        escape = theory.escape_probability(z, 1.0, 1.0)
        forever = theory.cumulative_escape_probability(
            schedule(jnp.arange(20_000)), escape
        )
        total = theory.total_tunnelling_probability(0.9, -np.log(0.995))
        assert forever <= escape * total * (1 + ROUNDING)
        assert z < 3 or forever < 0.25

    def test_matches_sampled_runs(self):
        """Fails wrongly with probability below 1e-6 (5 σ)."""
        runs, p_t = 20_000, optax.exponential_decay(0.8, 1, 0.9)(jnp.arange(12))
        tunnels, jumps = jax.random.split(jax.random.key(3))
        escaped = (jax.random.uniform(tunnels, (runs, 12)) < p_t[None]) & (
            jax.random.normal(jumps, (runs, 12)) >= 1.5
        )
        exact = theory.cumulative_escape_probability(
            p_t, theory.escape_probability(1.5, 1.0, 1.0)
        )
        error = np.sqrt(exact * (1 - exact) / runs)
        assert abs(jnp.mean(jnp.any(escaped, axis=1)) - exact) < 5 * error


LOSSES, P, Q = jnp.array([1.0, 0.5]), jnp.array([0.25, 0.75]), jnp.array([0.5, 0.5])
CALLS = {
    theory.kl_divergence: (Q, P),
    theory.variational_objective: (Q, LOSSES, P, 2.0),
    theory.exponential_weights: (LOSSES, P, 2.0),
    theory.gibbs: (LOSSES, 2.0),
    theory.mirror_map: (P,),
    theory.inverse_mirror_map: (LOSSES,),
    theory.mirror_step: (LOSSES, P, 2.0),
    theory.amplification_bounds: (LOSSES, P, 2.0),
    theory.pinsker_slack: (Q, P),
    theory.monotone_decrease_slack: (LOSSES, P, Q, 2.0),
    theory.project_onto_minimisers: (LOSSES, P),
    theory.total_tunnelling_probability: (0.5, 0.1, 7),
    theory.robbins_siegmund_budget: (2.0, 1.0, LOSSES, Q),
    theory.escape_probability: (1.0, 0.5, 2.0),
    theory.norm_escape_probability: (1.0, 0.5, 2.0, 9),
    theory.escape_probability_bounds: (1.0, 0.5, 2.0),
    theory.chernoff_bound: (1.0, 0.5, 2.0),
    theory.escape_probability_as_printed: (1.0, 0.5, 2.0),
    theory.cumulative_escape_probability: (Q, 0.25),
}
every_function = pytest.mark.parametrize(
    ("function", "arguments"), CALLS.items(), ids=lambda x: getattr(x, "__name__", "")
)


def test_every_public_function_is_called():
    public = {
        function
        for name, function in vars(theory).items()
        if not name.startswith("_")
        and getattr(function, "__module__", "") == theory.__name__
    }
    assert public == {*CALLS, theory.AmplificationBounds}


@every_function
class TestTransformations:
    def test_jit_and_vmap(self, function, arguments):
        eager = jax.tree.leaves(function(*arguments))
        compiled = jax.tree.leaves(jax.jit(function)(*arguments))
        batch = [jnp.stack([jnp.asarray(argument)] * 3) for argument in arguments]
        mapped = jax.tree.leaves(jax.jit(jax.vmap(function))(*batch))
        for plain, one, three in zip(eager, compiled, mapped, strict=True):
            np.testing.assert_allclose(one, plain, rtol=1e-5)
            assert three.shape == (3, *plain.shape)
            np.testing.assert_allclose(three[2], plain, rtol=1e-5)

    @pytest.mark.parametrize(
        ("given_dtype", "expected"),
        [("bfloat16", "float32"), ("float32", "float32"), ("float64", "float64")],
    )
    def test_dtype(self, function, arguments, given_dtype, expected):
        with jax.enable_x64(expected == "float64"):
            cast = [jnp.asarray(argument, given_dtype) for argument in arguments]
            result = jax.tree.leaves(function(*cast))
        assert {leaf.dtype.name for leaf in result} == {expected}

    def test_python_scalars_do_not_widen(self, function, arguments):
        with jax.enable_x64(True):
            cast = [jnp.asarray(x, "float32") if jnp.ndim(x) else x for x in arguments]
            cast[0] = jnp.asarray(cast[0], "float32")
            result = jax.tree.leaves(function(*cast))
        assert {leaf.dtype.name for leaf in result} == {"float32"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.mirror_map([0.5, 0.6]), r"p must be .* sum to 1, got \[0.5, 0"),
        (lambda: theory.mirror_map([1.5, -0.5]), r"p must be .* non-negative"),
        (lambda: theory.mirror_map([[1.0]]), r"p must be a vector .* shape \(1, 1\)"),
        (lambda: theory.mirror_map([np.nan]), "p must be a vector"),
        (lambda: theory.kl_divergence([1.0], P), "q and p .* same length, got 1 and 2"),
        (lambda: theory.gibbs([1.0, np.inf], 1.0), "losses must be .* finite"),
        (lambda: theory.gibbs([], 1.0), "losses must be a non-empty vector"),
        (lambda: theory.gibbs(LOSSES, 0.0), r"eta must be a positive.*, got 0\.0"),
        (lambda: theory.gibbs(LOSSES, -1), "eta must be a positive"),
        (lambda: theory.gibbs(LOSSES, LOSSES), r"eta .* scalar, got shape \(2,\)"),
        (lambda: theory.inverse_mirror_map([np.nan]), "dual must be"),
        (lambda: theory.escape_probability(-1, 1, 1), "barrier must be positive"),
        (lambda: theory.escape_probability(1, 0, 1), "epsilon must be positive"),
        (lambda: theory.chernoff_bound(1, 1, np.inf), "sigma must be positive"),
        (lambda: theory.norm_escape_probability(1, 1, 1, 0), "num_weights must be at"),
        (lambda: theory.total_tunnelling_probability(1.1, 1), "initial_probability"),
        (lambda: theory.total_tunnelling_probability(1, 0), "decay must be positive"),
        (lambda: theory.total_tunnelling_probability(1, 1, 0), "num_steps must be at"),
        (lambda: theory.robbins_siegmund_budget(LOSSES, 0, 0), "initial .* scalar"),
        (lambda: theory.robbins_siegmund_budget(0, 0, np.nan), "increases must be"),
        (lambda: theory.cumulative_escape_probability([2.0], 0.5), "tunnelling_prob"),
        (lambda: theory.cumulative_escape_probability([1.0], 1.5), "escape must be"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_shapes_are_checked_and_values_are_not_under_jit():
    with pytest.raises(ValueError, match="losses and p must have the same length"):
        jax.jit(theory.mirror_step)(LOSSES, jnp.ones(3), 1.0)
    jax.jit(theory.mirror_step)(LOSSES, jnp.ones(2), 1.0)


def test_constants_under_an_outer_jit_are_still_checked():
    with pytest.raises(ValueError, match="eta must be a positive"):
        jax.jit(lambda losses: theory.gibbs(losses, -1.0))(LOSSES)


def test_extreme_barriers_give_no_nan():
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
        assert np.all(np.isfinite(theory.escape_probability_bounds(barrier, 1.0, 1.0)))
