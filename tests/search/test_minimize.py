import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import minimize


def sphere(x):
    return jnp.sum((x - 0.3) ** 2)


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_minimize_converges_and_reports(covariance):
    result = minimize(
        sphere, jnp.zeros(4), sigma=1.0, max_evaluations=5_000, covariance=covariance
    )
    assert result.success
    assert result.message == "The search has converged: values differ no more."
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(result))
    np.testing.assert_allclose(result.x, np.full(4, 0.3), atol=1e-5)
    np.testing.assert_allclose(result.mean, np.full(4, 0.3), atol=1e-5)
    assert result.fun == pytest.approx(float(sphere(result.x)), rel=1e-5, abs=1e-12)
    assert 4_500 < result.nfev <= 5_000
    history = result.history
    assert history.num_candidates.sum() == result.nfev
    assert all(field.shape[0] == result.nit for field in history)
    assert result.fun == history.best_loss.min()
    np.testing.assert_array_equal(np.diff(history.run) >= 0, True)


def test_the_annealed_search_converges_and_reports():
    result = minimize(
        sphere, jnp.zeros(4), sigma=1.0, max_evaluations=5_000, covariance=None
    )
    assert not result.success
    assert result.message == "The budget of evaluations is spent."
    np.testing.assert_allclose(result.x, np.full(4, 0.3), atol=1e-2)
    np.testing.assert_allclose(result.mean, np.full(4, 0.3), atol=1e-2)
    assert 4_500 < result.nfev <= 5_000
    assert result.nfev % result.nit == 0
    assert all(field.shape[0] == result.nit for field in result.history)


def test_the_function_is_evaluated_nfev_times():
    seen = []

    def counted(x):
        jax.debug.callback(lambda x: seen.append(x), x)
        return sphere(x)

    result = minimize(
        counted, jnp.zeros(2), sigma=1.0, max_evaluations=50, num_candidates=8
    )
    jax.effects_barrier()
    assert len(seen) == result.nfev == 48
    assert result.nit == result.state.step == 6
    assert result.nfev.dtype == result.nit.dtype == jnp.int32


def test_minimize_finds_the_global_minimum_of_a_rugged_function():
    def rastrigin(x):
        return 10 * x.size + jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x))

    result = minimize(rastrigin, jnp.full(5, 3.0), sigma=2.5, max_evaluations=60_000)
    assert result.fun < 1e-2


@pytest.mark.slow
@pytest.mark.nightly
def test_the_centre_is_better_than_the_luckiest_sample_of_a_noisy_function():
    def noisy(x):
        bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
        key = jax.random.key(jax.lax.reduce_xor(bits * jnp.uint32(2654435761), (0,)))
        return sphere(x) + 0.3 * jax.random.normal(key)

    def search(key):
        return minimize(
            noisy,
            jnp.zeros(5),
            sigma=1.0,
            max_evaluations=3_000,
            bounds=(-2.0, 2.0),
            key=key,
        )

    results = jax.jit(jax.vmap(search))(jnp.arange(256))
    assert (jnp.abs(results.mean) <= 2).all()
    gains = np.asarray(jax.vmap(sphere)(results.x) - jax.vmap(sphere)(results.mean))
    # Were there no gain, 5 standard errors would come by chance once in 3e6 tries.
    assert gains.mean() > 5 * gains.std() / np.sqrt(gains.size)


def test_minimize_takes_any_pytree():
    x0 = {"a": (jnp.zeros(2), 1.0), "n": jnp.array(4)}

    def fun(x):
        return jnp.sum((x["a"][0] - 1) ** 2) + (x["a"][1] + x["n"]) ** 2

    with pytest.warns(
        UserWarning, match=r"integers stay as they are: x0\['n'\]"
    ) as caught:
        result = minimize(fun, x0, sigma=1.0, max_evaluations=6_000)
    assert caught[0].filename == __file__
    np.testing.assert_allclose(result.x["a"][0], np.ones(2), atol=1e-2)
    assert result.x["a"][1] == pytest.approx(-4, abs=1e-2)
    assert result.x["n"] == 4


