"""Constraints, whole numbers, many points at once, and the limits of a search."""

import itertools
import math
import pickle
import re
from pathlib import Path

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import scipy.optimize

import qiaso_jax
from qiaso_jax import MinimizeStatus, minimize
from qiaso_jax.search import feasibility, integers, on_host, runs
from qiaso_jax.search.bounds import box
from qiaso_jax.search.start import start

# All searches on the host have one plan, and share what is compiled for it.
GIVEN = {"max_evaluations": 4_000, "restarts": 0}
X0 = np.zeros(4)


def rosen_suzuki(x):
    """Problem 43 of Hock and Schittkowski; the least value is −44 at (0, 1, 2, −1)."""
    square = x[0] ** 2 + x[1] ** 2 + 2 * x[2] ** 2 + x[3] ** 2
    return square - 5 * x[0] - 5 * x[1] - 21 * x[2] + 7 * x[3]


def of_rosen_suzuki(x):
    a, b, c, d = x
    return np.array(
        [
            a**2 + b**2 + c**2 + d**2 + a - b + c - d - 8,
            a**2 + 2 * b**2 + c**2 + 2 * d**2 - a - d - 10,
            2 * a**2 + b**2 + c**2 + 2 * a - b - d - 5,
        ]
    )


def drawn(number, seed=0):
    """Values and violations with ties among them and missing numbers."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-3, 4, number).astype(float)
    violations = np.maximum(rng.integers(-4, 4, number), 0).astype(float)
    values[::7], violations[::11], violations[5::13] = np.nan, np.nan, np.inf
    return values, violations


def pairs(values, violations):
    """What is compared of each that is not missing: violation, then value."""
    return {
        k: (g, v if g == 0 else 0.0)
        for k, (v, g) in enumerate(zip(values, violations, strict=True))
        if np.isfinite(g) and (g > 0 or np.isfinite(v))
    }


def test_feasible_candidates_are_before_all_others():
    found = drawn(60)
    expected = pairs(*found)
    told = feasibility.told(*map(jnp.asarray, found))
    order, best = feasibility.order(*told), int(feasibility.best(*told))
    assert set(np.flatnonzero(np.isfinite(order))) == set(expected)
    assert {g > 0 for g, _ in expected.values()} == {True, False}
    for i, j in itertools.product(expected, repeat=2):
        assert (order[i] < order[j]) == (expected[i] < expected[j])
    assert expected[best] == min(expected.values())
    # Where none is feasible, the one of least violation is the best.
    told = feasibility.told(jnp.zeros(3), jnp.array([2.0, jnp.nan, 1.0]))
    assert feasibility.best(*told) == 2


def test_a_run_counts_violations_until_a_candidate_is_feasible():
    run = runs.first_run(4, 2, jnp.float32)
    nan, inf = jnp.nan, jnp.inf
    for values, violations, merits, is_feasible in [
        ([nan, nan, nan], [3, 2, nan], [3, 2, inf], False),
        ([9, 7, nan], [0, 0, 0.5], [9, 7, 9.5], True),
        ([nan, nan, nan], [1, 0.25, inf], [10, 9.25, inf], True),
        ([6, nan, 8], [0, 2, 0], [6, 10, 8], True),
    ]:
        before = run
        found = (jnp.array(x, jnp.float32) for x in (values, violations))
        run, own = feasibility.merits(run, *feasibility.told(*found))
        np.testing.assert_array_equal(own, merits)
        assert run.is_feasible == is_feasible
        is_first = is_feasible and not before.is_feasible
        assert run.best == (inf if is_first else before.best)
        run = runs.told(run, own, 3)
        assert run.value == (run.best if is_feasible else inf)
    assert run.best == 6


@pytest.mark.parametrize("found", [True, np.array([False]), "a", None, 1j, {}])
def test_a_violation_is_of_real_numbers(found):
    with pytest.raises(TypeError, match="constraint must return real numbers"):
        feasibility.violation(found, np)


def test_a_violation_is_the_sum_of_what_is_above_zero():
    assert feasibility.violation(jnp.array([[1.5, -2.0], [0.25, 0.0]])) == 1.75
    assert feasibility.violation(-3, np) == 0
    assert np.isnan(feasibility.violation([1.0, np.nan], np))


def test_projections_on_half_spaces_within_a_box():
    """Under jit and vmap; one of the half-spaces is beyond the box."""
    at = np.array([0.5, -1.0, 0.25], np.float32)

    def search(normal, level):
        return minimize(
            lambda x, normal, level: jnp.sum((x - at) ** 2),
            jnp.zeros(3),
            args=(normal, level),
            bounds=(-2.0, 2.0),
            constraint=lambda x, normal, level: jnp.stack([level - normal @ x, -9.0]),
            covariance="diagonal",
            max_evaluations=3_000,
        )

    normals = np.eye(3)[[0, 1, 2, 0]]
    levels = np.array([1.25, -2.0, 1.0, 3.0])
    results = jax.jit(jax.vmap(search))(jnp.asarray(normals), jnp.asarray(levels))
    gap = np.maximum(levels - normals @ at, 0)
    expected = at + gap[:, None] * normals
    np.testing.assert_allclose(results.x[:3], expected[:3], atol=1e-2)
    np.testing.assert_allclose(results.fun[:3], gap[:3] ** 2, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(results.violation[:3], 0)
    reached = np.einsum("kn,kn->k", results.x[:3], normals[:3])
    assert (reached >= levels[:3]).all()
    assert results.history.num_infeasible.sum(1)[0] > 100
    # The last one cannot be met: the least violation is at the bound.
    assert results.violation[3] == pytest.approx(1.0, abs=1e-5)
    assert results.x[3, 0] == pytest.approx(2.0, abs=1e-5)
    assert results.fun[3] == np.inf
    assert not results.success[3]
    assert results.message[3] == MinimizeStatus.INFEASIBLE.message


def test_a_known_optimum_on_three_constraints_and_where_fun_is_called():
    seen = []

    def fun(x):
        seen.append(x)
        return rosen_suzuki(x)

    result = minimize(
        fun, X0 + 4, sigma=1.0, workers=map, constraint=of_rosen_suzuki, **GIVEN
    )
    by_gradients = scipy.optimize.minimize(
        rosen_suzuki,
        X0,
        method="SLSQP",
        constraints={"type": "ineq", "fun": lambda x: -of_rosen_suzuki(x)},
        options={"ftol": 1e-14},
    )
    assert result.success
    assert result.history.num_infeasible[0] == result.history.num_candidates[0]
    np.testing.assert_allclose(result.fun, by_gradients.fun, atol=1e-5)
    np.testing.assert_allclose(result.fun, -44, atol=1e-5)
    np.testing.assert_allclose(result.x, [0, 1, 2, -1], atol=2e-3)
    assert result.violation == 0
    assert np.all(of_rosen_suzuki(result.x) <= 0)
    assert all(np.all(of_rosen_suzuki(x) <= 0) for x in seen)
    assert len(seen) == result.nfev - result.history.num_infeasible.sum()


def test_whole_and_real_numbers_by_brute_force():
    rng = np.random.default_rng(5)
    factor = rng.normal(size=(4, 4)) + 2 * np.eye(4)
    matrix, centre = factor @ factor.T, np.array([1.4, -2.3, 0.2, 1.7])
    whole = np.array([True, True, False, False])

    def fun(x):
        assert np.all(x[whole] == np.round(x[whole]))
        return float((x - centre) @ matrix @ (x - centre))

    def constraint(x):
        return x[0] + x[1] + 2

    result = minimize(
        fun,
        X0 - 3,
        integers=whole,
        bounds=(-5.5, 5.5),
        workers=map,
        constraint=constraint,
        **GIVEN,
    )
    expected = np.inf
    for n in itertools.product(range(-5, 6), repeat=2):
        if sum(n) <= -2:
            off = np.array(n) - centre[:2]
            rest = np.linalg.solve(matrix[2:, 2:], -matrix[2:, :2] @ off)
            x = np.concatenate([n, centre[2:] + rest])
            expected = min(expected, fun(x))
    assert result.fun == pytest.approx(expected, rel=1e-5)
    assert constraint(result.x) <= 0
    for x in (result.x, result.mean):
        np.testing.assert_array_equal(x[whole], np.round(x[whole]))


def test_the_least_spread_keeps_whole_numbers_moving(monkeypatch):
    def fun(x):
        return float(np.sum((x[:2] - 0.01) ** 2) + np.sum((x[2:] - 3) ** 2))

    def search():
        return minimize(
            fun,
            X0,
            sigma=0.05,
            integers=np.arange(4) >= 2,
            workers=map,
            constraint=lambda x: -1.0,
            **GIVEN,
        )

    np.testing.assert_allclose(search().x, [0.01, 0.01, 3, 3], atol=1e-3)
    monkeypatch.setattr(integers, "least_spread", lambda size, number: 0.0)
    frozen = search()
    np.testing.assert_array_equal(frozen.x[2:], 0)
    assert frozen.fun == pytest.approx(18, abs=1e-4)


@pytest.mark.parametrize(("size", "number"), [(1, 4), (4, 8), (40, 15)])
def test_the_least_spread_leaves_an_integer_as_often_as_said(size, number):
    spread = integers.least_spread(size, number)

    def leaves(middle):
        beyond = [(0.5 + side * middle) / spread / math.sqrt(2) for side in (-1, 1)]
        return sum(map(math.erfc, beyond)) / 2

    assert leaves(0.0) == pytest.approx(1 / (size * number))
    assert all(leaves(middle) > leaves(0.0) for middle in (0.1, 0.3, 0.5))


def test_bounds_of_whole_numbers_are_whole():
    x0 = start({"n": np.zeros(2), "x": 0.5})
    whole = integers.which({"n": np.array([True, False]), "x": False}, x0)
    within = box((-1.5, {"n": np.array([2.8, np.inf]), "x": 1.5}), x0)
    within = integers.tightened(whole, within)
    np.testing.assert_array_equal(within.lower["n"], [-1, -1.5])
    np.testing.assert_array_equal(within.upper["n"], [2, np.inf])
    assert (within.lower["x"], within.upper["x"]) == (-1.5, 1.5)
    x = integers.rounded(whole, {"n": jnp.array([1.7, 1.7]), "x": jnp.array(0.3)})
    np.testing.assert_allclose(x["n"], [2, 1.7])
    assert x["x"] == pytest.approx(0.3)


def test_many_points_at_once_are_the_same_search():
    def row_by_row(fun):
        return lambda x, shift: np.array([fun(row - shift) for row in x])

    given = {"sigma": 1.0, "args": (0.5,), **GIVEN}
    together = minimize(
        row_by_row(rosen_suzuki),
        X0,
        vectorized=True,
        constraint=row_by_row(of_rosen_suzuki),
        **given,
    )
    one_by_one = minimize(
        lambda x, shift: rosen_suzuki(x - shift),
        X0,
        workers=map,
        constraint=lambda x, shift: of_rosen_suzuki(x - shift),
        **given,
    )
    chex.assert_trees_all_equal(together, one_by_one)


@pytest.mark.parametrize(
    ("fun", "constraint", "error", "sentence"),
    [
        (lambda x: 3.0, None, ValueError, r"fun must return.*\(8,\).*got shape \(\)"),
        (lambda x: x, None, ValueError, r"fun must return an array of.*\(8, 4\)"),
        (lambda x: x[:, 0] > 0, None, TypeError, "real numbers"),
        (lambda x: x[:, 0], lambda x: x[0], ValueError, r"constraint.*8.*shape \(4,\)"),
        (lambda x: 1 / 0, None, ZeroDivisionError, "division"),
    ],
)
def test_what_is_wrong_with_many_values_is_said(fun, constraint, error, sentence):
    given = {"sigma": 1.0, "vectorized": True, "constraint": constraint, **GIVEN}
    with pytest.raises(error, match=sentence):
        minimize(fun, X0, **given)


def test_a_search_that_time_has_ended_goes_on_from_a_file(monkeypatch, tmp_path):
    given = {"sigma": 1.0, "workers": map, "constraint": of_rosen_suzuki, **GIVEN}
    whole = minimize(rosen_suzuki, X0, **given)
    seconds = itertools.count()
    monkeypatch.setattr(on_host, "monotonic", lambda: next(seconds))
    stopped = minimize(rosen_suzuki, X0, max_seconds=30.5, **given)
    assert stopped.nit == 31
    assert stopped.message == "The time is spent."
    assert not stopped.success
    # What a state looks like is known after one step.
    like = minimize(rosen_suzuki, X0, callback=lambda result: True, **given).state
    stored = flax.serialization.to_bytes(stopped.state)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "search", stopped.state)
        checkpointer.wait_until_finished()
        restored = checkpointer.restore(tmp_path / "search", like)
    for state in (flax.serialization.from_bytes(like, stored), restored):
        resumed = minimize(rosen_suzuki, X0, resume=state, max_seconds=9e9, **given)
        for name in ("x", "fun", "mean", "nfev", "nit", "status", "state"):
            chex.assert_trees_all_equal(getattr(resumed, name), getattr(whole, name))


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"constraint": 3}, TypeError, "constraint must be a function.*got 3"),
        (
            {"constraint": lambda x: x > 0, "workers": None},
            TypeError,
            "constraint must return real.*got dtype bool",
        ),
        (
            {"constraint": lambda x: float(x[0]), "workers": None},
            TypeError,
            "traceable by JAX, and so must constraint",
        ),
        ({"integers": 1}, TypeError, "integers must be booleans, got dtype int"),
        ({"integers": [True]}, ValueError, "integers must be a boolean or an array"),
        ({"integers": np.ones(3, bool)}, ValueError, r"integers.*\(4,\).*\(3,\)"),
        ({"integers": True, "bounds": (-0.4, 0.4)}, ValueError, "leave a coordinate"),
        (
            {"integers": True, "bounds": (0.2, 0.4), "x0": X0 + 0.3},
            ValueError,
            "bounds must have a whole number between them",
        ),
        ({"integers": True, "x0": X0 + 0j}, TypeError, "integers need real x0"),
        ({"vectorized": 1}, TypeError, "vectorized must be a boolean, got 1"),
        ({"vectorized": True}, ValueError, "workers must be None with vectorized"),
        ({"max_seconds": 0}, ValueError, "max_seconds must be finite and above 0"),
        (
            {"max_seconds": 1, "workers": None},
            ValueError,
            "max_seconds must be None without workers",
        ),
        *(
            (
                {name: value, "covariance": None, "workers": None},
                ValueError,
                f"{name} must be .* with covariance=None",
            )
            for name, value in [
                ("constraint", lambda x: x[0]),
                ("integers", True),
                ("vectorized", True),
            ]
        ),
    ],
)
def test_bad_arguments_are_named(arguments, error, sentence):
    given = {"sigma": 1.0, "workers": map, **GIVEN, **arguments}
    if given.get("covariance", "full") is None:
        given["restarts"] = None
    with pytest.raises(error, match=sentence):
        minimize(lambda x: jnp.sum(x), given.pop("x0", X0), **given)


@pytest.mark.slow
@pytest.mark.nightly
def test_the_recipes_of_the_documentation(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs/search.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names = {"qiaso_jax": qiaso_jax}
    mixed, simulator, stored = (
        next(block for block in blocks if word in block)
        for word in ("integers", "ThreadPool", "pickle")
    )
    exec("import jax.numpy as jnp\n" + mixed, names)
    assert names["result"].fun < 1e-4
    assert jnp.argmax(names["result"].x["scores"]) == 1
    assert names["result"].x["layers"] == 5
    exec(simulator, names)
    exec(stored, names)
    whole = names["result"]
    np.testing.assert_allclose(whole.x, 3, atol=1e-3)
    assert pickle.loads(names["path"].read_bytes()).nit == whole.nit
    exec(stored, names)
    assert names["result"].history.best_loss.shape == (0,)
    chex.assert_trees_all_equal(names["result"].x, whole.x)
