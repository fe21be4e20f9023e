import itertools
import pickle

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import MinimizeStatus, minimize
from qiaso_jax.search import restarts
from qiaso_jax.search.runs import ANNEALED, LARGE, SMALL
from qiaso_jax.search.state import with_best


def rastrigin(x):
    return 10 * x.size + jnp.sum(x**2 - 10 * jnp.cos(2 * jnp.pi * x))


def sphere(x):
    return jnp.sum((x - 0.3) ** 2)


def runs_of(result):
    """Of each run: its arm, and the candidates and spread of its first step."""
    history = jax.device_get(result.history)
    firsts = np.unique(history.run, return_index=True)[1]
    return [
        (
            int(history.arm[i]),
            int(history.num_candidates[i]),
            float(history.sigma[i]),
        )
        for i in firsts
    ]


def test_the_three_arms():
    result = minimize(
        rastrigin, jnp.full(2, 3.0), sigma=0.2, max_evaluations=40_000, key=2
    )
    runs = runs_of(result)
    assert {arm for arm, _, _ in runs} == {LARGE, ANNEALED, SMALL}
    large = [number for arm, number, _ in runs if arm == LARGE]
    *doubled, last = large
    np.testing.assert_array_equal(doubled, 6 * 2 ** np.arange(len(doubled)))
    # Of what is left it is to have ten steps.
    assert 6 <= last <= 2 * doubled[-1]
    annealed = [number for arm, number, _ in runs if arm == ANNEALED]
    assert annealed[:2] == [12, 48]
    assert all(number % 12 == 0 for number in annealed)
    small = [(number, sigma) for arm, number, sigma in runs if arm == SMALL]
    assert all(6 <= number <= doubled[-1] for number, _ in small)
    assert all(number % 6 == 0 for number, _ in small)
    assert all(0.01 <= sigma <= 1 for _, sigma in small)
    assert {sigma for arm, _, sigma in runs if arm != SMALL} == {1.0}
    spent = result.state.arms.spent + jnp.zeros(3, jnp.int32).at[
        result.state.run.arm
    ].add(result.state.run.spent)
    assert spent.sum() == result.nfev


def test_the_first_step_after_annealing_tells_the_value_of_the_mean():
    seen = []
    minimize(
        lambda x: float(rastrigin(x)),
        np.full(2, 3.0),
        sigma=1.0,
        max_evaluations=8_000,
        workers=map,
        callback=lambda result: seen.append(result.state),
    )
    told = [
        (state, after)
        for state, after in itertools.pairwise(seen)
        if state.run.annealing == 0
    ]
    assert told
    for state, after in told:
        mean = 3.0 + state.gaussian.mean
        assert after.info.best_loss <= float(rastrigin(mean)) + 1e-4


def test_restarts_are_limited():
    for number in (0, 2):
        result = minimize(
            rastrigin,
            jnp.full(2, 3.0),
            sigma=0.2,
            max_evaluations=40_000,
            restarts=number,
        )
        assert len(runs_of(result)) == number + 1
        assert result.nfev < 40_000
        assert result.success


def test_a_run_on_a_plateau_ends():
    def steps(x):
        return jnp.floor(jnp.sum(x**2))

    result = minimize(
        steps, jnp.full(3, 0.4), sigma=0.01, max_evaluations=2_000, restarts=0
    )
    assert result.nit == restarts.FLAT
    assert result.status == MinimizeStatus.FLAT

    result = minimize(
        steps, jnp.full(3, 4.0), sigma=1.0, max_evaluations=9_000, restarts=0
    )
    assert result.status == MinimizeStatus.CONVERGED
    assert result.fun == 0


def test_one_value_among_missing_ones_is_no_plateau():
    def mostly_nowhere(x):
        return jnp.where(jnp.all(jnp.abs(x - 1) < 0.35), sphere(x), jnp.nan)

    found, had_one = [], []
    for key in range(12):
        result = minimize(
            mostly_nowhere,
            jnp.full(2, 1.3),
            sigma=1.0,
            max_evaluations=9_000,
            restarts=0,
            key=key,
        )
        found.append(bool(result.fun < 2 * 0.35**2 * 1.01))
        known = result.history.num_candidates - result.history.num_nonfinite
        had_one.append(int(np.sum(known[:10] == 1)) >= 2)
    # Two steps without any value end a run, and that may be its first ones.
    assert np.mean(found) > 0.5
    assert np.any(np.logical_and(found, had_one))


def test_where_nothing_is_finite_the_search_begins_elsewhere():
    def somewhere(x):
        return jnp.where(x[0] > 1, sphere(x), jnp.nan)

    result = minimize(
        somewhere, jnp.full(2, -3.0), sigma=2.5, max_evaluations=3_000, key=1
    )
    assert result.fun == pytest.approx(0.49, abs=1e-3)


def test_a_run_without_gain_ends():
    def noise(x):
        bits = jax.lax.bitcast_convert_type(x[0], jnp.uint32)
        return jax.random.uniform(jax.random.key(bits))

    result = minimize(
        noise, jnp.zeros(2), sigma=1.0, max_evaluations=50_000, restarts=0
    )
    assert result.status == MinimizeStatus.RESTARTS_SPENT
    assert result.message == "No restart is left."
    assert not result.success


