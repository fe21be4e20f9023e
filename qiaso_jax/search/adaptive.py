"""A search that adapts its covariance, over several runs."""

import math
from collections.abc import Callable
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax import amplitudes
from qiaso_jax.evaluation import checked_losses
from qiaso_jax.search import covariance, feasibility, restarts, runs
from qiaso_jax.search.coordinates import Coordinates, Outline, Space, outlined
from qiaso_jax.search.covariance import Gaussian, Moments
from qiaso_jax.search.method import Method, traceable
from qiaso_jax.search.plan import Plan
from qiaso_jax.search.restarts import End
from qiaso_jax.search.result import MinimizeResult
from qiaso_jax.search.runs import Run
from qiaso_jax.search.state import SearchInfo, SearchState, status, with_best
from qiaso_jax.search.traced import Traced, traced

ETA = 5.0
"""η of the exponential weights of centred ranks,"""

ETA_ANNEALED = 4.0
"""and while σ is annealed."""

BETWEEN = 2**31 - 1
"""In the place of a part, for what is drawn between two runs."""

FADING = 0.1
"""Weight of a step in the level of a run."""

SORTED = 512
"""So many values are sorted in no time."""

_STATUS, _INFO = attrgetter("status"), attrgetter("info")


class Operands(NamedTuple):
    """What a step takes beside the state.

    Attributes:
      arrays: of the coordinates that are searched.
      constants: that the function closes over.
      args: its further arguments.
      target: a value that is good enough.
    """

    arrays: list[Any]
    constants: list[Any]
    args: tuple[Any, ...]
    target: Any


class Step(NamedTuple):
    """A step of a search, equal to one of another search that is compiled alike.

    Attributes:
      plan: of the search, but for its target.
      measured: ``(x, args)`` -> value and violation.
      outline: of the coordinates that are searched.
    """

    plan: Plan
    measured: Traced
    outline: Outline

    def __call__(self, state: SearchState, operands: Operands) -> SearchState:
        """The state after it."""
        plan = self.plan._replace(target=operands.target)
        where = self.outline.filled(operands.arrays)

        def measured(u):
            return self.measured(operands.constants, where.point(u), operands.args)

        values, violations, epsilon = evaluated(plan, state, measured)
        return told(plan, where.space, state, values, epsilon, violations)


def method(
    plan: Plan,
    fun: Callable[..., Any],
    constraint: Callable[..., Any] | None,
    args: tuple[Any, ...],
    where: Coordinates,
    before: SearchState,
) -> Method:
    """A search of ``fun(x, *args)``.

    Args:
      plan: of the search.
      fun: the function.
      constraint: another, of the same arguments.
      args: these, but for x.
      where: the coordinates that are searched.
      before: the first step.
    """

    def measured(x, args):
        value = checked_losses(fun(x, *args), (), "fun")
        if constraint is None:
            return value, None
        return value, feasibility.violation(constraint(x, *args))

    x = jax.eval_shape(where.point, before.best)
    program, constants = traceable(traced, measured, x, args)
    outline, arrays = outlined(where)
    return Method(
        before,
        Step(plan._replace(target=None), program, outline),
        operands=Operands(arrays, constants, args, plan.target),
        is_kept=program.key is not None,
        status=_STATUS,
        made=attrgetter("step"),
        info=_INFO,
        result=partial(result, where),
        num_steps=plan.budget // plan.least,
    )


def result(
    where: Coordinates, state: SearchState, history: SearchInfo
) -> MinimizeResult:
    """What a search has found so far."""
    found = MinimizeResult(
        x=where.point(state.best),
        fun=state.best_value,
        violation=state.violation,
        mean=where.point(state.mean),
        nfev=state.spent,
        nit=state.step,
        status=state.status,
        history=history,
        state=state,
    )
    # Buffers of their own, if all are donated.
    return jax.tree.map(jnp.array, found)


