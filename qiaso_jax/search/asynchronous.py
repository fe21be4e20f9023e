"""A search that goes on while candidates of earlier steps are still evaluated."""

import math
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from qiaso_jax._arguments import PyTree
from qiaso_jax.search import adaptive, covariance, feasibility, on_host
from qiaso_jax.search.coordinates import Coordinates, Space
from qiaso_jax.search.covariance import Gaussian
from qiaso_jax.search.futures import Answer, Candidate, Evaluations, Remote
from qiaso_jax.search.method import Callback, wants_to_stop
from qiaso_jax.search.on_host import Caught
from qiaso_jax.search.plan import Plan
from qiaso_jax.search.result import MinimizeResult, MinimizeStatus
from qiaso_jax.search.state import SearchState, status, with_best

AT_ONCE = (
    MinimizeStatus.TARGET_REACHED,
    MinimizeStatus.STOPPED_BY_CALLBACK,
    MinimizeStatus.TIME_SPENT,
)
"""What ends a search without waiting for the evaluations under way."""

FROM_OUTSIDE = (
    MinimizeStatus.STOPPED_BY_CALLBACK,
    MinimizeStatus.TIME_SPENT,
    MinimizeStatus.WORKERS_LOST,
)
"""What the state of a search does not say."""


def run(
    plan: Plan,
    where: Coordinates,
    state: SearchState,
    fun: Caught,
    workers: Remote,
    callback: Callback | None,
    max_seconds: float | None,
) -> MinimizeResult:
    """The result of a search whose candidates ``workers`` evaluate.

    Raises:
      RuntimeError: if none of the first evaluations gives a value.
    """
    points = jax.jit(jax.vmap(where.point))
    evaluations = Evaluations(fun, workers)
    before, drawn, reports = state.spent, 0, []
    until = math.inf if max_seconds is None else monotonic() + max_seconds
    try:
        while state.status == MinimizeStatus.RUNNING:
            number, run = int(state.run.candidates), _run(state)
            evaluations.forget()
            wanted = _wanted(plan, state, workers.share) - evaluations.num_asked(run)
            new = _candidates(plan, points, state, drawn, max(wanted, 0))
            evaluations.ask(new)
            drawn += len(new)
            come = []
            while len(come) < number and (answer := evaluations.answer()):
                counts = answer.candidate.run == run and not answer.is_late
                state = _kept(plan, state, answer, counts)
                if counts:
                    come.append(answer)
            if come:
                slots = _slots(plan, fun, state, come)
                state = _told(plan, where.space, state, *slots)
                reports.append(state.info)
            if _run(state) != run:
                state = _counted(plan, state, before + evaluations.number)
            if state.status == MinimizeStatus.RUNNING and evaluations.lost:
                state = on_host.ended(state, MinimizeStatus.WORKERS_LOST)
            if state.status == MinimizeStatus.RUNNING and monotonic() >= until:
                state = on_host.ended(state, MinimizeStatus.TIME_SPENT)
            if callback is None or not come:
                continue
            if wants_to_stop(callback, on_host.result(where, state, reports[-1:])):
                state = on_host.ended(state, MinimizeStatus.STOPPED_BY_CALLBACK)
        evaluations.forget()
        while state.status not in AT_ONCE and (answer := evaluations.answer()):
            state = _kept(plan, state, answer, counts=False)
    finally:
        evaluations.cancel()
    state = _counted(plan, state, before + evaluations.number)
    return on_host.result(where, state, reports)


def _wanted(plan: Plan, state: SearchState, share: float) -> int:
    """How many candidates are to be under way, or to wait, in this step."""
    number = int(state.run.candidates)
    steps = int(plan.budget - state.spent) // number
    return min(math.ceil(number / share), steps * number)


def _candidates(
    plan: Plan,
    points: Callable[[jax.Array], PyTree],
    state: SearchState,
    drawn: int,
    number: int,
) -> list[Candidate]:
    """So many of the next ones, after those drawn before."""
    rows = []
    for part in range(-(-number // plan.least)):
        z, u = _drawn(plan, state, part)
        x = on_host.listed_points(points(u))
        rows += zip(np.asarray(z), np.asarray(u), x, strict=True)
    of = (int(state.step), _run(state), int(state.run.arm))
    return [Candidate(drawn + i, *of, *row) for i, row in enumerate(rows[:number])]


def _slots(
    plan: Plan, fun: Caught, state: SearchState, come: list[Answer]
) -> tuple[jax.Array, jax.Array | None, np.ndarray]:
    """Values, violations, and z, shape ``[most, N]``."""
    # The order in which they have come says nothing.
    come = sorted(come, key=lambda answer: answer.candidate.number)
    found = [answer.value for answer in come]
    is_first = int(state.step) == 0
    values, violations = on_host.measured(plan, fun, found, is_first)
    z = np.zeros((plan.most, plan.size))
    for i, (candidate, *_) in enumerate(come):
        is_own = candidate.step == int(state.step)
        z[i] = candidate.z if is_own else injected(plan, state.gaussian, candidate.u)
    return values, violations, z


def _kept(plan: Plan, state: SearchState, answer: Answer, counts: bool) -> SearchState:
    """With a candidate that is the best; with any, if no step is told it.

    But under noise arms are compared by levels of values, not by the least of them.
    """
    found = on_host.value_and_violation(answer.value)
    candidate, keeps = answer.candidate, not (counts or plan.noisy)
    return _with(state, candidate.u, candidate.arm, *found, keeps)


@jax.jit
def _with(
    state: SearchState, u: jax.Array, arm: Any, value: Any, violation: Any, keeps: Any
) -> SearchState:
    value, violation = feasibility.told(value, violation)
    of_arm = jnp.where(keeps, value, jnp.inf)
    arms = state.arms._replace(best=state.arms.best.at[arm].min(of_arm))
    return with_best(state._replace(arms=arms), u, value, violation)


def _counted(plan: Plan, state: SearchState, spent: jax.Array) -> SearchState:
    """With all evaluations that have begun."""
    state = state._replace(spent=spent)
    if state.status in FROM_OUTSIDE:
        return state
    return state._replace(status=status(plan, state))


def _run(state: SearchState) -> int:
    """The number of the run that goes on."""
    return int(np.sum(state.arms.runs))


@partial(jax.jit, static_argnums=0)
def injected(plan: Plan, gaussian: Gaussian, u: jax.Array) -> jax.Array:
    """What z is of a foreign point, ``[N]``, no longer than Hansen (2011) has it."""
    z = covariance.direction(plan.kind, gaussian, u - gaussian.mean)
    longest = math.sqrt(plan.size) + 2 * plan.size / (plan.size + 2)
    return z * jnp.minimum(1, longest / jnp.linalg.norm(z))


@partial(jax.jit, static_argnums=0)
def _drawn(
    plan: Plan, state: SearchState, part: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Z and u of a part of the candidates, of shape ``[least, N]``."""
    z = adaptive.directions(plan, state, part)
    return z, adaptive.points(plan, state.gaussian, z)


@partial(jax.jit, static_argnums=0)
def _told(
    plan: Plan,
    space: Space,
    state: SearchState,
    values: jax.Array,
    violations: jax.Array | None,
    z: jax.Array,
) -> SearchState:
    """After a step whose candidates are these."""

    def of_part(plan, state, part):
        return jax.lax.dynamic_slice_in_dim(z, part * plan.least, plan.least)

    epsilon = on_host.EPSILON
    return adaptive.told(plan, space, state, values, epsilon, violations, of_part)
