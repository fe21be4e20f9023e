"""Functions whose values are another whenever they are asked for."""

import zlib
from concurrent.futures import ThreadPoolExecutor

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax import Asynchronous, minimize
from qiaso_jax.search import adaptive, covariance, runs
from qiaso_jax.search.plan import Plan

OPTIMUM = 0.3
GIVEN = {"sigma": 1.0, "max_evaluations": 600, "noisy": True}


def noisy_sphere(x):
    """Noise of variance 1 that is another at each point, and at each the same."""
    noise = np.random.default_rng(zlib.crc32(x.round(6).tobytes())).standard_normal()
    return float(np.sum((x - OPTIMUM) ** 2) + noise)


def distances(noisy):
    """Squared, of the mean from the optimum after 2,000 evaluations, by 160 keys."""

    def search(seed):
        def fun(x):
            word = jax.lax.bitcast_convert_type(x, jnp.uint32)
            key = jax.random.fold_in(jax.random.key(word[0]), word[1])
            return jnp.sum((x - OPTIMUM) ** 2) + jax.random.normal(key)

        return minimize(
            fun, jnp.zeros(2), sigma=1.0, max_evaluations=2_000, noisy=noisy, key=seed
        ).mean

    means = jax.jit(jax.vmap(search))(jnp.arange(160))
    return np.sum((np.asarray(means) - OPTIMUM) ** 2, axis=1)


@pytest.mark.slow
@pytest.mark.nightly
def test_the_mean_comes_nearer_to_the_optimum():
    told, untold = distances(noisy=True), distances(noisy=False)
    # The ratio of the medians is about 0.45, and the standard error of its logarithm
    # 0.15 by a bootstrap: three of them are below this.
    assert np.median(told) < 0.8 * np.median(untold)


@pytest.mark.parametrize(
    ("max_evaluations", "noisy", "candidates"),
    [(10_000, False, 7), (10_000, True, 28), (600, True, 20), (60, True, 7)],
)
def test_four_times_the_candidates_if_they_leave_thirty_steps(
    max_evaluations, noisy, candidates
):
    def search(x0):
        return minimize(
            jnp.sum, x0, sigma=1.0, max_evaluations=max_evaluations, noisy=noisy
        )

    steps = jax.eval_shape(search, jnp.zeros(3)).history.sigma.size
    # 7 is 4 + ⌊3 log 3⌋.
    assert steps == max_evaluations // candidates


def state_of(spent, gained, annealing=-1, least=10, most=80):
    plan = Plan(
        covariance.FULL, 2, jnp.float32, least, most, 10_000, 0, -jnp.inf, noisy=True
    )
    run = runs.first_run(least, 2, jnp.float32)._replace(
        spent=jnp.asarray(spent), gained=jnp.asarray(gained), annealing=annealing
    )
    return plan, run


@pytest.mark.parametrize(
    ("state", "left", "candidates"),
    [
        ({"spent": 1_000, "gained": 210}, 5_000, 10),
        ({"spent": 1_000, "gained": 200}, 5_000, 20),
        ({"spent": 1_000, "gained": 200}, 199, 10),  # no ten steps
        ({"spent": 1_000, "gained": 200, "most": 10}, 5_000, 10),
        ({"spent": 1_000, "gained": 200, "annealing": 3}, 5_000, 10),
    ],
)
def test_candidates_are_doubled_where_the_level_falls_no_more(state, left, candidates):
    plan, run = state_of(**state)
    gaussian = covariance.begun(covariance.FULL, jnp.zeros(2), jnp.asarray(0.5))
    after, wider = runs.enlarged(plan, run, gaussian, jnp.asarray(left))
    assert after.candidates == candidates
    assert wider.sigma == (0.5 if candidates == 10 else 1.5)


def test_the_mean_is_that_of_all_means_since_the_level_has_fallen():
    means = np.random.default_rng(1).normal(size=(4, 3))
    candidates = [10, 10, 20, 40]
    average, spent = jnp.full(3, 7.0), 300
    for mean, number in zip(means, candidates, strict=True):
        spent += number
        run = state_of(spent, 310)[1]._replace(candidates=jnp.asarray(number))
        average = adaptive.averaged(average, jnp.asarray(mean), run)
    # The first of them is where it has fallen.
    expected = np.average(means[1:], axis=0, weights=candidates[1:])
    np.testing.assert_allclose(average, expected, rtol=1e-5)


def test_no_run_ends_for_want_of_gain():
    given = GIVEN | {"max_evaluations": 3_000, "num_candidates": 6}
    result = minimize(noisy_sphere, np.zeros(2), workers=map, **given)
    numbers = result.history.num_candidates
    assert set(result.history.run) == {0}
    assert numbers[0] == 6
    assert numbers[-1] > 6
    assert numbers.sum() == result.nfev
    grows = np.flatnonzero(np.diff(numbers))
    ratio = result.history.sigma[grows + 1] / result.history.sigma[grows]
    np.testing.assert_array_less(1, ratio)


def test_it_goes_on_bit_by_bit():
    whole = minimize(noisy_sphere, np.zeros(2), workers=map, **GIVEN)
    part = minimize(
        noisy_sphere,
        np.zeros(2),
        workers=map,
        callback=lambda result: result.nit == 17,
        **GIVEN,
    )
    rest = minimize(noisy_sphere, np.zeros(2), workers=map, resume=part, **GIVEN)
    assert 17 < rest.nit == whole.nit
    chex.assert_trees_all_equal(rest.state, whole.state)


def test_an_executor_and_a_vectorized_function_are_searched_likewise():
    mapped = minimize(noisy_sphere, np.zeros(2), workers=map, **GIVEN)
    with ThreadPoolExecutor(3) as pool:
        workers = Asynchronous(pool, share=1.0)
        remote = minimize(noisy_sphere, np.zeros(2), workers=workers, **GIVEN)
    # Another program, which may round otherwise.
    chex.assert_trees_all_close(remote.history, mapped.history, rtol=1e-6)
    np.testing.assert_allclose(remote.mean, mapped.mean, rtol=1e-6)
    many = minimize(
        lambda x: [noisy_sphere(row) for row in x],
        np.zeros(2),
        vectorized=True,
        **GIVEN,
    )
    chex.assert_trees_all_equal(many, mapped)


def test_with_a_constraint_what_is_infeasible_stays_so():
    asked = []

    def fun(x):
        asked.append(x[0])
        return noisy_sphere(x)

    result = minimize(
        fun,
        np.zeros(2),
        constraint=lambda x: 1.0 - x[0],
        workers=map,
        **GIVEN,
    )
    assert min(asked) >= 1.0
    assert result.violation == 0
    assert result.x[0] >= 1.0 - 1e-12
    assert abs(result.mean[0] - 1.0) < 0.5


@pytest.mark.parametrize(
    ("given", "error", "sentence"),
    [
        ({"noisy": 1}, TypeError, "noisy must be a boolean, got 1"),
        ({"covariance": None}, ValueError, "noisy must be False with covariance=None"),
    ],
)
def test_bad_arguments_are_refused(given, error, sentence):
    with pytest.raises(error, match=sentence):
        minimize(lambda x: jnp.sum(x**2), jnp.zeros(2), **GIVEN | given)
