import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qiaso_jax import amplitudes
from qiaso_jax.losses import measured

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


@pytest.mark.parametrize("unit", [1e-30, 1.0, 1e36])
def test_many_superpositions_share_a_unit(unit):
    losses = np.random.default_rng(0).normal(size=(6, 5))
    losses[1, 1] = losses[4, 3] = np.inf
    losses[:, 2], losses[1:, 4] = np.nan, -np.inf
    share = np.array([0.1, 0.4, 0.2, 0.3, 0.5])
    known = np.ma.masked_invalid(losses)
    centred = (known - known.mean(axis=0)).filled(0)
    variance = np.ma.filled(known.var(axis=0), 0)
    spread = np.sqrt(np.sum(share * variance) / np.sum(share))

    scores, found = amplitudes.shared_zscore(
        jnp.float32(losses * unit), jnp.float32(share)
    )

    np.testing.assert_allclose(scores, centred / spread, rtol=1e-4, atol=1e-6)
    assert float(found) / unit == pytest.approx(spread, rel=1e-5)


@pytest.mark.parametrize("losses", [[[2.0], [2.0]], [[np.inf], [3.0]]])
def test_what_has_no_spread_has_the_unit_one(losses):
    scores, unit = amplitudes.shared_zscore(jnp.array(losses), jnp.ones(1))
    np.testing.assert_array_equal(scores, np.zeros((2, 1)))
    assert unit == 1


@pytest.mark.parametrize("losses", [[1.0, np.inf], [np.inf, np.inf], [2.0, 2.0]])
def test_scalings_make_no_nan_on_the_way(losses):
    losses = jnp.array(losses)
    with jax.debug_nans(True):
        for scaled in (amplitudes.zscore(losses), amplitudes.centred_ranks(losses)):
            np.testing.assert_array_equal(scaled, [0, 0])
        amplitudes.shared_zscore(losses[:, None], jnp.ones(1))


def test_a_function_scales_the_losses():
    losses = measured(jnp.array([1.0, 2.0, 4.0]), jnp.float32)
    scale = amplitudes.scaling(lambda x: x**2)
    np.testing.assert_array_equal(amplitudes.scaled(scale, losses), [1, 4, 16])
    infinite = amplitudes.scaling(lambda x: x / jnp.array([1.0, 0.0, 1.0]))
    assert amplitudes.scaled(infinite, losses)[1] == np.inf
    with pytest.raises(
        ValueError, match=r"loss_scaling must .* shape \(3,\) of the los"
    ):
        amplitudes.scaled(amplitudes.scaling(lambda x: x[:2]), losses)


@pytest.mark.parametrize("bad", ["z-score", 1.0, ["rank"]])
def test_what_is_no_scaling_is_named(bad):
    with pytest.raises(
        ValueError, match="loss_scaling must be one of None, 'zscore', "
    ):
        amplitudes.scaling(bad)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.float32])
def test_before_losses_all_is_as_in_a_uniform_superposition(dtype):
    uniform = amplitudes.uniform(7, dtype)
    np.testing.assert_allclose(np.exp(np.float64(uniform)), 1 / 7, rtol=2e-3)
    no_loss, nothing = jnp.full(7, jnp.inf, dtype), jnp.zeros(7, dtype)
    measured = amplitudes.measure(
        uniform, uniform, no_loss, nothing, jnp.asarray(False)
    )._asdict()
    before = amplitudes.before_losses(7, dtype)
    for name, value in (measured | {"best_loss": jnp.min(no_loss)}).items():
        np.testing.assert_allclose(before[name], value, rtol=1e-2)
        assert before[name].dtype == dtype
    for name in before.keys() - measured.keys() - {"best_loss"}:
        assert before[name].dtype == jnp.int32
        assert before[name] == 0


def test_the_decrease_is_that_of_the_expected_scaled_loss():
    before, after = jnp.log(jnp.array([[0.5, 0.5], [0.1, 0.9]]))
    losses = jnp.array([3.0, 1.0])
    informed = amplitudes.measure(before, after, losses, 2 * losses, jnp.asarray(True))
    assert informed.expected_loss == pytest.approx(1.2)
    assert informed.expected_decrease == pytest.approx(2 * (2.0 - 1.2))
    uninformed = amplitudes.measure(
        before, after, losses, 2 * losses, jnp.asarray(False)
    )
    assert uninformed.expected_loss == np.inf
    assert uninformed.expected_decrease == 0


def test_every_superposition_is_measured_for_itself():
    rng = np.random.default_rng(1)
    losses = jnp.asarray(rng.normal(size=(6, 3)), jnp.float32).at[:, 1].set(jnp.inf)
    before, after = (
        jnp.log(jnp.asarray(rng.dirichlet(np.ones(6), 3).T, jnp.float32))
        for _ in range(2)
    )
    informed = jnp.array([True, False, True])
    scaled = jnp.where(jnp.isfinite(losses), 2 * losses, 0)
    together = amplitudes.measure(before, after, losses, scaled, informed)
    for b in range(3):
        alone = amplitudes.measure(
            before[:, b], after[:, b], losses[:, b], scaled[:, b], informed[b]
        )
        for many, one in zip(together, alone, strict=True):
            np.testing.assert_allclose(many[b], one, rtol=1e-5, atol=1e-6)