@pytest.mark.slow
def test_the_same_key_gives_the_same_result():
    def search(key):
        return minimize(sphere, jnp.zeros(2), sigma=1.0, max_evaluations=200, key=key)

    chex.assert_trees_all_equal(search(1), search(1))
    assert not np.array_equal(search(1).x, search(2).x)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"sigma": 0.0}, ValueError, "sigma must be finite and above 0"),
        ({"max_evaluations": 0}, ValueError, "max_evaluations must be at least 1"),
        ({"max_evaluations": 1e4}, TypeError, "max_evaluations must be an int"),
        ({"max_evaluations": 2**31}, ValueError, r"max_evaluations.*below 2\*\*31"),
        ({"num_candidates": 0}, ValueError, "num_candidates must be at least 1"),
        ({"num_candidates": 101}, ValueError, "max_evaluations must be enough for one"),
        ({"bounds": (1.0, -1.0)}, ValueError, "bounds must have lower <= upper"),
        ({"bounds": (1.0, 2.0)}, ValueError, "x0 must lie within bounds"),
        ({"bounds": (0.0, 0.0)}, ValueError, "bounds must leave a coordinate of x0"),
        ({"sigma": None}, ValueError, "sigma must be given, or bounds finite"),
        ({"target": np.inf}, ValueError, "target must be finite, got inf"),
        ({"covariance": "low rank"}, ValueError, "covariance must be one of"),
        ({"restarts": -1}, ValueError, "restarts must be at least 0, got -1"),
        ({"restarts": 2, "covariance": None}, ValueError, "restarts must be None or 0"),
        ({"args": 3}, TypeError, "args must be a tuple, got 3"),
        ({"workers": 2}, TypeError, "workers must be a function like map, or.* got 2"),
        ({"workers": map, "covariance": None}, ValueError, "workers must be None with"),
        ({"target": "low"}, TypeError, "target must be a real number"),
        ({"bounds": ({"a": 0.0}, 1.0)}, ValueError, "lower bound must be a number or"),
        ({"bounds": 3.0}, TypeError, r"bounds must be a tuple \(lower, upper\)"),
        ({"x0": jnp.arange(3)}, TypeError, "x0 must have at least one floating"),
        ({"callback": 3}, TypeError, "callback must be a function or None, got 3"),
        ({"fun": 3}, TypeError, "fun must be a function x -> scalar, got 3"),
        (
            {"fun": lambda x: x},
            ValueError,
            r"fun must return a scalar, got shape \(2,\)",
        ),
        ({"fun": lambda x: (x[0], 0)}, TypeError, "fun must return a scalar"),
        ({"fun": lambda x: float(x[0])}, TypeError, "fun must be traceable.*ask and"),
        ({"fun": lambda x: np.sum(np.asarray(x))}, TypeError, "fun must be traceable"),
    ],
)
def test_bad_arguments_are_named(arguments, error, sentence):
    arguments = {
        "fun": sphere,
        "x0": jnp.zeros(2),
        "sigma": 1.0,
        "max_evaluations": 100,
        **arguments,
    }
    with pytest.raises(error, match=sentence):
        minimize(arguments.pop("fun"), arguments.pop("x0"), **arguments)


def test_keys_of_any_generator():
    impl = "rbg"
    key = jax.random.key(1, impl=impl)
    given = {"sigma": 1.0, "max_evaluations": 300}
    result = minimize(sphere, jnp.zeros(2), key=key, **given)
    with jax.default_prng_impl(impl):
        again = minimize(sphere, jnp.zeros(2), key=1, **given)
    chex.assert_trees_all_equal(result.x, again.x)


@pytest.mark.parametrize("covariance", ["full", None])
def test_args_are_passed_on(covariance):
    def fun(x, scale, shift):
        return scale * jnp.sum((x - shift["at"]) ** 2)

    def search(at):
        return minimize(
            fun,
            jnp.zeros(2),
            sigma=1.0,
            max_evaluations=1_000,
            args=(3.0, {"at": at}),
            covariance=covariance,
        ).x

    shifts = jnp.array([-1.0, 0.5, 2.0])
    found = jax.jit(jax.vmap(search))(shifts)
    np.testing.assert_allclose(found, np.stack([shifts, shifts], 1), atol=1e-2)