def test_points_that_rounding_keeps_apart_converge():
    """Neighbouring numbers differ by 0.06, a tenth of σ at first."""
    at = jnp.float32(1e6) + jnp.array([0.5, 0.25, -0.125], jnp.float32)
    for key in range(5):
        result = minimize(
            lambda x: jnp.sum((x - at) ** 2),
            jnp.full(3, 1e6, jnp.float32),
            sigma=0.6,
            max_evaluations=20_000,
            restarts=0,
            key=key,
        )
        assert result.success
        assert result.nfev < 2_000
        assert result.fun == 0


def test_finding_the_same_again_ends_the_search():
    result = minimize(sphere, jnp.zeros(2), sigma=1.0, max_evaluations=100_000)
    assert result.success
    assert result.nfev < 50_000
    assert result.state.arms.again == restarts.AGAIN


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_it_converges_as_far_as_the_precision_goes(dtype):
    with jax.enable_x64(dtype == jnp.float64):
        results = [
            minimize(
                lambda x: 5 + sphere(x),
                jnp.zeros(3, dtype),
                sigma=1.0,
                max_evaluations=20_000,
                restarts=0,
                key=key,
            )
            for key in range(9)
        ]
        epsilon = float(jnp.finfo(dtype).eps)
        for result in results:
            assert result.status == MinimizeStatus.CONVERGED
            assert result.x.dtype == result.fun.dtype == dtype
            assert result.nfev < 3_000
        apart = [abs(float(result.fun) - 5) for result in results]
        assert np.median(apart) <= 20 * epsilon


@pytest.mark.parametrize(
    ("scale", "lower", "remains"),
    [(1.0, 1e-9, True), (1.0, 1e-7, False), (1e-8, 1e-15, False), (1e-8, 1e-17, True)],
)
def test_what_is_lower_by_rounding_alone_has_converged(scale, lower, remains):
    with jax.enable_x64(True):
        result = minimize(
            lambda x: scale * sphere(x),
            jnp.zeros(2),
            sigma=1.0,
            max_evaluations=3_000,
            restarts=0,
        )
        assert result.success
        found = with_best(
            result.state, jnp.ones(2), result.fun - lower, result.state.violation
        )
    assert found.best_value < result.fun
    np.testing.assert_array_equal(found.best, [1, 1])
    assert found.has_converged == remains


@pytest.mark.nightly
def test_a_rugged_function_of_many_coordinates():
    results = [
        minimize(
            rastrigin, jnp.full(10, 2.0), sigma=2.0, max_evaluations=60_000, key=key
        ).fun
        for key in range(3)
    ]
    assert np.median(results) < 1e-4


@pytest.mark.parametrize("workers", [None, map])
def test_a_result_goes_on_bit_for_bit(workers):
    def fun(x):
        return rastrigin(x) if workers is None else float(rastrigin(x))

    given = {"sigma": 1.0, "max_evaluations": 1_200, "workers": workers, "key": 3}
    x0 = np.full(2, 3.0)
    whole = minimize(fun, x0, **given)
    stopped = minimize(fun, x0, callback=lambda result: result.nit == 70, **given)
    assert stopped.status == MinimizeStatus.STOPPED_BY_CALLBACK
    stopped = pickle.loads(pickle.dumps(jax.device_get(stopped)))
    resumed = minimize(fun, x0, resume=stopped, **given)
    for name in ("x", "fun", "mean", "nfev", "nit", "status", "state"):
        chex.assert_trees_all_equal(getattr(resumed, name), getattr(whole, name))
    later = jax.tree.map(lambda reports: reports[70:], whole.history)
    chex.assert_trees_all_equal(resumed.history, later)


def test_a_spent_search_goes_on_with_a_larger_budget():
    given = {"sigma": 1.0, "covariance": "diagonal"}
    first = minimize(sphere, jnp.zeros(3), max_evaluations=200, **given)
    second = minimize(sphere, jnp.zeros(3), max_evaluations=600, resume=first, **given)
    assert 550 < second.nfev <= 600
    assert second.fun < first.fun
    assert second.history.best_loss.shape[0] == second.nit - first.nit


def test_what_cannot_be_resumed_is_refused():
    given = {"sigma": 1.0, "max_evaluations": 100}
    result = minimize(sphere, jnp.zeros(3), **given)
    with pytest.raises(TypeError, match="resume must be a result of minimize with"):
        minimize(sphere, jnp.zeros(3), resume=3, **given)
    with pytest.raises(ValueError, match="resume must be a result of the same x0"):
        minimize(sphere, jnp.zeros(4), resume=result, **given)
    with pytest.raises(ValueError, match="resume must be a result of the same x0"):
        minimize(sphere, jnp.zeros(3), resume=result, covariance="diagonal", **given)
    with pytest.raises(ValueError, match="resume must be None with covariance=None"):
        minimize(sphere, jnp.zeros(3), resume=result, covariance=None, **given)


@pytest.mark.parametrize(
    ("callback", "workers"), [(None, map), (lambda result: False, None)]
)
def test_a_search_that_has_ended_goes_no_further(callback, workers):
    def fun(x):
        value = jnp.sum(jnp.asarray(x) ** 2)
        return value if workers is None else float(value)

    given = {"sigma": 1.0, "max_evaluations": 60, "workers": workers}
    first = minimize(fun, np.ones(2), **given)
    again = minimize(fun, np.ones(2), resume=first, callback=callback, **given)
    assert again.history.best_loss.shape == (0,)
    for name in ("x", "fun", "nfev", "nit", "status"):
        chex.assert_trees_all_equal(getattr(again, name), getattr(first, name))
