"""Runs of a search: when one ends, and where and how large the next one is.

Three arms share the evaluations: runs whose number of candidates doubles from one to
the next, short ones around with fewer candidates and spreads (both BIPOP, Hansen 2009),
and runs that anneal a spread, the same in all directions, before they adapt it. The arm
that has found the best value so far gets the largest share.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qiaso_jax.search.coordinates import Space
from qiaso_jax.search.covariance import Gaussian
from qiaso_jax.search.plan import Plan

RESOLUTION = {64: 1e-11, 32: 1e-9}
"""Values that differ by less are one value, by the bits of their precision; where they
are all small, in their unit."""

SAME = 1e3
"""And those of two runs, by less than so many times that."""

NARROW = 1e-12
"""A spread of this part of the first one has converged."""

AGREED = 1e-3
"""And so have values, where the best of the last steps differ by less than this part of
what the first ones do."""

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

UNLIMITED = np.iinfo(np.int32).max
"""Evaluations of a run that only the budget ends."""

FEWEST = 10
"""A run has no more candidates than leave it so many steps."""

LARGE, ANNEALED, SMALL = range(3)
"""The arms."""

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

HALVED = (10, 2)
"""σ is halved whenever a run has found nothing better in so many steps, and N times so
many."""

STALLED = 80
"""Under noise K is doubled once the level of values has fallen no more for so many
steps of it,"""

WIDENED = 3
"""and σ, which has shrunk to where values differ by noise alone, is so many times as
large: farther apart they differ by more."""

ANNEALING = (50, 2)
"""So many steps, and N times so many, in which σ is annealed,"""

COOLING = 30.0
"""by this factor."""

PROBE = 2
"""The first annealed run has so many times the least number of candidates,"""

GROWTH = 4
"""and each so many times those of the one before."""

AFFORDED = 0.9
"""Of the evaluations that are left, annealing may take so many."""


class Run(NamedTuple):
    """One run, from one start.

    Attributes:
      arm: that it is of, int32.
      candidates: K, int32.
      annealing: steps that it still anneals, int32; 0 in the step after them, which
        tells how it has fared, and −1 thereafter, and in runs that do not.
      limit: evaluations that it may have, int32.
      spent: that it had, int32.
      best: its least merit: value, or violation before a candidate was feasible; under
        noise the least level of values.
      gained: ``spent`` when it was found, or when annealing ended.
      scale: largest difference of finite values in its first step; 0 before it.
      recent: the least values of its last steps, shape ``[W]``, ``inf`` before there
        are. No NaN, whose minimum under ``vmap`` XLA does not always take for one.
      sigma: σ at its start, a scalar.
      flat: how many steps in a row three of four candidates had the least value, or
        none had any.
      worst: the greatest value of a feasible candidate, in the last step that had one;
        ``inf`` before.
    """

    arm: jax.Array
    candidates: jax.Array
    annealing: jax.Array
    limit: jax.Array
    spent: jax.Array
    best: jax.Array
    gained: jax.Array
    scale: jax.Array
    recent: jax.Array
    sigma: jax.Array
    flat: jax.Array
    worst: jax.Array

    @property
    def is_feasible(self) -> jax.Array:
        """Whether a candidate was."""
        return jnp.isfinite(self.worst)

    @property
    def value(self) -> jax.Array:
        """Its least value, ``inf`` if no candidate was feasible."""
        return jnp.where(self.is_feasible, self.best, jnp.inf)


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


def annealing_steps(size: int) -> int:
    """In how many steps σ is annealed."""
    return ANNEALING[0] + ANNEALING[1] * size


def window(size: int, least: int) -> int:
    """W: for so many steps a run may be without a difference."""
    return 10 + -(-30 * size // least)


def first_run(least: int, size: int, dtype: Any) -> Run:
    """Of the arm that grows, with the least number of candidates.

    Args:
      least: K of it.
      size: N.
      dtype: of values and spreads.
    """
    none = jnp.zeros((), jnp.int32)
    return Run(
        arm=none,
        candidates=jnp.asarray(least, jnp.int32),
        annealing=none - 1,
        limit=jnp.asarray(UNLIMITED, jnp.int32),
        spent=none,
        best=jnp.asarray(jnp.inf, dtype),
        gained=none,
        scale=jnp.zeros((), dtype),
        recent=jnp.full(window(size, least), jnp.inf, dtype),
        sigma=jnp.ones((), dtype),
        flat=none,
        worst=jnp.asarray(jnp.inf, dtype),
    )


def no_arms(dtype: Any) -> Arms:
    """Before any run has ended."""
    none = jnp.zeros((), jnp.int32)
    each = jnp.zeros(3, jnp.int32)
    best = jnp.full(3, jnp.inf, dtype)
    return Arms(each, each, best, jnp.zeros((), dtype), none, none, none > 0)


def told(
    run: Run, values: jax.Array, least: int, level: jax.Array | None = None
) -> Run:
    """The run after one more step.

    Args:
      run: before it.
      values: of the step, infinite beyond its candidates.
      least: K of a run that has annealed.
      level: of values so far, which is to fall under noise in the place of the least
        merit; NaN before any value is known.
    """
    finite = jnp.isfinite(values)
    lowest = jnp.min(values, where=finite, initial=jnp.inf)
    reached = lowest
    if level is not None:
        reached = jnp.where(jnp.isnan(level), lowest, level)
    highest = jnp.max(values, where=finite, initial=-jnp.inf)
    spent = run.spent + run.candidates
    number = jnp.sum(finite)
    is_flat = 4 * jnp.sum(finite & (values == lowest)) > 3 * number
    # Of one candidate it says nothing; where none has a value, begin elsewhere.
    is_flat = jnp.where(number > 1, is_flat, number == 0)
    has_annealed = run.annealing == 1
    return run._replace(
        candidates=jnp.where(has_annealed, least, run.candidates),
        annealing=jnp.maximum(run.annealing - 1, -1),
        spent=spent,
        best=jnp.minimum(run.best, reached),
        gained=jnp.where((reached < run.best) | has_annealed, spent, run.gained),
        scale=jnp.where(run.scale > 0, run.scale, jnp.maximum(highest - lowest, 0)),
        recent=jnp.roll(run.recent, 1).at[0].set(lowest),
        flat=jnp.where(is_flat, run.flat + 1, 0),
    )


def halved(plan: Plan, run: Run, gaussian: Gaussian, values: jax.Array) -> Gaussian:
    """With half the spread, where a run has found nothing better for a while.

    On rugged functions ranks say little as long as candidates are far apart, and σ
    would stay. Where most have no value it stays, to find those that have; and under
    noise it is more candidates that are wanted: see ``enlarged``.

    Args:
      plan: of the search.
      run: after a step.
      gaussian: likewise.
      values: of the step, infinite beyond its candidates.
    """
    if plan.noisy:
        return gaussian
    period = HALVED[0] + HALVED[1] * plan.size
    steps = (run.spent - run.gained) // run.candidates
    due = (steps > 0) & (steps % period == 0) & (run.annealing < 0)
    due &= 2 * jnp.sum(jnp.isfinite(values)) >= run.candidates
    factor = jnp.where(due, 0.5, 1).astype(gaussian.sigma.dtype)
    return gaussian._replace(sigma=factor * gaussian.sigma)


def enlarged(
    plan: Plan, run: Run, gaussian: Gaussian, left: jax.Array
) -> tuple[Run, Gaussian]:
    """Under noise: with more candidates, and wider, where its level falls no more.

    Args:
      plan: of the search.
      run: after a step.
      gaussian: likewise.
      left: evaluations.
    """
    wanted = 2 * run.candidates
    due = run.spent - run.gained >= STALLED * run.candidates
    due &= (wanted <= jnp.minimum(plan.most, left // FEWEST)) & (run.annealing < 0)
    sigma = gaussian.sigma * jnp.where(due, WIDENED, 1).astype(gaussian.sigma.dtype)
    candidates = jnp.where(due, wanted, run.candidates)
    return run._replace(candidates=candidates), gaussian._replace(sigma=sigma)


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
    narrow = jnp.all(spreads < jnp.maximum(NARROW * run.sigma, rounding))
    spread = jnp.max(spreads)
    if size <= FEW:
        rough = now * run.sigma > SMOOTH * unit * spread
        settled = rough & (apart < DIGITS * unit)
    else:
        rough = settled = now * run.sigma > run.scale * spread
    settled &= jnp.sum(arms.runs) < plan.restarts
    narrow |= settled & (spread < DIGITS * run.sigma)
    is_flat = run.flat >= jnp.where(leaves, run.recent.size, FLAT)
    # Where the best still differ, values are noise as near as points can be.
    among = jnp.max(run.recent, where=jnp.isfinite(run.recent), initial=lowest) - lowest
    at_one = narrow & (among <= AGREED * run.scale)
    converged = (one_value | at_one) & (run.annealing < 0) | is_flat & (run.scale > 0)
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
    others = is_flat | ((stagnant | narrow) & (run.annealing < 0))
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
