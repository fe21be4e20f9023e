import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import minimize
from qiaso_jax.search import stopping


def sphere(x):
    return jnp.sum((x - 0.3) ** 2)


def rastrigin_above_one(x):
    return 1 + jnp.sum(x**2 + 20 * jnp.sin(jnp.pi * x) ** 2)


@pytest.mark.slow
def test_a_target_ends_the_search():
    seen = []

    def counted(x):
        jax.debug.callback(lambda x: seen.append(x), x)
        return sphere(x)

    given = {"sigma": 1.0, "max_evaluations": 5_000}
    result = minimize(counted, jnp.zeros(4), target=0.01, **given)
    jax.effects_barrier()
    assert (result.success, result.message) == (True, "The target is reached.")
    assert result.fun <= 0.01
    assert len(seen) == result.nfev < 2_500
    whole = minimize(sphere, jnp.zeros(4), **given)
    first = int(jnp.argmax(whole.history.best_loss <= 0.01)) + 1
    assert result.nit == first
    np.testing.assert_allclose(
        result.history.best_loss, whole.history.best_loss[:first], rtol=1e-5
    )


@pytest.mark.slow
def test_convergence_ends_the_search_where_nothing_is_left_to_find(monkeypatch):
    def search(start, key):
        return minimize(
            rastrigin_above_one,
            start,
            sigma=3.0,
            max_evaluations=12_000,
            num_candidates=40,
            covariance=None,
            key=key,
        )

    def searches():
        starts = np.random.default_rng(1).uniform(-5, 5, (24, 4))
        starts = jnp.asarray(starts, jnp.float32)
        return jax.jit(jax.vmap(search))(starts, jnp.arange(24))

    results = searches()
    converged = np.asarray(results.success)
    assert converged.sum() >= 20
    assert np.ptp(results.nit[converged]) > 0
    monkeypatch.setattr(stopping, "patience", lambda size, rate: 10**6)
    whole = searches()
    assert not whole.success.any()
    assert (results.nit < whole.nit)[converged].all()
    np.testing.assert_allclose(results.fun, whole.fun, rtol=5e-7)
    np.testing.assert_array_equal(results.fun[~converged], whole.fun[~converged])


@pytest.mark.parametrize(
    ("fun", "message"),
    [
        (lambda x: 2.0 + 0 * jnp.sum(x), "The function is flat"),
        (lambda x: 1e6 + 1e-3 * jnp.sum(x), "The function is flat"),
        (lambda x: jnp.where(x[0] > 0, 2.0, jnp.nan), "The function is flat"),
        (
            lambda x: (5 + 0.05 * jnp.tanh(jnp.sum(x))).astype(jnp.bfloat16),
            "The function is flat",
        ),
        (sphere, "The budget of evaluations is spent"),
        (lambda x: jnp.round(jnp.sum(x)), "The budget of evaluations is spent"),
    ],
)
def test_a_flat_function_and_a_spent_budget_are_told_apart(fun, message):
    result = minimize(fun, jnp.zeros(2), sigma=1.0, max_evaluations=300)
    assert not result.success
    assert result.message.startswith(message)
    assert 250 < result.nfev <= 300


def test_no_finite_value_is_no_success():
    result = minimize(
        lambda x: jnp.sum(x) * jnp.nan, jnp.zeros(2), sigma=1.0, max_evaluations=40
    )
    assert not result.success
    assert result.message == "No value was finite."
    assert result.fun == np.inf
    np.testing.assert_array_equal(result.x, np.zeros(2))


@pytest.mark.slow
def test_the_callback_sees_every_step_and_can_stop():
    seen = []

    def callback(result):
        seen.append(result)
        if len(seen) == 3:
            raise StopIteration

    result = minimize(
        sphere,
        jnp.zeros(2),
        sigma=1.0,
        max_evaluations=100,
        num_candidates=10,
        callback=callback,
    )
    assert [r.nfev for r in seen] == [10, 20, 30]
    assert (result.nit, result.nfev, result.success) == (3, 30, False)
    assert result.message == "The callback ended the search."
    assert result.fun == seen[-1].fun <= seen[0].fun

    whole = minimize(
        sphere, jnp.zeros(2), sigma=1.0, max_evaluations=100, num_candidates=10
    )
    np.testing.assert_allclose(
        result.history.best_loss, whole.history.best_loss[:3], rtol=1e-5
    )
