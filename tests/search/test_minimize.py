import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import minimize
from qiaso_jax.search import stopping

PARAMS = {"x": jnp.array([1.0, -2.0]), "n": jnp.array([3])}


def loss(params):
    return jnp.sum(params["x"] ** 2) + params["n"][0]


def sphere(x):
    return jnp.sum((x - 0.3) ** 2)


def test_minimize_converges_and_reports():
    result = minimize(sphere, jnp.zeros(4), sigma=1.0, max_evaluations=5_000)
    assert not result.success
    assert result.message == "The budget of evaluations is spent."
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(result))
    np.testing.assert_allclose(result.x, np.full(4, 0.3), atol=1e-2)
    np.testing.assert_allclose(result.mean, np.full(4, 0.3), atol=1e-2)
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
    assert result.nit == result.state.step == 6
    assert result.nfev.dtype == result.nit.dtype == jnp.int32


def test_minimize_finds_the_global_minimum_of_a_rugged_function():
    def rastrigin(x):
        return 10 * x.size + jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x))

    result = minimize(rastrigin, jnp.full(5, 3.0), sigma=2.5, max_evaluations=60_000)
    assert result.fun < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_bounds_far_away_change_nothing(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        start = jnp.zeros(2, dtype)
        free = minimize(sphere, start, sigma=1.0, max_evaluations=2_000)
        for far in (1e6, 1e30):
            bounds = (-far, np.array([far, np.inf]))
            bounded = minimize(
                sphere, start, sigma=1.0, max_evaluations=2_000, bounds=bounds
            )
            chex.assert_trees_all_equal(bounded, free)


@pytest.mark.slow
def test_equal_bounds_fix_a_coordinate():
    seen = []

    def fun(x):
        jax.debug.callback(lambda x: seen.append(np.array(x)), x)
        return jnp.sum((x - 0.3) ** 2)

    low, high = np.array([-1, 0.75, -1, -2.0]), np.array([1, 0.75, 1, -2.0])
    result = minimize(
        fun, np.zeros(4), sigma=1.0, max_evaluations=2_000, bounds=(low, high)
    )
    jax.effects_barrier()
    np.testing.assert_array_equal(np.stack(seen)[:, [1, 3]] - [0.75, -2], 0)
    for x in (result.x, result.mean):
        np.testing.assert_allclose(x, [0.3, 0.75, 0.3, -2], atol=1e-2)
    # The rest is a search of two coordinates.
    plane = minimize(sphere, np.zeros(2), sigma=1.0, max_evaluations=2_000)
    assert (result.nit, result.nfev) == (plane.nit, plane.nfev)
    np.testing.assert_array_equal(
        result.history.entropy.shape, plane.history.entropy.shape
    )


@pytest.mark.parametrize("max_evaluations", [1, 2, 7, 20])
def test_never_worse_than_the_start(max_evaluations):
    def fun(x):
        return jnp.sum(x**2)

    def search(start, key):
        return minimize(fun, start, sigma=1.0, max_evaluations=max_evaluations, key=key)

    starts = np.random.default_rng(0).normal(scale=0.1, size=(30, 3))
    starts[0] = 0
    starts = jnp.asarray(starts, jnp.float32)
    results = jax.jit(jax.vmap(search))(starts, jnp.arange(30))
    assert (results.fun <= jax.vmap(fun)(starts)).all()
    assert results.fun[0] == 0
    assert (results.nfev <= max_evaluations).all()
    np.testing.assert_allclose(jax.vmap(fun)(results.x), results.fun, rtol=1e-6)
    if max_evaluations == 1:
        np.testing.assert_array_equal(results.x, starts)


def test_a_start_without_a_finite_value_is_no_candidate_for_the_best():
    def fun(x):
        return jnp.where(jnp.all(x == 1), -jnp.inf, jnp.sum(x**2))

    result = minimize(fun, jnp.ones(2), sigma=1.0, max_evaluations=500)
    assert 0 <= result.fun < 0.1
    assert result.history.num_nonfinite[0] == 1
    assert result.history.num_nonfinite[1:].sum() == 0


def test_python_numbers_are_searched():
    def fun(x):
        return (x[0] - 1.25) ** 2 + (x[1] + 2) ** 2

    result = minimize(fun, [3, 2.5], sigma=4.0, max_evaluations=4_000)
    np.testing.assert_allclose(result.x, [1.25, -2], atol=1e-2)


@pytest.mark.slow
def test_a_spread_for_each_coordinate_makes_their_ranges_alike():
    widths = np.array([1e-6, 1e-3, 1, 10, 1e3, 1e6], np.float32)
    optimum = np.array([0.3, 0.7, 0.4, 0.6, 0.2, 0.8], np.float32)

    def relative(x):
        return jnp.sum((x / widths - optimum) ** 2)

    def unit(x):
        return jnp.sum((x - optimum) ** 2)

    given = {"max_evaluations": 12_000}
    by_hand = minimize(unit, np.full(6, 0.5), sigma=1 / 3, bounds=(0.0, 1.0), **given)
    assert by_hand.fun < 1e-8
    for sigma in (None, widths / 3):
        result = minimize(
            relative, widths / 2, sigma=sigma, bounds=(0.0, widths), **given
        )
        # Equal but for rounding, which a search of 74 steps makes larger.
        assert result.fun == pytest.approx(float(by_hand.fun), rel=0.2)
    tree = minimize(
        lambda x: relative(jnp.stack([*x["thin"], *x["wide"]])),
        {"thin": (5e-7, 5e-4, 0.5), "wide": list(map(float, widths[3:] / 2))},
        sigma={"thin": tuple(widths[:3] / 3), "wide": list(widths[3:] / 3)},
        **given,
    )
    assert tree.fun < 1e-8


@pytest.mark.slow
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
        (sphere, "The budget of evaluations is spent"),
        (lambda x: jnp.round(jnp.sum(x)), "The budget of evaluations is spent"),
    ],
)
def test_a_flat_function_and_a_spent_budget_are_told_apart(fun, message):
    result = minimize(fun, jnp.zeros(2), sigma=1.0, max_evaluations=300)
    assert not result.success
    assert result.message.startswith(message)
    assert 250 < result.nfev <= 300


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


def test_a_callback_is_refused_under_jit_and_vmap():
    def search(start):
        return minimize(
            sphere, start, sigma=1.0, max_evaluations=100, callback=lambda _: False
        )

    for transformed in (jax.jit(search), jax.vmap(search)):
        with pytest.raises(TypeError, match="callback must be None under"):
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
        ({"bounds": (1.0, -1.0)}, ValueError, "bounds must have lower <= upper"),
        ({"bounds": (1.0, 2.0)}, ValueError, "x0 must lie within bounds"),
        ({"bounds": (0.0, 0.0)}, ValueError, "bounds must leave a coordinate of x0"),
        ({"sigma": None}, ValueError, "sigma must be given, or bounds finite"),
        ({"target": np.inf}, ValueError, "target must be finite, got inf"),
        ({"target": "low"}, TypeError, "target must be a real number"),
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
