import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import minimize


def sphere(x):
    return jnp.sum((x - 0.3) ** 2)


@pytest.mark.slow
def test_jit_and_vmap_give_the_same_results():
    given = {"sigma": 1.0, "max_evaluations": 1_500, "target": 1e-4}
    starts = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
    keys = jnp.arange(3)

    def search(start, key):
        return minimize(sphere, start, key=key, **given)

    alone = [search(start, key) for start, key in zip(starts, range(3), strict=True)]
    together = jax.vmap(search)(starts, keys)
    compiled = jax.jit(jax.vmap(search), donate_argnums=0)(starts + 0, keys)
    assert len({int(result.nit) for result in alone}) > 1
    for results in (together, compiled):
        steps = results.history.best_loss.shape[1]
        assert (results.nit < steps).all()
        for i, expected in enumerate(alone):
            result = jax.tree.map(lambda leaf, i=i: leaf[i], results)
            nit = int(expected.nit)
            history = jax.tree.map(lambda leaf, n=nit: leaf[:n], result.history)
            chex.assert_trees_all_close(
                result._replace(history=history), expected, rtol=1e-4, atol=1e-5
            )
            np.testing.assert_array_equal(
                result.history.best_loss[nit:], result.history.best_loss[nit - 1]
            )


@pytest.mark.parametrize("wrap", [lambda search: search, jax.jit])
def test_a_result_can_be_donated(wrap):
    x0 = {"x": jnp.zeros(2), "fixed": jnp.array(True)}

    def search():
        return minimize(lambda x: sphere(x["x"]), x0, sigma=1.0, max_evaluations=20)

    result = wrap(search)()
    kept = jax.tree.map(np.array, result)
    given_away = jax.jit(lambda r: r, donate_argnums=0)(result)
    chex.assert_trees_all_equal(given_away, kept)
    np.testing.assert_array_equal(x0["fixed"], True)


@pytest.mark.slow
def test_traced_bounds_project_the_start():
    def search(start, low, sigma):
        return minimize(
            sphere, start, sigma=sigma, max_evaluations=100, bounds=(low, 5.0)
        )

    low = jnp.array([[2.0, -5.0], [5.0, 1.0]])
    starts = jnp.array([[0.0, 9.0], [0.0, 0.0]])
    results = jax.jit(jax.vmap(search))(starts, low, jnp.array([0.5, 1.0]))
    np.testing.assert_array_equal(results.x[1, 0], 5)
    for x in (results.x, results.mean):
        assert ((low <= x) & (x <= 5)).all()
    projected = jnp.clip(starts, low, 5)
    assert (results.fun <= jax.vmap(sphere)(projected)).all()
    fixed = jax.jit(
        lambda low: (
            minimize(
                sphere, np.zeros(2), sigma=1.0, max_evaluations=100, bounds=(low, 0.25)
            ).x
        )
    )(jnp.array([0.25, -1]))
    assert fixed[0] == 0.25


def test_what_runs_step_by_step_is_refused_under_jit_and_vmap():
    for name, value in (("callback", lambda _: False), ("workers", map)):

        def search(start, given=((name, value),)):
            return minimize(
                sphere, start, sigma=1.0, max_evaluations=100, **dict(given)
            )

        for transformed in (jax.jit(search), jax.vmap(search)):
            with pytest.raises(TypeError, match=f"{name} must be None under"):
                transformed(jnp.zeros((3, 2)))


@pytest.mark.slow
def test_it_is_compiled_once_and_not_once_per_step():
    def times_traced(**given):
        traced = []

        def fun(x):
            traced.append(x)
            return sphere(x)

        result = minimize(fun, jnp.zeros(2), sigma=1.0, num_candidates=8, **given)
        return len(traced), int(result.nit)

    once, _ = times_traced(max_evaluations=8)
    for callback in (None, lambda _: False):
        assert times_traced(max_evaluations=160, callback=callback) == (once, 20)
