import jax
import jax.numpy as jnp
import numpy as np
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
