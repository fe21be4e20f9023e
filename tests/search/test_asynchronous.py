import itertools
import time
import zlib
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import Asynchronous, MinimizeStatus, minimize
from qiaso_jax.search import asynchronous, covariance
from qiaso_jax.search.asynchronous import injected
from qiaso_jax.search.plan import Plan

GIVEN = {"sigma": 1.0, "max_evaluations": 210, "covariance": "diagonal"}


def rosenbrock(x):
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def sphere(x):
    return float(np.sum((x - 1.0) ** 2))


class Inline:
    """Computes at once, but for what ``future`` makes of some calls."""

    def __init__(self, future=lambda number: None):
        self.submitted, self.points = 0, []
        self.future = future

    def submit(self, fun, *args):
        future = self.future(self.submitted)
        self.submitted += 1
        self.points.append(args[1])
        if future is None:
            future = Future()
            future.set_result(fun(*args))
        return future


def failed(error):
    future = Future()
    future.set_exception(error)
    return future


@pytest.fixture(scope="module")
def in_order():
    workers = Asynchronous(Inline(), num_workers=1)
    return minimize(rosenbrock, np.zeros(3), workers=workers, **GIVEN)


def test_where_all_come_in_order_it_is_the_search_of_a_map(in_order):
    mapped = minimize(rosenbrock, np.zeros(3), workers=map, **GIVEN)
    # Another program, which may round otherwise.
    chex.assert_trees_all_close(in_order.history, mapped.history, rtol=1e-6)
    np.testing.assert_allclose(in_order.x, mapped.x, rtol=1e-6)
    assert in_order.nfev == mapped.nfev
    assert in_order.status == mapped.status


def test_if_all_are_waited_for_it_does_not_matter_when_they_come(in_order):
    def fun(x):
        time.sleep(1e-3 * (zlib.crc32(x.tobytes()) % 3))
        return rosenbrock(x)

    with ThreadPoolExecutor(5) as pool:
        workers = Asynchronous(pool, share=1.0)
        result = minimize(fun, np.zeros(3), workers=workers, **GIVEN)
    chex.assert_trees_all_equal(result, in_order)


def test_no_value_of_the_late_ones_is_lost():
    seen = []

    def fun(x):
        time.sleep(0.02 if zlib.crc32(x.tobytes()) % 10 == 0 else 0.0)
        seen.append(sphere(x))
        return seen[-1]

    with ThreadPoolExecutor(4) as pool:
        result = minimize(fun, np.zeros(3), workers=pool, **GIVEN)
    assert result.nfev == len(seen) <= 210
    # The best point is made again, and may round otherwise.
    assert result.fun == min(seen) == pytest.approx(sphere(result.x), 1e-9)
    assert result.fun < 1e-2


@pytest.mark.parametrize(
    ("level", "status"),
    [(1.5, MinimizeStatus.BUDGET_SPENT), (3.0, MinimizeStatus.INFEASIBLE)],
)
def test_no_feasible_point_is_lost_for_one_that_is_not(level, status):
    values, violations = [], []

    def fun(x):
        assert x[2] == round(x[2])
        values.append(sphere(x))
        return values[-1]

    def constraint(x):
        time.sleep(0.02 if zlib.crc32(x.tobytes()) % 10 == 0 else 0.0)
        violations.append(max(level - x[0], 0.0))
        return level - x[0]

    with ThreadPoolExecutor(4) as pool:
        result = minimize(
            fun,
            np.zeros(3),
            bounds=(-2.0, 2.0),
            integers=np.array([False, False, True]),
            constraint=constraint,
            workers=pool,
            # In any order of arrival it is near enough after 300.
            **GIVEN | {"max_evaluations": 420},
        )
    assert len(violations) == result.nfev <= 420
    assert len(values) == violations.count(0)
    assert result.status == status
    assert result.violation == min(violations)
    assert result.fun == min(values, default=np.inf)
    # The optimum is (1.5, 1, 1), or else x[0] at its bound.
    nearest = (result.fun, 0.25) if level < 2 else (result.violation, 1.0)
    assert nearest[1] <= nearest[0] < nearest[1] + 0.1
    assert result.x[0] == pytest.approx(level - result.violation, abs=0.1)


