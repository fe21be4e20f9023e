"""Rastrigin's function, and our methods that search it at equal evaluations."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import qiaso_jax
from benchmarks.harness.stopwatch import Stopwatch

PAPER = qiaso_jax.PAPER
DIMENSION = 30
HALF_WIDTH = 5.12
SIGMA = HALF_WIDTH / 2
"""Initial spread of the rivals: pycma's advice is a quarter of the width of the box."""
WORKING_SIGMA = 2 * HALF_WIDTH / 3
"""Initial spread of ``minimize``: its advice is a third."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One method at one budget: the best value that each seed found."""

    method: str
    settings: dict[str, Any]
    budget: int
    evaluations: int
    seconds: float
    """Of the wall clock, for all seeds, with compilation."""
    cpu_seconds: float
    values: list[float]

    @property
    def quartiles(self) -> list[float]:
        """The first quartile, the median and the third."""
        return np.percentile(self.values, [25, 50, 75]).tolist()

    @property
    def solved(self) -> int:
        """Seeds that found the global basin: all other minima are 0.99 or higher."""
        return sum(value < 0.5 for value in self.values)

    def record(self) -> dict[str, Any]:
        """What the files of results hold."""
        found = {"quartiles": self.quartiles, "solved": self.solved}
        return dataclasses.asdict(self) | found

    def cells(self) -> list[str]:
        """What tables show: population, evaluations, quartiles, seeds that solved."""
        return [
            f"{self.settings['population']:,}",
            f"{self.evaluations:,}",
            *(f"{value:.3g}" for value in self.quartiles),
            f"{self.solved}/{len(self.values)}",
        ]


def rastrigin(x: Any, xp: Any = jnp) -> Any:
    """Rastrigin's function over the last axis, least (0) at the origin.

    1 − cos(2πx) is written as 2 sin²(πx), so that no digits cancel near the minimum.
    """
    return xp.sum(x**2 + 20 * xp.sin(xp.pi * x) ** 2, axis=-1)


def starting_points(seeds: int) -> np.ndarray:
    """One point of the box for each seed, shape ``[seeds, DIMENSION]``."""
    rng = np.random.default_rng(0)
    return rng.uniform(-HALF_WIDTH, HALF_WIDTH, (seeds, DIMENSION))


def steps(
    tx: Any,
    start: jax.Array,
    num_steps: int,
    keep: Callable[[jax.Array, Any], Any],
    **functions: Any,
) -> Any:
    """``keep(x, info)`` of every step of a transformation that needs no gradient.

    ``functions`` are what its ``update`` evaluates.
    """

    def step(carry, _):
        x, state = carry
        updates, state = tx.update(None, state, x, **functions)
        return (optax.apply_updates(x, updates), state), keep(x, state.info)

    return jax.lax.scan(step, (start, tx.init(start)), length=num_steps)[1]


def transformed(
    method: str,
    settings: dict[str, Any],
    make: Callable[..., Any],
    budget: int,
    population: int,
    starts: np.ndarray,
    fun: Callable[[jax.Array], jax.Array] = rastrigin,
) -> Run:
    """The transformations ``make(key=...)``, one for each seed."""

    def search(start, key, step_keys):
        def best(_, info):
            return info.best_loss

        return steps(make(key=key), start, len(step_keys), best, value_fn=fun)

    return searched(method, settings, budget, population, starts, search)


def minimised(
    method: str,
    budget: int,
    starts: np.ndarray,
    fun: Callable[[jax.Array], jax.Array] = rastrigin,
    **settings: Any,
) -> Run:
    """``minimize``, as a user would call it, with some of its ``settings``."""
    watch = Stopwatch()
    results = [
        qiaso_jax.minimize(
            fun,
            jnp.asarray(start, jnp.float32),
            sigma=WORKING_SIGMA,
            max_evaluations=budget,
            key=seed,
            **settings,
        )
        for seed, start in enumerate(starts)
    ]
    spent = max(int(result.nfev) for result in results)
    population = int(results[0].nfev // results[0].nit)
    settings = settings | {"population": population, "sigma": WORKING_SIGMA}
    values = [float(result.fun) for result in results]
    return Run(method, settings, budget, spent, *watch.read(), values)


def searched(
    method: str,
    settings: dict[str, Any],
    budget: int,
    population: int,
    starts: np.ndarray,
    search: Callable[[jax.Array, jax.Array, jax.Array], jax.Array],
) -> Run:
    """All seeds side by side.

    ``search(start, key, step_keys)`` gives the best value of each step, in which one
    population is evaluated.
    """
    num_steps = budget // population

    @jax.jit
    @jax.vmap
    def best(start, key):
        init_key, scan_key = jax.random.split(key)
        return jnp.min(search(start, init_key, jax.random.split(scan_key, num_steps)))

    watch = Stopwatch()
    keys = jax.vmap(jax.random.key)(jnp.arange(len(starts)))
    values = np.asarray(best(jnp.asarray(starts, jnp.float32), keys)).tolist()
    settings = {"population": population, **settings}
    spent = num_steps * population
    return Run(method, settings, budget, spent, *watch.read(), values)
