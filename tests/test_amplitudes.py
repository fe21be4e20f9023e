import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qiaso_jax import amplitudes

# Few sizes, as every one is compiled anew.
sizes = st.sampled_from([1, 2, 30])
vectors = hnp.arrays(
    np.float32, sizes, elements=st.floats(-50, 50, width=32, allow_subnormal=False)
)
seeds = st.integers(0, 2**31)


def random_log_p(rng, size):
    return np.log(rng.dirichlet(np.ones(size))).astype(np.float32)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(vectors, seeds, st.floats(0, 20))
def test_amplify_is_the_closed_form(losses, seed, rate):
    log_prior = random_log_p(np.random.default_rng(seed), losses.size)
    exponent = log_prior.astype(np.float64) - rate * losses.astype(np.float64)
    expected = np.exp(exponent - exponent.max())
    expected /= expected.sum()

    log_p = amplitudes.amplify(jnp.asarray(log_prior), jnp.asarray(losses), rate)

    np.testing.assert_allclose(np.exp(log_p), expected, rtol=2e-3, atol=1e-6)
    assert np.sum(np.exp(np.float64(log_p))) == pytest.approx(1, abs=1e-5)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(vectors, seeds, st.floats(0.05, 5))
def test_amplify_minimises_the_regularised_loss(losses, seed, rate):
    rng = np.random.default_rng(seed)
    prior = np.exp(np.float64(random_log_p(rng, losses.size)))

    def objective(q):
        return q @ losses + scipy.stats.entropy(q, prior) / rate

    p = np.exp(
        np.float64(amplitudes.amplify(jnp.log(prior), jnp.asarray(losses), rate))
    )
    rivals = rng.dirichlet(np.ones(losses.size), size=20)
    # Rivals on the way from the minimiser are the ones that could be lower.
    near = 0.99 * p / p.sum() + 0.01 * rivals
    lowest = min(objective(q) for q in [*rivals, *near, prior / prior.sum()])
    scale = 1 + np.abs(losses).max() + 1 / rate
    assert objective(p / p.sum()) <= lowest + 1e-5 * scale


def test_amplify_survives_extreme_losses():
    log_prior = amplitudes.uniform(3, jnp.float32)
    losses = jnp.array([3e38, 1e38, 3e38])
    p = np.exp(amplitudes.amplify(log_prior, losses, 1e3))
    np.testing.assert_array_equal(p, [0, 1, 0])


def test_amplify_leaves_excluded_candidates_out():
    log_prior = jnp.log(jnp.array([0.5, 0.0, 0.5]))
    log_p = amplitudes.amplify(log_prior, jnp.array([1.0, jnp.nan, 1.0]), 2.0)
    np.testing.assert_allclose(np.exp(log_p), [0.5, 0, 0.5], rtol=1e-6)


@pytest.mark.parametrize("kept", [[0, 2], [1], []])
def test_restrict_conditions_on_the_finite_losses(kept):
    p = np.array([0.2, 0.3, 0.5], np.float32)
    losses = np.full(3, np.inf, np.float32)
    losses[kept] = 1.0
    log_p, any_possible = amplitudes.restrict(jnp.log(p), jnp.asarray(losses))
    expected = np.zeros(3)
    expected[kept] = p[kept] / p[kept].sum()
    assert bool(any_possible) == bool(kept)
    np.testing.assert_allclose(np.exp(log_p), expected if kept else p, rtol=1e-6)


def test_restrict_does_not_revive_an_excluded_candidate():
    log_p, any_possible = amplitudes.restrict(
        jnp.log(jnp.array([1.0, 0.0])), jnp.array([jnp.nan, 1.0])
    )
    assert not any_possible
    np.testing.assert_array_equal(np.exp(log_p), [1, 0])


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=40)
@given(vectors, seeds)
def test_scalings_agree_with_scipy(losses, seed):
    keep = np.random.default_rng(seed).random(losses.size) < 0.8
    with_gaps = np.where(keep, losses, np.nan)
    finite = losses[keep].astype(np.float64)
    zscore, ranks = np.zeros((2, losses.size))
    if keep.any() and np.ptp(finite) > 1e-3:
        zscore[keep] = scipy.stats.zscore(finite)
        np.testing.assert_allclose(
            amplitudes.zscore(jnp.asarray(with_gaps)), zscore, atol=2e-2, rtol=1e-2
        )
    if keep.sum() > 1:
        ranks[keep] = (scipy.stats.rankdata(finite) - 1) / (keep.sum() - 1) - 0.5
    np.testing.assert_allclose(
        amplitudes.centred_ranks(jnp.asarray(with_gaps)), ranks, atol=1e-6
    )


