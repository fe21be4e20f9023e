"""The methods, each called with all instances of a function.

All begin in the middle of the box that the optima lie in, with a spread of a fifth of
its width, and restart within two spreads of there, as far as they restart.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import cma
import evosax.algorithms
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from benchmarks.coco import batched
from benchmarks.coco.problems import Counted, Domain, Ended
from qiaso_jax.search.covariance import DIAGONAL
from qiaso_jax.search.plan import default_candidates

REACH = 2.0
"""So many spreads from the start a restart may be, in each coordinate."""

Method = Callable[[Sequence[Counted]], None]


def searched(**changes: Any) -> Method:
    """``qiaso_jax.minimize(..., workers=map)`` on all of them at once.

    Args:
      **changes: fields of its plan.
    """

    @functools.cache
    def compiled(budget, *domain):
        domain = Domain(*map(np.array, domain))
        plan = batched.default_plan(len(domain.lower), budget)
        return batched.searched(plan._replace(**changes), domain)

    def method(problems):
        with jax.enable_x64(True):
            domain = (tuple(side.tolist()) for side in problems[0].domain)
            compiled(problems[0].budget, *domain)(problems)

    return method


def one_by_one(search: Callable[[Counted], Any]) -> Method:
    """The method that searches each of them for itself."""

    def method(problems):
        for problem in problems:
            with contextlib.suppress(Ended):
                search(problem)

    return method


def pycma(**settings: Any) -> Method:
    """Of the package cma, with nine restarts, each with twice the candidates."""

    @one_by_one
    def method(problem):
        domain = problem.domain
        rng = np.random.default_rng(problem.seed)
        starts = [domain.start]

        def start():
            return starts.pop() if starts else anywhere(rng, domain)

        sigma = domain.sigma.max()
        options = {
            "verbose": -9,
            "maxfevals": problem.budget,
            "seed": problem.seed + 1,
            "CMA_stds": domain.sigma / sigma,
        }
        if domain.integers.any():
            options |= {
                "bounds": [list(edge) for edge in domain.edges],
                "integer_variables": np.flatnonzero(domain.integers).tolist(),
            }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            cma.fmin2(problem, start, sigma, options, restarts=9, **settings)

    return method


def of_evosax(name: str) -> Method:
    """An algorithm of evosax in double precision, with 4 + 3 log D candidates.

    It has no restarts. Its own settings are scaled by the spread.
    """

    @functools.cache
    def compiled(dimension):
        number = default_candidates(dimension)
        algorithm = getattr(evosax.algorithms, name)(number, jnp.zeros(dimension))
        return algorithm, algorithm.default_params

    @one_by_one
    def method(problem):
        domain = problem.domain
        with jax.enable_x64(True):
            algorithm, params = compiled(len(domain.start))
            key = jax.random.key(problem.seed)
            state = algorithm.init(key, jnp.zeros(len(domain.start)), params)
            while True:
                key, ask_key, tell_key = jax.random.split(key, 3)
                u, state = algorithm.ask(ask_key, state, params)
                points = domain.start + domain.sigma * np.asarray(u)
                values = jnp.array([problem(x) for x in points])
                state, _ = algorithm.tell(tell_key, u, values, state, params)

    return method


@one_by_one
def nelder_mead(problem: Counted) -> None:
    """scipy's, restarted while the budget lasts."""
    domain = problem.domain
    rng = np.random.default_rng(problem.seed)
    start = domain.start
    while True:
        options = {
            "initial_simplex": np.vstack([start, start + np.diag(domain.sigma)]),
            "maxfev": problem.budget,
            "xatol": 1e-9,
            "fatol": 1e-9,
            "adaptive": True,
        }
        scipy.optimize.minimize(problem, start, method="Nelder-Mead", options=options)
        start = anywhere(rng, domain)


@one_by_one
def differential_evolution(problem: Counted) -> None:
    """scipy's, in the box, restarted while the budget lasts."""
    domain = problem.domain
    for number in range(problem.budget):
        scipy.optimize.differential_evolution(
            problem,
            list(zip(domain.lower, domain.upper, strict=True)),
            maxiter=problem.budget,
            rng=1000 * problem.seed + number,
            integrality=domain.integers,
        )


@one_by_one
def random_search(problem: Counted) -> None:
    """Uniform in the box."""
    rng = np.random.default_rng(problem.seed)
    while True:
        problem(rng.uniform(*problem.domain.edges))


def anywhere(rng: np.random.Generator, domain: Domain) -> np.ndarray:
    """A point to begin again from."""
    side = rng.uniform(-REACH, REACH, len(domain.start))
    return domain.start + domain.sigma * side


METHODS: dict[str, Method] = {
    "minimize": searched(),
    "minimize, no restarts": searched(restarts=0),
    "minimize, diagonal": searched(kind=DIAGONAL),
    "cma": pycma(),
    "cma, bipop": pycma(bipop=True),
    "evosax CMA_ES": of_evosax("CMA_ES"),
    "evosax SNES": of_evosax("SNES"),
    "evosax Sep_CMA_ES": of_evosax("Sep_CMA_ES"),
    "Nelder-Mead": nelder_mead,
    "differential evolution": differential_evolution,
    "random search": random_search,
}
