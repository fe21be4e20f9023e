"""Runs of a search: when one ends, and where and how large the next one is.

Three arms share the evaluations: runs whose number of candidates doubles from one to
the next, short ones around with fewer candidates and spreads (both BIPOP, Hansen 2009),
and runs that anneal a spread, the same in all directions, before they adapt it. The arm
that has found the best value so far gets the largest share.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from qiaso_jax.search.coordinates import Space
from qiaso_jax.search.covariance import Gaussian
from qiaso_jax.search.plan import Plan
from qiaso_jax.search.runs import (
    ANNEALED,
    FEWEST,
    LARGE,
    SMALL,
    Run,
    annealing_steps,
    first_run,
)

RESOLUTION = {64: 1e-11, 32: 1e-9}
"""Values that differ by less are one value, by the bits of their precision; where they
are all small, in their unit."""

SAME = 1e3
"""And those of two runs, by less than so many times that."""

NARROW = 1e-12
"""A spread of this part of the first one has converged."""

LATEST, AGREED = 10, 3e-3
"""And so have values, where the best ones of so many steps differ by no more than this
part of what the first ones do."""

DIGITS = 1e-6
"""Where another may follow, a run has converged on a rough function whose spread is
this part of the first one, and whose values differ by no more: the digits that are left
take as long, in a place that is rarely the best."""

FEW = 9
"""So it is in so few dimensions. In more, the spread is enough where values differ by
more than points, but not where by as much: along a sharp ridge it is far."""

SMOOTH = 1e-3
"""On a smooth function of few dimensions they differ by less than this part of what
points do, by their squares."""

BEHIND = 100
"""A run gives up that is behind the best by so many times what its values differ by."""

WIDE = 1e4
"""A spread of so many times the first one goes nowhere."""

FLAT = 2
"""Steps in a row on a plateau end a run; it has converged, if values had differed."""

AGAIN = 5
"""So many runs that converge to the best value end the search."""

SHARES = (4, 1, 2)
"""Of the evaluations, of each arm."""

WARMED, GROWN = 2, 4
"""The annealed arm begins after so many runs of the large one, and the small one."""

LEADING = 3
"""What multiplies the share of the arm that has found the best value."""

PROBING = 0.12
"""It begins earlier where its first run is no more of the evaluations, and the function
is not rough, but has hollows that are smooth: these it sees over,"""

AHEAD = 0.02
"""and goes on at once where it leads by this part of how values differ at the start."""

PROBE = 2
"""The first annealed run has so many times the least number of candidates,"""

GROWTH = 4
"""and each so many times those of the one before."""

AFFORDED = 0.9
"""Of the evaluations that are left, annealing may take so many."""


class End(NamedTuple):
    """What is to be said of the end of a run, booleans.

    Attributes:
      converged: whether it has.
      has_come: whether it ends now.
      rough: whether values differ by more than points do.
    """

    converged: jax.Array
    has_come: jax.Array
    rough: jax.Array


class Arms(NamedTuple):
    """What the runs that have ended were.

    Attributes:
      spent: evaluations of each arm, int32 ``[3]``.
      runs: of each, int32 ``[3]``.
      best: least value of each, ``[3]``.
      scale: that of the first run.
      last_large: evaluations of the last run of the arm that grows, int32.
      again: how many have converged to the best value.
      rough: whether the last one found the function rough.
    """

    spent: jax.Array
    runs: jax.Array
    best: jax.Array
    scale: jax.Array
    last_large: jax.Array
    again: jax.Array
    rough: jax.Array


def no_arms(dtype: Any) -> Arms:
    """Before any run has ended."""
    none = jnp.zeros((), jnp.int32)
    each = jnp.zeros(3, jnp.int32)
    best = jnp.full(3, jnp.inf, dtype)
    return Arms(each, each, best, jnp.zeros((), dtype), none, none, none > 0)


def ended(
    plan: Plan,
    space: Space,
    before: Run,
    run: Run,
    arms: Arms,
    gaussian: Gaussian,
    values: jax.Array,
    epsilon: Any,
    left: jax.Array,
) -> End:
    """Whether a run ends after a step.

    Args:
      plan: of the search.
      space: that is searched.
      before: the run before these values.
      run: with these values.
      arms: the runs before it.
      gaussian: after the step.
      values: of the step, infinite beyond its candidates.
      epsilon: of their precision.
      left: evaluations.
    """
    size = gaussian.mean.size
    finite = jnp.isfinite(values)
    lowest = jnp.min(run.recent)
    now = jnp.max(values, where=finite, initial=-jnp.inf) - run.recent[0]
    # Those that leave an integer, on which the others agree, always differ.
    leaves = jnp.any(gaussian.least > 0)
    highest = jnp.max(values, where=finite & ~leaves, initial=-jnp.inf)
    highest = jnp.maximum(highest, jnp.max(run.recent))
    apart, unit = highest - lowest, jnp.minimum(run.scale, 1)
    least = jnp.maximum(
        unit * _resolution(values.dtype), 4 * epsilon * jnp.abs(run.best)
    )
    one_value = apart <= least
    spreads = gaussian.sigma * jnp.sqrt(plan.kind.variances(gaussian))
    rounding = jnp.finfo(values.dtype).eps * jnp.abs(space.offset + gaussian.mean)
    narrow = spreads < jnp.maximum(NARROW * run.sigma, rounding)
    spread = jnp.max(spreads)
    if size <= FEW:
        rough = now * run.sigma > SMOOTH * unit * spread
        settled = rough & (apart < DIGITS * unit)
    else:
        rough = settled = now * run.sigma > run.scale * spread
    settled &= (jnp.sum(arms.runs) < plan.restarts) & (spread < DIGITS * run.sigma)
    is_flat = run.flat >= jnp.where(leaves, run.recent.size, FLAT)
    # Where the best still differ, values are noise as near as points can be.
    latest = run.recent[:LATEST]
    among = jnp.max(latest, where=jnp.isfinite(latest), initial=lowest) - lowest
    agree = among <= AGREED * run.scale
    converged = (one_value | (jnp.all(narrow) | settled) & agree) & (run.annealing < 0)
    converged |= is_flat & (run.scale > 0) & (agree | ~jnp.any(narrow))
    patience = 100 * run.candidates + 100 * size**1.5
    stagnant = run.spent - run.gained > patience.astype(jnp.int32)
    # More candidates are what it takes, where it still is and not elsewhere.
    stagnant &= not plan.noisy
    wide = spread > WIDE * jnp.maximum(run.sigma, 1)
    broken = ~(jnp.isfinite(spread) & (spread > 0))
    # Refined is an annealed run that leads; but for the first, if another can follow.
    has_cooled = before.annealing == 0
    larger = _annealed_candidates(plan, arms.runs[ANNEALED] + 1)
    follows = (_affordable(plan, larger, left) > 0) & (arms.runs[ANNEALED] == 0)
    follows &= _is_ahead(arms, run.value)
    lost = has_cooled & (follows | (run.value >= jnp.min(arms.best)))
    others = is_flat | ((stagnant | settled) & (run.annealing < 0))
    behind = run.best - jnp.min(arms.best) > BEHIND * apart
    lost |= behind & run.is_feasible & (run.annealing < 0)
    spent = run.spent >= run.limit
    return End(converged, converged | others | wide | broken | lost | spent, rough)


def _resolution(dtype: Any) -> float:
    return RESOLUTION[jnp.finfo(dtype).bits]


def _annealed_candidates(plan: Plan, runs: jax.Array) -> jax.Array:
    """K of an annealed run after so many, as a float: it may be beyond any budget."""
    return plan.least * PROBE * jnp.asarray(GROWTH, plan.dtype) ** runs


def _affordable(plan: Plan, wanted: jax.Array, left: jax.Array) -> jax.Array:
    """K of an annealed run; 0 where not even as many as in the last one can cool."""
    most = jnp.minimum(AFFORDED * left / annealing_steps(plan.size), plan.most)
    return jnp.where(GROWTH * most >= wanted, jnp.minimum(wanted, most), 0)


def _is_ahead(arms: Arms, annealed: jax.Array) -> jax.Array:
    """Whether annealing leads by far, where it has found the value ``annealed``."""
    others = jnp.minimum(arms.best[LARGE], arms.best[SMALL])
    return others - annealed > AHEAD * arms.scale


def tolerance(arms: Arms, best: jax.Array) -> jax.Array:
    """What values may differ by from the best one that a run found, and be the same."""
    unit = jnp.maximum(jnp.minimum(arms.scale, 1), jnp.abs(best))
    return SAME * _resolution(best.dtype) * unit


def counted(arms: Arms, run: Run, end: End) -> Arms:
    """With one more run that has ended."""
    best = jnp.min(arms.best)
    near = tolerance(arms, best)
    is_better = run.value < best - near
    is_same = end.converged & run.is_feasible & (run.value <= best + near)
    return Arms(
        spent=arms.spent.at[run.arm].add(run.spent),
        runs=arms.runs.at[run.arm].add(1),
        best=arms.best.at[run.arm].min(run.value),
        scale=jnp.where(arms.scale > 0, arms.scale, run.scale * run.is_feasible),
        last_large=jnp.where(run.arm == LARGE, run.spent, arms.last_large),
        again=jnp.where(is_better, 0, arms.again) + is_same,
        rough=end.rough,
    )


def next_run(key: jax.Array, plan: Plan, arms: Arms, run: Run, left: jax.Array) -> Run:
    """The run after one that has ended.

    Args:
      key: a PRNG key.
      plan: of the search.
      arms: with that one counted.
      run: the one that has ended.
      left: evaluations.
    """
    dtype, least = run.sigma.dtype, plan.least
    chance, narrowing = jax.random.uniform(key, (2,), dtype)
    runs = arms.runs[LARGE]
    large = jnp.minimum(least * 2.0**runs, plan.most)
    large = jnp.maximum(jnp.minimum(large, left / FEWEST), least)
    annealed = _annealed_candidates(plan, arms.runs[ANNEALED])
    annealed = _affordable(plan, annealed, left)
    affords = annealed >= 2 * least
    probe = PROBE * least * annealing_steps(plan.size)
    early = (probe <= PROBING * plan.budget) & ~arms.rough
    early &= arms.runs[ANNEALED] == 0
    is_ahead = _is_ahead(arms, arms.best[ANNEALED])
    affords &= early | is_ahead | (runs >= WARMED)
    small = jnp.maximum(least, least * (large / (2 * least)) ** (chance**2))
    may = jnp.stack([jnp.asarray(True), affords, runs >= GROWN])
    is_best = arms.best <= jnp.min(arms.best)
    share = jnp.asarray(SHARES, dtype) * jnp.where(is_best, LEADING, 1)
    leads = (run.arm == ANNEALED) & is_ahead
    least_spent = jnp.argmin(jnp.where(may, arms.spent / share, jnp.inf))
    arm = jnp.where(leads & affords, ANNEALED, least_spent)
    # Partners of an annealed pair are in parts next to each other.
    unit = least * jnp.where(arm == ANNEALED, 2, 1)
    wanted = jnp.stack([large, annealed, small])[arm]
    fresh = first_run(least, 1, dtype)
    return fresh._replace(
        arm=arm.astype(jnp.int32),
        candidates=unit * jnp.floor(wanted / unit).astype(jnp.int32),
        annealing=jnp.where(arm == ANNEALED, annealing_steps(plan.size), -1).astype(
            jnp.int32
        ),
        limit=jnp.where(arm == SMALL, arms.last_large // 2, fresh.limit),
        recent=jnp.full_like(run.recent, jnp.inf),
        sigma=jnp.where(arm == SMALL, 10 ** (-2 * narrowing), 1).astype(dtype),
    )