@pytest.mark.parametrize("kind", [covariance.FULL, covariance.DIAGONAL])
def test_foreign_points_are_clipped_in_the_metric_of_the_covariance(kind):
    size = 4
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(size, size))
    matrix = factor @ factor.T + np.eye(size)
    mean, sigma = rng.normal(size=size), 0.3
    if kind is covariance.DIAGONAL:
        matrix = np.diag(np.diag(matrix))
    values, vectors = np.linalg.eigh(matrix)
    inverse_root = vectors @ np.diag(values**-0.5) @ vectors.T
    plan = Plan(kind, size, None, 8, 8, 100, 0, 0.0)
    # As whole numbers are widened, one of them by half.
    spreads = sigma * np.sqrt(np.diag(matrix))
    least = spreads * np.array([0, 0.5, 1.5, 0])
    widened = np.array([1, 1, 1.5, 1])
    for length in (0.5, 30.0):
        y = rng.normal(size=size)
        y *= length / np.linalg.norm(inverse_root @ y)
        expected = inverse_root @ y * min(1, (2 + 8 / 6) / length)
        with jax.enable_x64(True):
            start = covariance.begun(kind, jnp.asarray(mean), jnp.asarray(sigma))
            diagonal = kind is covariance.DIAGONAL
            own = jnp.asarray(np.diag(matrix) if diagonal else matrix)
            start = start._replace(covariance=own, least=least)
            _, root, scale = kind.renewed(start)
            start = start._replace(root=scale * root)
            z = injected(plan, start, mean + widened * sigma * y)
        np.testing.assert_allclose(z, expected, rtol=1e-9)


def test_an_evaluation_that_takes_too_long_is_missing_and_kept_when_it_comes():
    hanging = Future()

    def callback(result):
        if result.history.num_nonfinite.sum():
            hanging.set_result(-1.0)

    executor = Inline(lambda number: hanging if number == 30 else None)
    workers = Asynchronous(executor, num_workers=2, timeout=0.05, share=1.0)
    result = minimize(
        rosenbrock, np.zeros(3), workers=workers, callback=callback, **GIVEN
    )
    assert result.history.num_nonfinite.sum() == 1
    assert result.fun == -1.0
    np.testing.assert_allclose(result.x, executor.points[30], rtol=1e-12)
    assert result.nfev == executor.submitted == 210


def test_an_evaluation_whose_worker_fails_is_submitted_again(in_order):
    executor = Inline(lambda number: failed(OSError("killed")) if number == 9 else None)
    workers = Asynchronous(executor, num_workers=1)
    result = minimize(rosenbrock, np.zeros(3), workers=workers, **GIVEN)
    chex.assert_trees_all_equal(result, in_order)
    assert executor.submitted == result.nfev + 1


def test_an_evaluation_whose_workers_fail_twice_is_missing():
    executor = Inline(
        lambda number: failed(OSError("killed")) if number in (9, 10) else None
    )
    workers = Asynchronous(executor, num_workers=1)
    with pytest.warns(
        UserWarning, match="no value, as its worker failed: OSError: kill"
    ):
        result = minimize(rosenbrock, np.zeros(3), workers=workers, **GIVEN)
    assert result.history.num_nonfinite.sum() == 1
    assert executor.submitted == result.nfev + 1


