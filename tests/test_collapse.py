import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from qiaso_jax import collapse

LOG_P = jnp.log(jnp.array([0.1, 0.5, 0.15, 0.25]))


def test_expectation_weighs_by_probability():
    weights = collapse.expectation(jax.random.key(0), LOG_P)
    np.testing.assert_allclose(weights, [0.1, 0.5, 0.15, 0.25], rtol=1e-6)


def test_best_is_the_most_probable_and_the_first_of_several():
    key = jax.random.key(0)
    np.testing.assert_array_equal(collapse.best(key, LOG_P), [0, 1, 0, 0])
    tied = jnp.log(jnp.array([0.2, 0.4, 0.4]))
    np.testing.assert_array_equal(collapse.best(key, tied), [0, 1, 0])


def test_sample_measures_with_the_probabilities():
    keys = jax.random.split(jax.random.key(1), 4000)
    weights = jax.vmap(collapse.sample, in_axes=(0, None))(keys, LOG_P)
    np.testing.assert_array_equal(weights.sum(axis=1), np.ones(4000))
    counts = np.asarray(weights.sum(axis=0))
    # A right sampler fails for one seed in 10^4.
    assert scipy.stats.chisquare(counts, 4000 * np.exp(LOG_P)).pvalue > 1e-4


def test_sample_never_measures_an_excluded_candidate():
    keys = jax.random.split(jax.random.key(2), 500)
    log_p = jnp.log(jnp.array([0.0, 1.0]))
    weights = jax.vmap(collapse.sample, in_axes=(0, None))(keys, log_p)
    np.testing.assert_array_equal(weights[:, 0], np.zeros(500))


@pytest.mark.parametrize("readout", collapse.READOUTS.values(), ids=collapse.READOUTS)
def test_the_centre_is_kept_by_what_falls_on_single_candidates(readout):
    weights = readout.weights(jax.random.key(0), LOG_P)
    assert readout.keeps_centre == bool(jnp.max(weights) == 1)


@pytest.mark.parametrize("readout", collapse.READOUTS.values(), ids=collapse.READOUTS)
def test_weights_have_the_precision_of_the_amplitudes(readout):
    log_p = LOG_P.astype(jnp.float16)
    assert readout.weights(jax.random.key(0), log_p).dtype == jnp.float16


def test_a_function_is_a_readout_of_all_candidates():
    def halves(key, log_amplitudes):
        return jnp.array([0.5, 0.5, 0.0, 0.0], jnp.bfloat16)

    found = collapse.readout(halves)
    assert not found.keeps_centre
    weights = found(jax.random.key(0), LOG_P)
    assert weights.dtype == LOG_P.dtype
    np.testing.assert_array_equal(weights, [0.5, 0.5, 0, 0])
    kept = collapse.Readout(halves, keeps_centre=True)
    assert collapse.readout(kept) is kept


@pytest.mark.parametrize("name", collapse.READOUTS)
def test_a_readout_has_a_name(name):
    assert collapse.readout(name) is collapse.READOUTS[name]


@pytest.mark.parametrize("bad", ["worst", 3, None, ["best"]])
def test_what_is_no_readout_is_named(bad):
    with pytest.raises(ValueError, match="collapse must be one of 'expectation', "):
        collapse.readout(bad)


def test_weights_that_are_no_function_are_named():
    with pytest.raises(TypeError, match="weights must be"):
        collapse.readout(collapse.Readout("best"))


@pytest.mark.parametrize("every", [1, 2, 3])
def test_every_update_that_is_a_multiple_collapses(every):
    end = np.iinfo(np.int32).max
    for step in (*range(7), end - 1, end):
        collapses, outcome = collapse.at_multiples(
            every, jnp.int32(step), lambda: jnp.int32(1), lambda: jnp.int32(0)
        )
        # Where the count of steps stays, every update collapses.
        expected = step == end or (step + 1) % every == 0
        assert bool(collapses) == bool(outcome) == expected


def test_where_every_update_collapses_there_is_no_branch():
    def at(step):
        return collapse.at_multiples(1, step, lambda: 1, lambda: 0)

    assert "cond" not in str(jax.make_jaxpr(at)(jnp.int32(3)))
