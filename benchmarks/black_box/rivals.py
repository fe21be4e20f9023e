"""The methods: each searches with one setting of those that it is tuned over."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import cma
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from evosax.algorithms import CMA_ES, SNES, Open_ES, Sep_CMA_ES

import qiaso_jax
from benchmarks.black_box.problem import Instance, Search

SPREADS = (0.03, 0.1, 0.3)
"""At the start, in widths of the box."""
MEMBERS = (10, 20, 40)
"""Of the population of differential evolution."""
RATE = 0.3
"""Adam's in Open-ES, in units of its spread."""
CHUNK = 50
FULL_UP_TO = 200
"""Coordinates of which the rivals learn the whole covariance."""


class Method(NamedTuple):
    """One way to search.

    Attributes:
      search: ``(search, setting, seed)``; the mean of the distribution that was
        searched with in the end, or ``None`` where there is none.
      settings: that it is tuned over.
      suits: whether it can search a problem of so many coordinates.
    """

    search: Callable[[Search, Any, int], np.ndarray | None]
    settings: tuple[Any, ...] = SPREADS
    suits: Callable[[int], bool] = lambda size: True


def minimize(search: Search, spread: float, seed: int) -> np.ndarray:
    """``qiaso_jax.minimize`` with its defaults."""
    instance = search.instance
    result = qiaso_jax.minimize(
        search.values,
        instance.start,
        sigma=spread * search.width,
        bounds=search.bounds,
        integers=instance.integers,
        max_evaluations=search.budget,
        vectorized=True,
        key=seed,
    )
    return np.asarray(result.mean)


