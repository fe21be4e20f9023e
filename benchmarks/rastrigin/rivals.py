"""Methods of other packages that search Rastrigin's function, and random search."""

from __future__ import annotations

from typing import Any

import cma
import jax
import jax.numpy as jnp
import numpy as np
import optax
from evosax.algorithms import SNES, Open_ES
from threadpoolctl import threadpool_limits

from benchmarks.harness.stopwatch import Stopwatch
from benchmarks.rastrigin.methods import (
    DIMENSION,
    HALF_WIDTH,
    SIGMA,
    Run,
    rastrigin,
    searched,
)


def random_search(budget: int, starts: np.ndarray) -> Run:
    """Uniform in the box."""
    population = 100

    def best(key):
        shape = (population, DIMENSION)
        x = jax.random.uniform(key, shape, minval=-HALF_WIDTH, maxval=HALF_WIDTH)
        return jnp.min(rastrigin(x))

    def search(start, key, step_keys):
        return jax.lax.map(best, step_keys)

    return searched("random search", {}, budget, population, starts, search)


def snes(budget: int, starts: np.ndarray, population: int) -> Run:
    """Its own utilities and rates, with a spread that fits the box."""
    algorithm = SNES(population, jnp.zeros(DIMENSION))
    hyper = algorithm.default_params.replace(std_init=jnp.asarray(SIGMA))
    settings = {"population": population, "sigma": SIGMA}
    return evolved("evosax SNES", settings, budget, starts, algorithm, hyper)


def open_es(
    budget: int, starts: np.ndarray, population: int, rate: float, last: float
) -> Run:
    """Antithetic pairs, centred ranks, and Adam; rate and spread are annealed."""
    steps = budget // population
    algorithm = Open_ES(
        population,
        jnp.zeros(DIMENSION),
        optimizer=optax.adam(optax.cosine_decay_schedule(rate, steps)),
        std_schedule=optax.exponential_decay(SIGMA, steps, last / SIGMA),
    )
    settings = {"population": population, "rate": rate, "sigma": [SIGMA, last]}
    hyper = algorithm.default_params
    return evolved("evosax Open_ES", settings, budget, starts, algorithm, hyper)


def evolved(
    method: str,
    settings: dict[str, Any],
    budget: int,
    starts: np.ndarray,
    algorithm: Any,
    hyper: Any,
) -> Run:
    """An algorithm of evosax."""

    def step(state, key):
        ask_key, tell_key = jax.random.split(key)
        population, state = algorithm.ask(ask_key, state, hyper)
        values = rastrigin(population)
        state, _ = algorithm.tell(tell_key, population, values, state, hyper)
        return state, jnp.min(values)

    def search(start, key, step_keys):
        return jax.lax.scan(step, algorithm.init(key, start, hyper), step_keys)[1]

    population = algorithm.population_size
    return searched(method, settings, budget, population, starts, search)


def cma_es(budget: int, starts: np.ndarray, population: int) -> Run:
    """The pycma package, restarted until the budget is spent."""
    watch = Stopwatch()
    spent, restarts, values = 0, 0, []
    # With threads, a 30 × 30 eigendecomposition takes ten times the CPU seconds.
    with threadpool_limits(1):
        for seed, start in enumerate(starts):
            spent, searches, best = _cma_seed(budget, start, population, seed)
            restarts += searches - 1
            values.append(best)
    settings = {
        "population": population,
        "sigma": SIGMA,
        "restarts_per_seed": restarts / len(starts),
    }
    return Run("cma", settings, budget, spent, *watch.read(), values)


def _cma_seed(
    budget: int, start: np.ndarray, population: int, seed: int
) -> tuple[int, int, float]:
    """Evaluations, number of searches and the best value of one seed."""
    rng = np.random.default_rng(seed)
    options = {
        "popsize": population,
        "seed": np.nan,  # not to seed NumPy's global generator
        "randn": lambda *shape: rng.standard_normal(shape),
        "verbose": -9,
    }
    spent, searches, best = 0, 0, np.inf
    while spent + population <= budget:
        search = cma.CMAEvolutionStrategy(start, SIGMA, options)
        searches += 1
        while spent + population <= budget and not search.stop():
            candidates = np.array(search.ask())
            values = rastrigin(candidates, np)
            search.tell(candidates, values)
            best = min(best, float(values.min()))
            spent += population
        start = rng.uniform(-HALF_WIDTH, HALF_WIDTH, DIMENSION)
    return spent, searches, best
