import itertools

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from qiaso_jax.factorised import blocks

P = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]])
TABLE = np.random.default_rng(0).gumbel(size=(3, 3, 3)) + 5


def test_each_configuration_has_the_product_distribution():
    draw = jax.jit(
        jax.vmap(lambda key: blocks.stratified_draws(key, jnp.log(P), 12)[3])
    )
    drawn = np.asarray(draw(jax.random.split(jax.random.key(0), 20_000)))
    counts = np.zeros((3, 3, 3))
    np.add.at(counts, tuple(drawn.T), 1)
    expected = 20_000 * np.einsum("i,j,k->ijk", *P)
    # Fails for one seed in 1,000 of a correct implementation.
    assert scipy.stats.chisquare(counts.ravel(), expected.ravel()).pvalue > 1e-3


def test_measured_losses_are_unbiased():
    exact = np.zeros((3, 3))  # E[loss | block i takes value k], by enumeration
    for configuration in itertools.product(range(3), repeat=3):
        probabilities = P[np.arange(3), configuration]
        for i, k in enumerate(configuration):
            others = np.prod(np.delete(probabilities, i))
            exact[i, k] += others * TABLE[configuration]

    @jax.jit
    @jax.vmap
    def estimate(key):
        draws = blocks.stratified_draws(key, jnp.log(P), 12)
        losses = jnp.asarray(TABLE, jnp.float32)[tuple(draws.T)]
        return blocks.credited_losses(losses, draws, 3)

    estimates = np.asarray(estimate(jax.random.split(jax.random.key(1), 20_000)), float)
    error = estimates.mean(axis=0) - exact
    standard_error = estimates.std(axis=0) / np.sqrt(20_000)
    # Nine times both tails beyond 4.5: one seed in 16,000 fails.
    assert (np.abs(error) < 4.5 * standard_error).all()
    assert (standard_error < 0.02).all()


def test_every_value_is_drawn_as_often_as_it_is_probable():
    draws = blocks.stratified_draws(jax.random.key(2), jnp.log(P), 10)
    counts = np.stack([np.bincount(column, minlength=3) for column in draws.T])
    np.testing.assert_array_equal(counts, np.round(10 * P))
    never = jnp.log(jnp.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]))
    draws = blocks.stratified_draws(jax.random.key(3), never, 1000)
    assert not (draws[:, 0] == 2).any()
    assert (draws[:, 1] == 1).all()


def test_credit_of_values_without_a_finite_loss_and_of_values_not_drawn():
    losses = jnp.array([1.0, 3.0, jnp.nan, jnp.inf])
    draws = jnp.array([[0, 0], [0, 2], [1, 2], [1, 2]])
    np.testing.assert_allclose(
        blocks.credited_losses(losses, draws, 3),
        [[2.0, np.inf, 2.0], [1.0, 2.0, 3.0]],
    )