def test_zscore_does_not_depend_on_the_unit_of_the_loss():
    losses = jnp.array([1.0, 2.0, 4.0, 8.0])
    expected = scipy.stats.zscore(np.asarray(losses))
    for unit in (1e-30, 1.0, 1e36):
        np.testing.assert_allclose(
            amplitudes.zscore(losses * unit), expected, rtol=1e-5
        )
    np.testing.assert_array_equal(amplitudes.zscore(jnp.full(5, 0.3)), np.zeros(5))


@settings(deadline=None, derandomize=True, max_examples=40)
@given(sizes, seeds)
def test_information_measures_agree_with_scipy(size, seed):
    rng = np.random.default_rng(seed)
    log_p, log_q = (jnp.asarray(random_log_p(rng, size)) for _ in range(2))
    p, q = np.exp(np.float64(log_p)), np.exp(np.float64(log_q))
    assert amplitudes.entropy(log_p) == pytest.approx(scipy.stats.entropy(p), abs=1e-4)
    assert amplitudes.kl_divergence(log_q, log_p) == pytest.approx(
        scipy.stats.entropy(q, p), abs=1e-3
    )
    assert amplitudes.effective_candidates(log_p) == pytest.approx(
        1 / np.sum(p**2), rel=1e-4
    )
    assert amplitudes.expected(log_p, log_q) == pytest.approx(
        p @ np.asarray(log_q), rel=1e-3
    )


def test_information_measures_of_a_vertex():
    vertex = jnp.log(jnp.array([1.0, 0.0]))
    uniform = amplitudes.uniform(2, jnp.float32)
    assert amplitudes.entropy(vertex) == 0
    assert amplitudes.effective_candidates(vertex) == 1
    assert amplitudes.kl_divergence(vertex, uniform) == pytest.approx(np.log(2))
    assert amplitudes.kl_divergence(uniform, vertex) == np.inf
    assert amplitudes.expected(vertex, jnp.array([2.0, jnp.nan])) == 2


def test_further_axes_are_superpositions_of_their_own():
    rng = np.random.default_rng(0)
    losses = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    losses = losses.at[2, 1].set(jnp.nan).at[:, 3].set(jnp.inf).at[:, 0].add(1e6)
    prior = jnp.asarray(rng.dirichlet(np.ones(6), 5).T, jnp.float32)
    scaled = jnp.where(jnp.isfinite(losses), losses, 0)
    together = amplitudes.reweighted(jnp.log(prior), losses, scaled, 0.7)
    for b in range(5):
        alone = amplitudes.reweighted(
            jnp.log(prior[:, b]), losses[:, b], scaled[:, b], 0.7
        )
        for many, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(many[..., b], one, rtol=1e-6)
    measured = amplitudes.measure(together[0], together[1], losses, scaled, together[2])
    p = np.exp(np.float64(together[1]))
    np.testing.assert_allclose(measured.effective_candidates, 1 / (p**2).sum(0), 1e-5)
    known, expected = np.isfinite(losses), np.where(p > 0, p * losses, 0).sum(0)
    np.testing.assert_allclose(
        measured.expected_loss, np.where(known.any(0), expected, np.inf), rtol=1e-5
    )


def test_uniform_over_what_is_known_is_a_restricted_uniform_one():
    losses = jnp.array([[1.0, jnp.nan, 2.0], [jnp.inf, jnp.nan, 3.0]])
    uniform = jnp.full((2, 3), -jnp.log(2.0))
    found, expected = (
        amplitudes.uniform_over_known(losses),
        amplitudes.restrict(uniform, losses),
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_array_equal(found[1], expected[1])
