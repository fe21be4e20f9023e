import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import minimize


def sphere(x):
    return jnp.sum((x - 0.3) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype", [jnp.float32, pytest.param(jnp.float64, marks=pytest.mark.nightly)]
)
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
    plane = minimize(
        sphere, np.zeros(2), sigma=1.0, max_evaluations=2_000, bounds=(-1.0, 1.0)
    )
    first = slice(0, 20)
    np.testing.assert_array_equal(result.history.num_candidates[first], 6)
    np.testing.assert_allclose(
        result.history.best_loss[first] - (0.45**2 + 2.3**2),
        plane.history.best_loss[first],
        atol=1e-4,
    )


@pytest.mark.parametrize(
    "max_evaluations",
    [1, 7, *(pytest.param(e, marks=pytest.mark.nightly) for e in (2, 20))],
)
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


def test_the_start_is_evaluated_and_no_later_centre():
    seen, centres = [], []

    def fun(x):
        jax.debug.callback(lambda x: seen.append(float(x[0])), x)
        return sphere(x)

    minimize(
        fun,
        jnp.full(2, 1.5),
        sigma=1.0,
        max_evaluations=50,
        num_candidates=10,
        callback=lambda so_far: centres.append(float(so_far.mean[0])),
    )
    jax.effects_barrier()
    assert seen.count(1.5) == 1
    assert len(seen) == 50
    assert not set(centres) & set(seen)


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
@pytest.mark.nightly
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


BOUNDS = {
    "box": (-1.0, jnp.array([0.2, 5.0])),
    "lower": (jnp.array([0.5, -np.inf]), np.inf),
    "upper": (-np.inf, jnp.array([0.1, 0.2])),
    "none": (-np.inf, np.inf),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "box",
        *(pytest.param(name, marks=pytest.mark.nightly) for name in ("lower", "upper")),
        "none",
    ],
)
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


def test_the_centre_stays_within_bounds():
    def search(key):
        return minimize(
            jnp.sum,
            jnp.zeros(2),
            sigma=2.0,
            max_evaluations=8,
            num_candidates=8,
            bounds=(0.0, 1.0),
            key=key,
        )

    means = jax.jit(jax.vmap(search))(jnp.arange(50)).mean
    assert ((means >= 0) & (means <= 1)).all()
    # Reflected, and not held at a bound.
    assert jnp.ptp(means) > 0.5
