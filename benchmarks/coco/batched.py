"""``minimize`` on all instances of a function, step by step at once.

The searches are those of ``minimize(..., workers=map)``, key by key; one step of all of
them takes little more time than one of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import cocoex
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.coco.methods import SIGMA
from benchmarks.coco.problems import TARGETS
from qiaso_jax.search import adaptive, state
from qiaso_jax.search.coordinates import Space
from qiaso_jax.search.covariance import FULL
from qiaso_jax.search.on_host import EPSILON
from qiaso_jax.search.plan import Plan, default_candidates, largest
from qiaso_jax.search.result import MinimizeStatus


def default_plan(dimension: int, budget: int) -> Plan:
    """That of ``minimize`` by its defaults, in double precision."""
    least = default_candidates(dimension)
    return Plan(
        FULL,
        size=dimension,
        dtype=jnp.float64,
        least=least,
        most=largest(least, budget),
        budget=budget,
        restarts=np.inf,
        target=-np.inf,
    )


def searched(plan: Plan) -> Callable[[int, Sequence[int]], list[float]]:
    """``differences(function, instances)``, which compiles in its first call.

    Best value less the optimum; a search ends once all targets are reached.
    """
    zero = jnp.zeros(plan.size, plan.dtype)
    space = Space(zero, zero + SIGMA, zero - jnp.inf, zero + jnp.inf, zero > 0)

    def told(before, target, values):
        own = plan._replace(target=target)
        after = adaptive.told(own, space, before, values, EPSILON)
        is_on = before.status == MinimizeStatus.RUNNING
        return jax.tree.map(partial(jnp.where, is_on), after, before)

    all_asked = jax.jit(jax.vmap(partial(adaptive.asked, plan), (0, None)))
    all_told = jax.jit(jax.vmap(told))

    def differences(function, instances):
        problems = [
            cocoex.BareProblem("bbob", function, plan.size, instance)
            for instance in instances
        ]
        optima = np.array([problem.best_value() for problem in problems])
        seeds = jnp.array([1000 * function + instance for instance in instances])
        keys = jax.vmap(lambda seed: jax.random.key_data(jax.random.key(seed)))(seeds)
        states = jax.vmap(partial(state.begun, plan, space))(keys)
        # Below the last target by more than what the sum rounds.
        targets = optima + TARGETS[-1] / 2
        while (is_on := np.asarray(states.status) == MinimizeStatus.RUNNING).any():
            numbers = np.where(is_on, states.run.candidates, 0)
            values = np.full((len(problems), plan.most), np.nan)
            for first in range(0, numbers.max(), plan.least):
                points = SIGMA * np.asarray(all_asked(states, first // plan.least))
                for i in np.flatnonzero(numbers > first):
                    found = [problems[i](x) for x in points[i]]
                    values[i, first : first + plan.least] = found
            states = all_told(states, targets, values)
        return (np.asarray(states.best_value) - optima).tolist()

    return differences