def test_a_broken_executor_leaves_what_has_come_and_others_go_on():
    seen = []

    def fun(x):
        seen.append(rosenbrock(x))
        return seen[-1]

    class Breaking(Inline):
        def submit(self, fun, *args):
            if self.submitted == 100:
                raise BrokenExecutor("a worker has died")
            return super().submit(fun, *args)

    # The last two are under way when it breaks.
    executor = Breaking(
        lambda number: failed(BrokenExecutor()) if number > 97 else None
    )
    workers = Asynchronous(executor, num_workers=3)
    with pytest.warns(UserWarning, match="the workers are lost: BrokenExecutor: a wor"):
        result = minimize(fun, np.zeros(3), workers=workers, **GIVEN)
    assert result.status == MinimizeStatus.WORKERS_LOST
    assert not result.success
    assert (result.fun, len(seen)) == (min(seen), 98)
    workers = Asynchronous(Inline(), num_workers=3)
    further = minimize(fun, np.zeros(3), workers=workers, resume=result, **GIVEN)
    assert further.nfev == result.nfev + len(seen) - 98 <= 210
    assert further.fun == min(seen)


def test_workers_that_all_hang_end_the_search():
    executor = Inline(lambda number: Future() if number >= 50 else None)
    workers = Asynchronous(executor, num_workers=2, timeout=0.1)
    with pytest.warns(UserWarning, match="all were given up"):
        result = minimize(rosenbrock, np.zeros(3), workers=workers, **GIVEN)
    assert result.status == MinimizeStatus.WORKERS_LOST
    assert result.nfev == 52
    assert result.history.num_nonfinite.sum() == 7 * result.nit - 50
    assert np.isfinite(result.fun)


@pytest.mark.parametrize(
    ("limit", "status"),
    [
        (
            {"callback": lambda result: result.nfev > 50},
            MinimizeStatus.STOPPED_BY_CALLBACK,
        ),
        ({"max_seconds": 7.5}, MinimizeStatus.TIME_SPENT),
    ],
)
def test_a_search_that_is_ended_waits_for_none(monkeypatch, limit, status):
    seconds = itertools.count()
    monkeypatch.setattr(asynchronous, "monotonic", lambda: next(seconds))
    hanging = Future()
    executor = Inline(lambda number: hanging if number == 30 else None)
    result = minimize(
        rosenbrock,
        np.zeros(3),
        workers=Asynchronous(executor, num_workers=2),
        **limit,
        **GIVEN,
    )
    assert result.status == status
    assert result.nit == 8
    assert hanging.cancelled()
    assert result.nfev == executor.submitted


def test_an_executor_that_is_shut_down_is_an_error_of_its_own():
    pool = ThreadPoolExecutor(2)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        minimize(rosenbrock, np.zeros(3), workers=pool, **GIVEN)


def test_a_function_that_always_fails_is_reported():
    workers = Asynchronous(Inline(), num_workers=1)
    with pytest.raises(RuntimeError, match=r"fun fails wherever.*TypeError"):
        minimize(lambda x: x + "a", np.zeros(3), workers=workers, **GIVEN)


def test_by_default_there_is_a_candidate_for_each_worker():
    class Cluster(Inline):
        def nthreads(self):
            return {"one": 8, "other": 4}

    executor = Cluster()
    workers = Asynchronous(executor, share=1.0)
    with pytest.raises(RuntimeError, match="fun fails"):
        minimize(
            lambda x: None, np.zeros(3), sigma=1.0, workers=workers, max_evaluations=360
        )
    assert executor.submitted == 12


@pytest.mark.parametrize(
    ("workers", "error", "said"),
    [
        (3, TypeError, "workers must be a function like map, or an executor"),
        (Asynchronous(map), TypeError, "executor must have a submit"),
        (Inline(), TypeError, "workers must say how many they are"),
        (Asynchronous(Inline(), 0), ValueError, "num_workers must be at least 1"),
        (Asynchronous(Inline(), 2, timeout=0), ValueError, "timeout must be finite"),
        (Asynchronous(Inline(), 2, share=1.5), ValueError, "share must be finite"),
    ],
)
def test_what_is_no_executor_is_refused(workers, error, said):
    with pytest.raises(error, match=said):
        minimize(rosenbrock, np.zeros(3), workers=workers, **GIVEN)
