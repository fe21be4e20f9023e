"""What goes from step to step of a search, and what is reported of one."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax.search import covariance, integers, restarts, runs
from qiaso_jax.search.coordinates import Space
from qiaso_jax.search.covariance import Gaussian
from qiaso_jax.search.plan import Plan
from qiaso_jax.search.restarts import Arms
from qiaso_jax.search.result import MinimizeStatus
from qiaso_jax.search.runs import Run


class SearchInfo(NamedTuple):
    """What happened in a step of a search; all fields are scalars.

    Attributes:
      expected_loss: ⟨p, L⟩ over its candidates.
      best_loss: the lowest of their values, ``inf`` if none was finite.
      effective_candidates: 1/Σ p².
      num_candidates: K.
      num_nonfinite: candidates whose value was NaN or infinite.
      num_infeasible: candidates that violated the constraint.
      sigma: σ, in units of the first one.
      axis_ratio: of the longest to the shortest standard deviation along a coordinate.
      run: number of the run, from 0.
      arm: 0 for runs with more and more candidates, 1 annealed, 2 small.
    """

    expected_loss: jax.Array
    best_loss: jax.Array
    effective_candidates: jax.Array
    num_candidates: jax.Array
    num_nonfinite: jax.Array
    num_infeasible: jax.Array
    sigma: jax.Array
    axis_ratio: jax.Array
    run: jax.Array
    arm: jax.Array


class SearchState(NamedTuple):
    """What goes from step to step of a search; after the end it stays as it is.

    Points are in units of σ from the start.

    Attributes:
      key: two words of a PRNG key.
      step: number of steps.
      spent: evaluations.
      gaussian: the superposition.
      run: the one that goes on.
      arms: the runs before.
      best: the best point so far, shape ``[N]``.
      best_value: its value; ``inf`` before the first finite one.
      violation: its violation of the constraint, 0 for none; ``inf`` before any is
        known.
      level: mean value of the candidates of a run, over the last ten steps or so.
      mean: of the superposition where ``level`` was least, shape ``[N]``; with a noisy
        function the average since then.
      mean_level: that level.
      has_converged: whether that run ended since nothing differed any more.
      differed: whether values ever differed.
      status: a ``MinimizeStatus``, int32.
      info: of the last step.
    """

    key: jax.Array
    step: jax.Array
    spent: jax.Array
    gaussian: Gaussian
    run: Run
    arms: Arms
    best: jax.Array
    best_value: jax.Array
    violation: jax.Array
    level: jax.Array
    mean: jax.Array
    mean_level: jax.Array
    has_converged: jax.Array
    differed: jax.Array
    status: jax.Array
    info: SearchInfo


def begun(plan: Plan, space: Space, key: jax.Array) -> SearchState:
    """Before the first step, around 0, with a spread of 1."""
    dtype = plan.dtype
    none = jnp.zeros((), jnp.int32)
    mean = jnp.zeros(plan.size, dtype)
    number, no = jnp.zeros((), dtype), jnp.asarray(False)
    gaussian = covariance.begun(plan.kind, mean, jnp.ones((), dtype))
    least = integers.least_spread(plan.size, plan.least)
    unit = jnp.where(space.unit > 0, space.unit, jnp.inf)
    return SearchState(
        key=key,
        step=none,
        spent=none,
        gaussian=gaussian._replace(least=jnp.where(space.whole, least / unit, 0)),
        run=runs.first_run(plan.least, plan.size, dtype),
        arms=restarts.no_arms(dtype),
        best=mean,
        best_value=jnp.asarray(jnp.inf, dtype),
        violation=jnp.asarray(jnp.inf, dtype),
        level=jnp.asarray(jnp.nan, dtype),
        mean=mean,
        mean_level=jnp.asarray(jnp.inf, dtype),
        has_converged=no,
        differed=no,
        status=jnp.asarray(int(MinimizeStatus.RUNNING), jnp.int32),
        info=SearchInfo(
            *(number, number, number, none, none, none, number, number, none, none)
        ),
    )


def resumed(plan: Plan, space: Space, resume: Any) -> SearchState:
    """The state of an earlier result, or one itself, to go on from.

    Raises:
      TypeError: if ``resume`` is neither a result of a search with a covariance nor
        its state.
      ValueError: if it is of other coordinates or another kind of covariance.
    """
    state = getattr(resume, "state", resume)
    if not isinstance(state, SearchState):
        raise TypeError(
            "resume must be a result of minimize with a covariance, or its state, got "
            f"{type(resume).__name__}."
        )
    expected = jax.eval_shape(lambda: begun(plan, space, jnp.zeros(2, jnp.uint32)))
    shapes, wanted = (
        [(x.shape, x.dtype) for x in jax.tree.leaves(tree.gaussian)]
        for tree in (state, expected)
    )
    if shapes != wanted or state.run.recent.shape != expected.run.recent.shape:
        raise ValueError(
            "resume must be a result of the same x0, covariance and num_candidates, "
            f"in the same precision; the shapes and dtypes of its state are {shapes}, "
            f"and those of this search {wanted}."
        )
    state = jax.tree.map(jnp.asarray, state)
    return state._replace(status=status(plan, state))


def with_best(
    state: SearchState, u: jax.Array, value: jax.Array, violation: jax.Array
) -> SearchState:
    """With a point, shape ``[N]``, if it is better than the best before.

    Where that has converged, what is lower by rounding has, too.

    Args:
      state: before.
      u: the point.
      value: of it, as ``feasibility.told``.
      violation: likewise.
    """
    is_better = (violation < state.violation) | (value < state.best_value)
    near = restarts.tolerance(state.arms, state.best_value)
    is_another = (violation < state.violation) | (value < state.best_value - near)
    return state._replace(
        best=jnp.where(is_better, u, state.best),
        best_value=jnp.minimum(value, state.best_value),
        violation=jnp.minimum(violation, state.violation),
        has_converged=state.has_converged & ~is_another,
    )


def status(plan: Plan, state: SearchState) -> jax.Array:
    """The ``MinimizeStatus`` after a step, int32."""
    is_found = (state.arms.again >= restarts.AGAIN) & state.differed
    has_runs = jnp.sum(state.arms.runs) <= plan.restarts
    affords = state.spent + state.run.candidates <= plan.budget
    cases = {
        MinimizeStatus.TARGET_REACHED: state.best_value <= plan.target,
        MinimizeStatus.RUNNING: affords & has_runs & ~is_found,
        MinimizeStatus.INFEASIBLE: (state.violation > 0) & (state.violation < jnp.inf),
        MinimizeStatus.NO_FINITE_VALUE: ~jnp.isfinite(state.best_value),
        MinimizeStatus.FLAT: ~state.differed,
        MinimizeStatus.CONVERGED: state.has_converged,
        MinimizeStatus.RESTARTS_SPENT: ~has_runs,
    }
    numbers = [jnp.asarray(int(case), jnp.int32) for case in cases]
    otherwise = jnp.asarray(int(MinimizeStatus.BUDGET_SPENT), jnp.int32)
    return jnp.select(list(cases.values()), numbers, otherwise)
