"""A run of a search: what is known of it, and what it does by itself in a step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from qiaso_jax.search.covariance import Gaussian
from qiaso_jax.search.plan import Plan

LARGE, ANNEALED, SMALL = range(3)
"""The arms."""

UNLIMITED = np.iinfo(np.int32).max
"""Evaluations of a run that only the budget ends."""

FEWEST = 10
"""A run has no more candidates than leave it so many steps."""

ANNEALING = (50, 2)
"""So many steps, and N times so many, in which σ is annealed,"""

COOLING = 30.0
"""by this factor."""

HALVED = (10, 2)
"""σ is halved whenever a run has found nothing better in so many steps, and N times so
many."""

STALLED = 80
"""Under noise K is doubled once the level of values has fallen no more for so many
steps of it,"""

WIDENED = 3
"""and σ, which has shrunk to where values differ by noise alone, is so many times as
large: farther apart they differ by more."""


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
