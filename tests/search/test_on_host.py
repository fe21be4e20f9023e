import pickle
from concurrent.futures import ThreadPoolExecutor

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import MinimizeStatus, minimize
from qiaso_jax.search.on_host import Caught, Failed

GIVEN = {"sigma": 1.0, "max_evaluations": 600}


def rosenbrock(x):
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def shifted(x, shift):
    return float(np.sum((x - shift) ** 2))


def test_it_is_the_search_of_the_same_function_in_jax():
    on_host = minimize(rosenbrock, np.zeros(3), workers=map, **GIVEN)
    with jax.enable_x64(True):
        traced = minimize(
            lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2),
            jnp.zeros(3, jnp.float64),
            **GIVEN,
        )
    # Rounding differs, and what the search makes of it grows.
    first = slice(0, 20)
    np.testing.assert_allclose(
        on_host.history.best_loss[first], traced.history.best_loss[first], rtol=1e-9
    )
    assert on_host.nfev == traced.nfev


def test_points_are_of_numpy_in_double_precision():
    seen = []

    def fun(x):
        seen.append(x)
        return float(np.sum(x["a"] ** 2) + x["b"] ** 2)

    x0 = {"a": np.ones((2, 2), np.float32), "b": 1}
    result = minimize(fun, x0, workers=map, bounds=(-2.0, 3.0), max_evaluations=200)
    assert {type(x["a"]) for x in seen} == {np.ndarray}
    assert {(x["a"].dtype, x["a"].shape) for x in seen} == {(np.dtype(float), (2, 2))}
    assert len(seen) == result.nfev
    # The best point is made again, and may round otherwise.
    assert min(map(fun, seen[:])) == result.fun == pytest.approx(fun(result.x), 1e-12)
    np.testing.assert_array_equal(seen[0]["a"], np.ones((2, 2)))
    leaves = jax.tree.leaves(result)
    assert all(isinstance(leaf, np.ndarray | np.generic) for leaf in leaves)


def test_narrow_numbers_are_searched_in_double_precision():
    def fun(x):
        assert x.dtype == np.float64
        return float(np.sum((x - 0.3) ** 2))

    x0 = jnp.zeros(2, jnp.bfloat16)
    given = {"sigma": 1.0, "max_evaluations": 2_000, "target": jnp.float32(1e-6)}
    result = minimize(fun, x0, workers=map, **given)
    assert result.success
    np.testing.assert_allclose(result.x, 0.3, atol=1e-3)


def test_values_beyond_any_float_are_missing():
    result = minimize(
        lambda x: 10**400 if x[0] > 0.5 else rosenbrock(x),
        np.zeros(3),
        workers=map,
        **GIVEN,
    )
    assert result.history.num_nonfinite.sum() > 0
    assert result.x[0] <= 0.5


def test_values_below_single_precision():
    result = minimize(
        shifted, np.zeros(4), args=(0.3,), sigma=1.0, max_evaluations=4_000, workers=map
    )
    np.testing.assert_allclose(result.x, 0.3, atol=1e-7)
    assert result.fun < 1e-14


def test_workers_may_run_at_the_same_time():
    alone = minimize(rosenbrock, np.zeros(3), workers=map, **GIVEN)
    with ThreadPoolExecutor(3) as pool:
        together = minimize(rosenbrock, np.zeros(3), workers=pool.map, **GIVEN)
    chex.assert_trees_all_equal(alone, together)


def test_exceptions_are_missing_values():
    def fun(x):
        if x[0] > 0.5:
            raise ArithmeticError("the solver diverges")
        return rosenbrock(x)

    result = minimize(fun, np.zeros(3), workers=map, **GIVEN)
    assert result.history.num_nonfinite.sum() > 0
    assert result.x[0] <= 0.5
    assert np.isfinite(result.fun)


def test_a_function_that_always_fails_is_reported():
    with pytest.raises(RuntimeError, match=r"fun fails wherever.*TypeError"):
        minimize(lambda x: x + "a", np.zeros(3), workers=map, **GIVEN)


def test_workers_that_lose_points_are_reported():
    def lossy(fun, points):
        return [fun(x) for x in points][1:]

    with pytest.raises(ValueError, match="workers must return a value for each"):
        minimize(rosenbrock, np.zeros(3), workers=lossy, **GIVEN)


def test_a_callback_can_end_it():
    seen = []

    def callback(result):
        seen.append(int(result.nfev))
        return len(seen) == 3

    result = minimize(rosenbrock, np.zeros(3), workers=map, callback=callback, **GIVEN)
    assert seen == [7, 14, 21]
    assert result.status == MinimizeStatus.STOPPED_BY_CALLBACK
    assert result.nit == 3


def test_what_is_sent_to_workers_can_be_pickled():
    caught = pickle.loads(pickle.dumps(Caught(shifted, (1.0,))))
    assert caught(np.zeros(2)) == 2.0
    failed = pickle.loads(pickle.dumps(caught(None)))
    assert failed == Failed(failed.reason)
    assert "TypeError" in failed.reason


def test_what_jax_does_in_the_function_is_as_it_is_elsewhere():
    seen = set()

    def fun(x):
        seen.add(jnp.asarray(x).dtype.name)
        return float(jnp.sum(jnp.asarray(x) ** 2))

    def callback(result):
        seen.add(jnp.zeros(2, float).dtype.name)

    minimize(
        fun, np.ones(2), sigma=1.0, max_evaluations=50, workers=map, callback=callback
    )
    assert seen == {"float32"}
    assert jnp.zeros(2, float).dtype == jnp.float32


def test_a_longer_search_compiles_nothing_of_its_own(caplog):
    def search_of(steps):
        found = minimize(
            lambda x: float(np.sum(x**2)),
            np.ones(2),
            sigma=1.0,
            max_evaluations=100,
            workers=map,
            callback=lambda found: int(found.nit) == steps,
        )
        assert len(found.history.sigma) == steps

    search_of(2)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        search_of(3)
    compiled = [said for said in caplog.messages if said.startswith("Compiling")]
    assert all(said.startswith("Compiling jit(point) ") for said in compiled), compiled