def pycma(search: Search, spread: float, seed: int) -> np.ndarray:
    """Of the package cma, with nine restarts, each with twice the candidates.

    Of many coordinates it learns the variances alone: a step of a full covariance takes
    longer than a hundred evaluations of the pendulum.
    """
    instance, rng = search.instance, np.random.default_rng(seed)
    starts = [instance.start]
    options = {
        "bounds": list(search.bounds or (None, None)),
        "CMA_diagonal": instance.start.size > FULL_UP_TO,
        "CMA_stds": search.width,
        "integer_variables": np.flatnonzero(instance.integers).tolist(),
        "maxfevals": search.budget,
        "seed": seed + 1,
        "verbose": -9,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, found = cma.fmin2(
            None,
            lambda: starts.pop() if starts else search.anywhere(rng),
            spread,
            options,
            restarts=9,
            parallel_objective=lambda points: search.values(np.array(points)).tolist(),
        )
    return found.result.xfavorite


def evolved(make: Callable[[int, float], tuple[Any, Any]]) -> Callable[..., np.ndarray]:
    """A method of evosax, which knows no bounds: what leaves them is clipped."""

    def method(search: Search, spread: float, seed: int) -> np.ndarray:
        instance = search.instance
        algorithm, hyper = make(instance.start.size, spread)
        ask, step = stepped(algorithm)
        keys = jax.random.split(jax.random.key(seed))
        unit = (instance.start - instance.lower) / search.width

        def points(units: jax.Array) -> np.ndarray:
            found = instance.lower + search.width * np.asarray(units, float)
            return found if search.bounds is None else np.clip(found, *search.bounds)

        state = algorithm.init(keys[0], jnp.asarray(unit, jnp.float32), hyper)
        key, asked, state = ask(keys[1], state, hyper)
        while search.left >= algorithm.population_size:
            values = search.values(points(asked)).astype(np.float32)
            key, asked, state = step(key, asked, values, state, hyper)
        return points(algorithm.get_mean(state))

    return method


@cache
def stepped(algorithm: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The first ask, and a tell with the ask after it, compiled."""

    def ask(key: jax.Array, state: Any, hyper: Any) -> tuple[jax.Array, Any, Any]:
        key, ask_key = jax.random.split(key)
        return key, *algorithm.ask(ask_key, state, hyper)

    def step(
        key: jax.Array, asked: jax.Array, values: jax.Array, state: Any, hyper: Any
    ) -> tuple[jax.Array, Any, Any]:
        key, tell_key = jax.random.split(key)
        state, _ = algorithm.tell(tell_key, asked, values, state, hyper)
        return ask(key, state, hyper)

    return jax.jit(ask), jax.jit(step)


def population(size: int) -> int:
    """Hansen's default, 4 + ⌊3 log N⌋."""
    return 4 + math.floor(3 * math.log(size))


@cache
def cma_es(size: int) -> tuple[Any, Any]:
    """CMA-ES of evosax, and its separable one for many coordinates."""
    if size <= FULL_UP_TO:
        algorithm = CMA_ES(population(size), jnp.zeros(size))
        return algorithm, algorithm.default_params
    algorithm = Sep_CMA_ES(population(size), jnp.zeros(size))
    hyper, quicker = algorithm.default_params, (size + 2) / 3
    # evosax keeps the rates of a full covariance; these are Ros and Hansen's, 2008.
    c_1 = jnp.minimum(1.0, quicker * hyper.c_1)
    return algorithm, hyper.replace(
        c_1=c_1, c_mu=jnp.minimum(1 - c_1, quicker * hyper.c_mu)
    )


@cache
def snes(size: int) -> tuple[Any, Any]:
    """SNES of evosax."""
    algorithm = SNES(population(size), jnp.zeros(size))
    return algorithm, algorithm.default_params


def spreading(make: Callable[[int], tuple[Any, Any]]) -> Callable[..., Any]:
    """With a spread at the start."""

    def made(size: int, spread: float) -> tuple[Any, Any]:
        algorithm, hyper = make(size)
        return algorithm, hyper.replace(std_init=jnp.float32(spread))

    return made


@cache
def open_es(size: int, spread: float) -> tuple[Any, Any]:
    """Open-ES of evosax with Adam, its spread kept."""
    algorithm = Open_ES(
        2 * (population(size) // 2),
        jnp.zeros(size),
        optimizer=optax.adam(RATE * spread),
        std_schedule=optax.constant_schedule(spread),
    )
    return algorithm, algorithm.default_params


def differential_evolution(search: Search, members: int, seed: int) -> None:
    """scipy's, restarted while the budget lasts."""
    instance, rng = search.instance, np.random.default_rng(seed)
    bounds = np.transpose([instance.lower, instance.upper])
    while search.left > 0:
        first: Any = search.anywhere(rng, members)
        first[0] = instance.start
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scipy.optimize.differential_evolution(
                lambda points: search.values(points.T),
                bounds,
                init=first,
                integrality=instance.integers,
                maxiter=search.left // members,
                callback=lambda intermediate_result: search.left <= 0,
                polish=False,
                updating="deferred",
                vectorized=True,
                rng=rng,
            )


def nelder_mead(search: Search, spread: float, seed: int) -> None:
    """scipy's, restarted while the budget lasts."""
    instance, rng = search.instance, np.random.default_rng(seed)
    start = instance.start
    while search.left > 0:
        edges = spread * search.width
        # Towards the farther side, so that the simplex is in the box.
        edges = np.where(2 * start > instance.lower + instance.upper, -edges, edges)
        simplex = start + np.vstack([np.zeros(start.size), np.diag(edges)])
        options = {
            "initial_simplex": simplex,
            "maxfev": search.left,
            "xatol": 1e-9,
            "fatol": 1e-9,
            "adaptive": True,
        }
        scipy.optimize.minimize(
            lambda x: search.values(x[None])[0],
            start,
            method="Nelder-Mead",
            bounds=None if search.bounds is None else np.transpose(search.bounds),
            options=options,
        )
        start = search.anywhere(rng)


def random_search(search: Search, setting: None, seed: int) -> None:
    """Uniform in the box."""
    rng = np.random.default_rng(seed)
    while search.left > 0:
        search.values(search.anywhere(rng, CHUNK))


METHODS = {
    "minimize": Method(minimize),
    "cma": Method(pycma),
    "evosax CMA-ES": Method(evolved(spreading(cma_es))),
    "evosax SNES": Method(evolved(spreading(snes))),
    "evosax Open-ES": Method(evolved(open_es), suits=lambda size: size > FULL_UP_TO),
    "differential evolution": Method(differential_evolution, MEMBERS),
    "Nelder-Mead": Method(nelder_mead, suits=lambda size: size <= FULL_UP_TO),
    "random search": Method(random_search, (None,)),
}


def found(
    method: Method, instance: Instance, budget: int, setting: Any, seed: int
) -> dict[str, dict[str, float]]:
    """What is measured of the best point seen, and of the mean if there is one."""
    search = Search(instance, budget)
    mean = method.search(search, setting, seed)
    measured = {"best seen": instance.measures(search.best)}
    if mean is not None:
        measured["mean"] = instance.measures(mean)
    return measured
