"""When a run ends, and which arm the next one is of: rules, on states made by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qiaso_jax.search import covariance, restarts, runs
from qiaso_jax.search.coordinates import Space
from qiaso_jax.search.plan import Plan, default_candidates, largest
from qiaso_jax.search.runs import ANNEALED, LARGE


def plan_of(size, budget):
    least = default_candidates(size)
    most = largest(least, budget)
    return Plan(
        covariance.FULL, size, jnp.float32, least, most, budget, np.inf, -np.inf
    )


def ends(size, spread, values, window, best_before=jnp.inf, worst=1.0):
    """Whether a run has converged, and whether it ends.

    Its first values differed by 1, and the spread was 1.
    """
    plan = plan_of(size, 1000 * size)
    zeros = jnp.zeros(size)
    space = Space(zeros, zeros + 1, zeros - jnp.inf, zeros + jnp.inf, zeros > 0)
    run = runs.first_run(plan.least, size, jnp.float32)
    # The last step's least value, and what the others of the window had above it.
    recent = jnp.full_like(run.recent, window).at[0].set(0.0)
    run = run._replace(
        best=jnp.zeros(()), scale=jnp.ones(()), recent=recent, worst=jnp.asarray(worst)
    )
    arms = restarts.no_arms(jnp.float32)
    arms = arms._replace(best=arms.best.at[LARGE].set(best_before))
    gaussian = covariance.begun(covariance.FULL, zeros, jnp.asarray(spread))
    values = jnp.linspace(0, values, plan.least)
    told = restarts.ended(
        plan, space, run, run, arms, gaussian, values, 1e-30, jnp.asarray(100 * size)
    )
    return bool(told.converged), bool(told.has_come)


@pytest.mark.parametrize(
    ("size", "spread", "values", "ended"),
    [
        (5, 5e-7, 5e-7, True),
        (5, 5e-7, 1e-8, True),
        (5, 5e-7, 2.5e-13, False),  # by their squares: they go on to eleven digits
        (5, 2e-6, 5e-7, False),
        (9, 5e-7, 4e-7, True),
        (10, 5e-7, 4e-7, False),
        (5, 5e-7, 2e-6, False),
        (20, 5e-7, 2e-6, True),  # values differ by more than points
        (20, 5e-7, 4e-7, False),  # or by as much, along a sharp ridge, which is long
        (20, 5e-7, 1e-9, False),
        (20, 2e-6, 8e-6, False),
    ],
)
def test_six_digits_end_a_run(size, spread, values, ended):
    assert ends(size, spread, values, window=5e-7) == (ended, ended)


@pytest.mark.parametrize(
    ("best_before", "ended"), [(-0.05, False), (-0.2, True), (jnp.inf, False)]
)
def test_a_run_gives_up_far_behind_the_best(best_before, ended):
    assert ends(5, 0.1, 1e-3, 1e-3, best_before) == (False, ended)
    # Violations of a run without a feasible point are no values.
    assert ends(5, 0.1, 1e-3, 1e-3, best_before, jnp.inf) == (False, False)


@pytest.mark.parametrize(
    ("values", "window", "told"),
    [
        (1e-14, 1e-4, (True, True)),
        (1e-14, 0.1, (False, False)),
        (1.0, 1e-4, (True, True)),
        (1.0, 0.1, (False, True)),  # on a rough function there are other places
    ],
)
def test_a_narrow_run_has_converged_if_its_best_values_agree(values, window, told):
    assert ends(20, 1e-13, values, window) == told


@pytest.mark.parametrize(
    ("steps", "change", "factor"),
    [
        (0, {}, 1),
        (19, {}, 1),
        (20, {}, 0.5),
        (21, {}, 1),
        (40, {}, 0.5),
        (20, {"size": 6}, 1),
        (22, {"size": 6}, 0.5),
        (20, {"annealing": 0}, 1),
        (20, {"noisy": True}, 1),
        (20, {"known": 3}, 1),
        (20, {"known": 4}, 0.5),
    ],
)
def test_the_spread_is_halved_where_nothing_better_is_found(steps, change, factor):
    size = change.get("size", 5)
    plan = plan_of(size, 1000)._replace(noisy=change.get("noisy", False))
    run = runs.first_run(plan.least, size, jnp.float32)._replace(
        annealing=jnp.asarray(change.get("annealing", -1)),
        candidates=jnp.asarray(8),
        gained=jnp.asarray(80),
        spent=jnp.asarray(80 + 8 * steps),
    )
    gaussian = covariance.begun(covariance.FULL, jnp.zeros(size), jnp.asarray(0.6))
    values = jnp.where(jnp.arange(16) < change.get("known", 8), 1.0, jnp.inf)
    after = runs.halved(plan, run, gaussian, values)
    assert float(after.sigma) == pytest.approx(0.6 * factor)


def test_what_annealing_found_is_left_the_time_to_be_refined():
    run = runs.first_run(8, 5, jnp.float32)._replace(
        annealing=jnp.asarray(1),
        candidates=jnp.asarray(64),
        spent=jnp.asarray(64 * 59),
        best=jnp.asarray(-1.0),
    )
    after = runs.told(run, jnp.arange(64.0), 8)
    assert after.candidates == 8
    assert after.gained == after.spent == 64 * 60


def next_run(size, budget, large, annealed=0, lead=None, rough=False, left=None):
    """After so many runs of two arms; annealing leads by ``lead``."""
    plan = plan_of(size, budget)
    arms = restarts.no_arms(jnp.float32)
    best = arms.best.at[LARGE].set(1.0)
    run = runs.first_run(plan.least, size, jnp.float32)
    if lead is not None:
        best = best.at[ANNEALED].set(1.0 - lead)
        run = run._replace(arm=jnp.asarray(ANNEALED, jnp.int32))
    arms = arms._replace(
        spent=jnp.asarray([budget // 10, annealed * budget // 10, 0], jnp.int32),
        runs=jnp.asarray([large, annealed, 0], jnp.int32),
        best=best,
        scale=jnp.ones(()),
        rough=jnp.asarray(rough),
    )
    left = jnp.asarray(budget * 8 // 10 if left is None else left)
    return restarts.next_run(jax.random.key(0), plan, arms, run, left)


def next_arm(*of_arms, **settings):
    return int(next_run(*of_arms, **settings).arm)


def test_annealing_waits_for_two_runs_unless_its_probe_is_cheap():
    assert next_arm(30, 30_000, large=1) == ANNEALED
    assert next_arm(30, 30_000, large=1, rough=True) == LARGE
    assert next_arm(5, 5_000, large=1) == LARGE
    assert next_arm(5, 5_000, large=2) == ANNEALED


def test_annealing_goes_on_at_once_where_it_leads_by_far():
    assert next_arm(5, 50_000, large=1, annealed=1, lead=0.03) == ANNEALED
    assert next_arm(5, 50_000, large=1, annealed=1, lead=0.01) == LARGE


@pytest.mark.parametrize(("left", "candidates"), [(14_000, 112), (13_600, 84)])
def test_annealing_takes_nine_tenths_of_what_is_left(left, candidates):
    # Of 30 coordinates, 110 steps of whole pairs: 28 at first, and then 112.
    run = next_run(30, 30_000, large=1, annealed=1, lead=0.03, left=left)
    assert run.arm == ANNEALED
    assert run.annealing == 110
    assert run.candidates == candidates
    assert 110 * candidates <= 0.9 * left < 110 * (candidates + 28)


def test_no_run_of_many_searches_ends_in_its_first_step():
    # Over so many rows XLA's least value of a row does not see that there are NaNs.
    plan = plan_of(5, 5_000)
    zeros = jnp.zeros(5)
    space = Space(zeros, zeros + 1, zeros - jnp.inf, zeros + jnp.inf, zeros > 0)
    before = runs.first_run(plan.least, 5, jnp.float32)
    gaussian = covariance.begun(covariance.FULL, zeros, jnp.ones(()))
    left = jnp.asarray(4_000)

    def ends(values):
        run = runs.told(before, values, plan.least)
        arms = restarts.no_arms(jnp.float32)
        of_run = plan, space, before, run, arms, gaussian
        return restarts.ended(*of_run, values, 1e-7, left)

    values = jax.random.normal(jax.random.key(0), (300, plan.least))
    assert not jax.jit(jax.vmap(ends))(values).has_come.any()