def directions(plan: Plan, state: SearchState, part: jax.Array) -> jax.Array:
    """Standard normals z of a part of the candidates, shape ``[least, N]``.

    The first candidate of a search is its start, and that after annealing is the mean.
    While σ is annealed, every other part mirrors the one before.
    """
    anneals = state.run.annealing > 0
    drawn = jnp.where(anneals, part // 2, part)
    key = jax.random.fold_in(_key_of_step(state), drawn)
    shape = (plan.least, plan.size)
    z = jax.random.normal(key, shape, state.gaussian.mean.dtype)
    z = z * jnp.where(anneals & (part % 2 == 1), -1, 1).astype(z.dtype)
    is_mean = ((state.step == 0) | (state.run.annealing == 0)) & (part == 0)
    return z.at[0].multiply(jnp.where(is_mean, 0, 1).astype(z.dtype))


def _key_of_step(state: SearchState) -> jax.Array:
    key = jax.random.wrap_key_data(state.key, impl="threefry2x32")
    return jax.random.fold_in(key, state.step)


def points(plan: Plan, gaussian: Gaussian, z: jax.Array) -> jax.Array:
    """Points u = m + σ A √C z, shape ``[K, N]``."""
    moved = partial(covariance.displacement, plan.kind, gaussian)
    return gaussian.mean[None] + jax.vmap(moved)(z)


def asked(plan: Plan, state: SearchState, part: jax.Array) -> jax.Array:
    """A part of the candidates, ``least`` of them; shape ``[least, N]``."""
    return points(plan, state.gaussian, directions(plan, state, part))


def evaluated(
    plan: Plan, state: SearchState, measured: Callable[[jax.Array], Any]
) -> tuple[jax.Array, jax.Array | None, float]:
    """The values of all candidates, part by part, NaN beyond them: ``[most]``.

    Then their violations likewise, and ε of the precision of values.
    """

    def add(part, found):
        own = jax.vmap(measured)(asked(plan, state, part))
        return jax.tree.map(
            lambda all, own: jax.lax.dynamic_update_slice(
                all, own.astype(all.dtype), (part * plan.least,)
            ),
            found,
            own,
        )

    shapes = jax.eval_shape(measured, state.best)
    found = jax.tree.map(lambda _: jnp.full(plan.most, jnp.nan, plan.dtype), shapes)
    number = state.run.candidates // plan.least
    values, violations = jax.lax.fori_loop(0, number, add, found)
    epsilons = (float(jnp.finfo(dtype).eps) for dtype in (shapes[0].dtype, plan.dtype))
    return values, violations, max(epsilons)


def told(
    plan: Plan,
    space: Space,
    state: SearchState,
    values: jax.Array,
    epsilon: Any,
    violations: jax.Array | None = None,
    drawn: Callable[[Plan, SearchState, jax.Array], jax.Array] = directions,
) -> SearchState:
    """After a step.

    Args:
      plan: of the search.
      space: that is searched.
      state: before.
      values: of all candidates, NaN beyond them, shape ``[most]``.
      epsilon: of their precision.
      violations: likewise; ``None`` without a constraint.
      drawn: the z of a part of the candidates, which are drawn again by default.
    """
    is_constrained = violations is not None
    values, violations = feasibility.told(values, violations)
    known = jnp.isfinite(violations)
    ranked = (values, violations) if is_constrained else (values,)
    log_p = _log_amplitudes(plan, state.run, *ranked)
    p, w = covariance.weights(log_p, known)
    w = covariance.tempered(plan.kind, plan.size, p, w)
    winner = feasibility.best(values, violations)
    found, best = _moments(plan, state, partial(drawn, plan, state), p, w, winner)
    moved = jax.tree.map(
        partial(jnp.where, state.run.annealing > 0),
        _annealed(plan, state.gaussian, found),
        covariance.collapsed(plan.kind, state.gaussian, found, p, w),
    )
    gaussian = jax.tree.map(partial(jnp.where, jnp.any(known)), moved, state.gaussian)
    before, merits = feasibility.merits(state.run, values, violations)
    level = _level(state.level, values)
    run = runs.told(before, merits, plan.least, level if plan.noisy else None)
    gaussian = runs.halved(plan, run, gaussian, merits)
    leads = run.value <= jnp.min(state.arms.best)
    is_lower = (level <= state.mean_level) & (run.annealing <= 0)
    mean = jnp.where(is_lower, gaussian.mean, state.mean)
    if plan.noisy:
        mean = jnp.where(leads, averaged(state.mean, gaussian.mean, run), state.mean)
    after = with_best(state, best, values[winner], violations[winner])._replace(
        step=state.step + 1,
        spent=state.spent + state.run.candidates,
        gaussian=gaussian,
        run=run,
        level=level,
        mean=mean,
        mean_level=jnp.where(is_lower, level, state.mean_level),
        differed=state.differed
        | ~_equal(jnp.append(values, state.best_value), epsilon),
        info=_info(plan, state, values, violations, p),
    )
    left = plan.budget - after.spent
    end = restarts.ended(
        plan, space, state.run, run, state.arms, gaussian, merits, epsilon, left
    )
    after = after._replace(has_converged=after.has_converged | (leads & end.converged))
    if plan.noisy:
        run, gaussian = runs.enlarged(plan, run, gaussian, left)
        after = after._replace(run=run, gaussian=gaussian)
    after = jax.lax.cond(
        end.has_come, partial(_restarted, plan, space, end), lambda state: state, after
    )
    return after._replace(status=status(plan, after))


def _moments(
    plan: Plan,
    state: SearchState,
    drawn: Callable[[jax.Array], jax.Array],
    p: jax.Array,
    w: jax.Array,
    winner: jax.Array,
) -> tuple[Moments, jax.Array]:
    """Summed part by part; and candidate ``winner``."""
    none, point = jnp.zeros(1, plan.dtype), jnp.zeros((1, plan.size), plan.dtype)
    zeros = covariance.moments(plan.kind, state.gaussian, point, none, none)
    p, w = (x.reshape(-1, plan.least) for x in (p, w))

    def add(part, carry):
        total, chosen = carry
        z = drawn(part)
        own = covariance.moments(plan.kind, state.gaussian, z, p[part], w[part])
        place = winner - part * plan.least
        is_here = (place >= 0) & (place < plan.least)
        chosen = jnp.where(is_here, z[jnp.where(is_here, place, 0)], chosen)
        return jax.tree.map(jnp.add, total, own), chosen

    number = state.run.candidates // plan.least
    found, z = jax.lax.fori_loop(0, number, add, (zeros, point[0]))
    return found, points(plan, state.gaussian, z[None])[0]


def _log_amplitudes(plan: Plan, run: Run, *ranked: jax.Array) -> jax.Array:
    """Exponential weights of the ranks from a uniform prior, ``[most]``.

    Args:
      plan: of the search.
      run: that they are of.
      ranked: values; with a constraint violations, too.
    """
    eta = jnp.where(run.annealing > 0, ETA_ANNEALED, ETA).astype(plan.dtype)

    def of_first(number, *ranked):
        own, *violations = (x[:number] for x in ranked)
        own = feasibility.order(own, *violations) if violations else own
        log_prior, _ = amplitudes.uniform_over_known(own)
        log_p = amplitudes.amplify(log_prior, amplitudes.centred_ranks(own), eta)
        return jnp.pad(log_p, (0, plan.most - number), constant_values=-jnp.inf)

    # To sort all that there might be would cost more than the step.
    numbers = [min(plan.most, plan.least * -(-SORTED // plan.least))]
    while numbers[-1] < plan.most:
        numbers.append(min(8 * numbers[-1], plan.most))
    which = jnp.searchsorted(jnp.asarray(numbers, jnp.int32), run.candidates)
    branches = [partial(of_first, number) for number in numbers]
    return jax.lax.switch(which, branches, *ranked)


def _annealed(plan: Plan, gaussian: Gaussian, found: Moments) -> Gaussian:
    """The mean moves, and σ shrinks however it fares."""
    decay = math.log(runs.COOLING) / runs.annealing_steps(plan.size)
    step = covariance.displacement(plan.kind, gaussian, found.first)
    return gaussian._replace(
        mean=gaussian.mean + step, sigma=gaussian.sigma * math.exp(-decay)
    )


def _restarted(plan: Plan, space: Space, end: End, state: SearchState) -> SearchState:
    """With a run that begins."""
    size_key, start_key = jax.random.split(
        jax.random.fold_in(_key_of_step(state), BETWEEN)
    )
    arms = restarts.counted(state.arms, state.run, end)
    left = plan.budget - state.spent
    run = restarts.next_run(size_key, plan, arms, state.run, left)
    # What σ is to reach is around x0.
    start = jnp.where(run.annealing > 0, 0, space.start(start_key))
    gaussian = covariance.begun(plan.kind, start, run.sigma)
    return state._replace(
        gaussian=gaussian._replace(least=state.gaussian.least),
        run=run,
        arms=arms,
        level=jnp.full_like(state.level, jnp.nan),
    )


def averaged(average: jax.Array, mean: jax.Array, run: Run) -> jax.Array:
    """The mean over all candidates since the level of a run has last fallen.

    Args:
      average: of the means after the steps before.
      mean: after this one.
      run: likewise.
    """
    number = jnp.maximum(run.spent - run.gained, run.candidates)
    return average + run.candidates / number * (mean - average)


def _level(level: jax.Array, values: jax.Array) -> jax.Array:
    """The mean of finite values over candidates and, with weights that fade, steps."""
    known = jnp.isfinite(values)
    number = jnp.sum(known)
    now = jnp.sum(jnp.where(known, values / jnp.maximum(number, 1), 0))
    now = jnp.where(number > 0, now, level)
    return jnp.where(jnp.isnan(level), now, level + FADING * (now - level))


def _equal(values: jax.Array, epsilon: Any) -> jax.Array:
    """Whether the finite values differ by no more than rounding."""
    known = jnp.isfinite(values)
    lowest = jnp.min(values, where=known, initial=jnp.inf)
    highest = jnp.max(values, where=known, initial=-jnp.inf)
    largest = jnp.maximum(jnp.abs(lowest), jnp.abs(highest))
    # Halves do not overflow.
    return highest / 2 - lowest / 2 <= 2 * epsilon * largest


def _info(
    plan: Plan,
    state: SearchState,
    values: jax.Array,
    violations: jax.Array,
    p: jax.Array,
) -> SearchInfo:
    """The report of a step that began with ``state``."""
    feasible, known = jnp.isfinite(values), jnp.isfinite(violations)
    spread = jnp.sqrt(plan.kind.variances(state.gaussian))
    total = jnp.sum(p**2)
    return SearchInfo(
        expected_loss=jnp.sum(p * jnp.where(feasible, values, 0)),
        best_loss=jnp.min(values),
        effective_candidates=1 / jnp.where(total > 0, total, jnp.inf),
        num_candidates=state.run.candidates,
        num_nonfinite=state.run.candidates - jnp.sum(known, dtype=jnp.int32),
        num_infeasible=jnp.sum(known & ~feasible, dtype=jnp.int32),
        sigma=state.gaussian.sigma,
        axis_ratio=jnp.max(spread) / jnp.min(spread),
        run=jnp.sum(state.arms.runs, dtype=jnp.int32),
        arm=state.run.arm,
    )
