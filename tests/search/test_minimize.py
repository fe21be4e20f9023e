import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import minimize

PARAMS = {"x": jnp.array([1.0, -2.0]), "n": jnp.array([3])}


def loss(params):
    return jnp.sum(params["x"] ** 2) + params["n"][0]


def sphere(x):
    return jnp.sum((x - 0.3) ** 2)


def test_minimize_converges_and_reports():
    result = minimize(sphere, jnp.zeros(4), sigma=1.0, max_evaluations=5_000)
    assert result.success
    assert result.message == "The budget of evaluations is spent."
    np.testing.assert_allclose(result.x, np.full(4, 0.3), atol=1e-2)
    assert result.fun == pytest.approx(float(sphere(result.x)), rel=1e-5)
    assert 4_500 < result.nfev <= 5_000
    assert result.nfev % result.nit == 0
    assert all(field.shape[0] == result.nit for field in result.history)
    assert result.fun == pytest.approx(float(result.history.best_loss.min()))


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
    assert result.nit == 6


def test_minimize_finds_the_global_minimum_of_a_rugged_function():
    def rastrigin(x):
        return 10 * x.size + jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x))

    result = minimize(rastrigin, jnp.full(5, 3.0), sigma=2.5, max_evaluations=60_000)
    assert result.fun < 1e-2


def test_minimize_takes_any_pytree():
    x0 = {"a": (jnp.zeros(2), 1.0), "n": jnp.array(4)}

    def fun(x):
        return jnp.sum((x["a"][0] - 1) ** 2) + (x["a"][1] + x["n"]) ** 2

    result = minimize(fun, x0, sigma=1.0, max_evaluations=6_000)
    np.testing.assert_allclose(result.x["a"][0], np.ones(2), atol=1e-2)
    assert result.x["a"][1] == pytest.approx(-4, abs=1e-2)
    assert result.x["n"] == 4


@pytest.mark.slow
def test_the_same_key_gives_the_same_result():
    def search(key):
        return minimize(sphere, jnp.zeros(2), sigma=1.0, max_evaluations=200, key=key)

    chex.assert_trees_all_equal(search(1), search(1))
    assert not np.array_equal(search(1).x, search(2).x)


BOUNDS = {
    "box": (-1.0, jnp.array([0.2, 5.0])),
    "lower": (jnp.array([0.5, -np.inf]), np.inf),
    "upper": (-np.inf, jnp.array([0.1, 0.2])),
    "none": (-np.inf, np.inf),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDS)
def test_candidates_stay_within_bounds(name):
    lower, upper = (np.broadcast_to(b, 2) for b in BOUNDS[name])
    start = np.clip(np.zeros(2), lower, upper).astype(np.float32)
    seen = []

    def fun(x):
        jax.debug.callback(lambda x: seen.append(np.array(x)), x)
        return sphere(x)

    result = minimize(
        fun, jnp.asarray(start), sigma=2.0, max_evaluations=2_000, bounds=BOUNDS[name]
    )
    jax.effects_barrier()
    seen = np.stack(seen)
    assert (lower <= seen).all()
    assert (seen <= upper).all()
    assert (np.ptp(seen, axis=0) > 0.3).all()
    np.testing.assert_allclose(result.x, np.clip(0.3, lower, upper), atol=0.02)


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


def test_no_finite_value_is_no_success():
    result = minimize(
        lambda x: jnp.sum(x) * jnp.nan, jnp.zeros(2), sigma=1.0, max_evaluations=40
    )
    assert not result.success
    assert result.message == "No value was finite."
    assert result.fun == np.inf
    np.testing.assert_array_equal(result.x, np.zeros(2))


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"sigma": 0.0}, ValueError, "sigma must be finite and above 0"),
        ({"max_evaluations": 0}, ValueError, "max_evaluations must be at least 1"),
        ({"max_evaluations": 1e4}, TypeError, "max_evaluations must be an int"),
        ({"num_candidates": 0}, ValueError, "num_candidates must be at least 1"),
        ({"num_candidates": 101}, ValueError, "max_evaluations must be enough for one"),
        ({"bounds": (1.0, -1.0)}, ValueError, "bounds must have lower < upper"),
        ({"bounds": (1.0, 2.0)}, ValueError, "x0 must lie within bounds"),
        ({"bounds": ({"a": 0.0}, 1.0)}, ValueError, "lower bound must be a number or"),
        ({"bounds": 3.0}, TypeError, r"bounds must be a tuple \(lower, upper\)"),
        ({"x0": jnp.arange(3)}, TypeError, "x0 must have at least one floating"),
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
