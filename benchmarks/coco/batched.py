"""``minimize`` on all instances of a function, step by step at once.

The searches are those of ``minimize(..., workers=map)``, key by key; one step of all of
them takes little more time than one of one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.coco.problems import Counted, Domain, Ended
from qiaso_jax._trees import moves
from qiaso_jax.search import adaptive, bounds, coordinates, integers
from qiaso_jax.search.coordinates import Coordinates
from qiaso_jax.search.covariance import DIAGONAL, FULL
from qiaso_jax.search.minimize import FULL_UP_TO
from qiaso_jax.search.on_host import EPSILON
from qiaso_jax.search.plan import Plan, default_candidates, largest
from qiaso_jax.search.result import MinimizeStatus
from qiaso_jax.search.state import begun


def default_plan(dimension: int, budget: int) -> Plan:
    """That of ``minimize`` by its defaults, in double precision."""
    least = default_candidates(dimension)
    return Plan(
        FULL if dimension <= FULL_UP_TO else DIAGONAL,
        size=dimension,
        dtype=jnp.float64,
        least=least,
        most=largest(least, budget),
        budget=budget,
        restarts=np.inf,
        target=-np.inf,
    )


def searched_space(domain: Domain) -> Coordinates:
    """The coordinates of ``minimize``: without bounds, but for integers."""
    has_bounds = domain.integers.any()
    x0 = jnp.asarray(domain.start)
    whole = integers.which(domain.integers, x0)
    given = (domain.lower, domain.upper) if has_bounds else None
    within = integers.tightened(whole, bounds.box(given, x0))
    sigma = bounds.spread(domain.sigma, within, x0)
    begin = bounds.projected(within, x0)
    return coordinates.coordinates(begin, moves(x0, None), within, sigma, whole)


def searched(plan: Plan, domain: Domain) -> Callable[[Sequence[Counted]], None]:
    """Searches problems that share their domain; it compiles in its first call."""
    where = searched_space(domain)

    def asked(state, part):
        return jax.vmap(where.point)(adaptive.asked(plan, state, part))

    def told(state, values):
        return adaptive.told(plan, where.space, state, values, EPSILON)

    all_asked = jax.jit(jax.vmap(asked, (0, None)))
    all_told = jax.jit(jax.vmap(told))

    def search(problems):
        seeds = jnp.array([problem.seed for problem in problems])
        keys = jax.vmap(lambda seed: jax.random.key_data(jax.random.key(seed)))(seeds)
        states = jax.vmap(partial(begun, plan, where.space))(keys)
        is_on = np.full(len(problems), True)
        while is_on.any():
            numbers = np.where(is_on, states.run.candidates, 0)
            values = np.full((len(problems), plan.most), np.nan)
            for first in range(0, numbers.max(), plan.least):
                points = np.asarray(all_asked(states, first // plan.least))
                for i in np.flatnonzero(is_on & (numbers > first)):
                    try:
                        found = [problems[i](x) for x in points[i]]
                    except Ended:
                        is_on[i] = False
                    else:
                        values[i, first : first + plan.least] = found
            states = all_told(states, values)
            is_on &= np.asarray(states.status) == MinimizeStatus.RUNNING

    return search
